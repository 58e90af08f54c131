"""The steps that every HPO flow inherits: plan → tune (one task per worker) → select → retrain (and register) → end.

The first step and the last have the names that Metaflow wants: `start` plans, `end` shows."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from metaflow import FlowSpec, Parameter, card, current, step

from shared.flow.idle import idle_card, unless_taken
from shared.flow.run import REQUEST_HELP, pathspec

if TYPE_CHECKING:
    from shared.domain import Variant


class HPOSteps(FlowSpec):
    """Tune one variant of a use case on one dataset version.

    Artifacts: `idle`, why there was nothing to do (empty: there was); `requested`, what the run was asked for beside
    its config; `plan`, `result`, `model_version`.
    """

    variant: ClassVar[Variant]

    dataset = Parameter("dataset", default="latest", type=str, help="latest, or the beginning of a fingerprint")
    force = Parameter("force", default=False, type=bool, help="start the study anew")
    request = Parameter("request", default="", type=str, help=REQUEST_HELP)

    @step
    def start(self) -> None:
        """Find out which study is due, and with how many workers."""
        from shared.flow import hpo
        from shared.flow.config import use_case_of
        from shared.flow.request import requested

        folder = Path(inspect.getfile(type(self))).parent
        self.requested = requested(self)
        use_case = use_case_of(self)
        self.plan = hpo.plan(use_case, self.variant, folder, self.dataset, force=self.force, run=pathspec())
        self.idle = self.plan.idle
        current.run.add_tags(self.plan.tags)
        print(self.plan.headline)
        self.workers = list(range(self.plan.workers))
        self.next(self.tune, foreach="workers")

    @step
    def tune(self) -> None:
        """Run trials until the study's budget is full."""
        if not self.idle:
            from shared.flow import hpo

            self.stats = hpo.tune(self.plan, worker=self.input, workers=len(self.workers), task=current.pathspec)
        self.next(self.select)

    @step
    def select(self, inputs: Any) -> None:
        """Take the best finished trial."""
        self.idle = inputs[0].idle
        if not self.idle:
            from shared.flow import hpo

            self.plan = inputs[0].plan
            self.result, self.trials = hpo.select(self.plan, [i.stats for i in inputs], run=pathspec())
        self.next(self.retrain)

    @step
    def retrain(self) -> None:
        """Train the best trial's model on all development rows, and register it as challenger: once per study."""
        if not self.idle:
            from shared.flow import hpo

            with unless_taken(self):
                self.model_version = hpo.register(self.plan, self.result, run=pathspec())
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self) -> None:
        """Show what was tuned, or why nothing was."""
        if self.idle:
            current.card.extend(idle_card(self.idle))
        else:
            from shared.flow import hpo

            current.card.extend(hpo.card(self.plan, self.result, self.trials, self.model_version))
