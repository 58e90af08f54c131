"""The steps that every HPO flow inherits: plan → tune (one task per worker) → select → retrain → register."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

from metaflow import FlowSpec, Parameter, card, current, step

from shared.domain import Variant
from shared.flow import hpo
from shared.flow.config import use_case_of
from shared.flow.run import pathspec


class HPOSteps(FlowSpec):
    """Tune one variant of a use case on one dataset version. Artifacts: `plan`, `result`, `model_version`."""

    variant: ClassVar[Variant]
    result: Any  # a TuningResult, or None where nothing was due

    dataset = Parameter("dataset", default="latest", type=str, help="latest, or the beginning of a fingerprint")
    force = Parameter("force", default=False, type=bool, help="start the study anew")

    @step
    def start(self) -> None:
        """Find out which study is due, and with how many workers."""
        folder = Path(inspect.getfile(type(self))).parent
        self.plan = hpo.plan(
            use_case_of(self), self.variant, folder=folder, dataset=self.dataset, force=self.force, run=pathspec()
        )
        print(self.plan.headline)
        current.run.add_tags(self.plan.tags)
        self.workers = list(range(self.plan.workers))
        self.next(self.tune, foreach="workers")

    @step
    def tune(self) -> None:
        """Run trials until the study's budget is full."""
        self.stats = hpo.tune(self.plan, worker=self.input) if self.plan.due else None
        self.next(self.select)

    @step
    def select(self, inputs: Any) -> None:
        """Take the best finished trial."""
        self.plan = inputs[0].plan
        self.result = hpo.select(self.plan, [i.stats for i in inputs], pathspec()) if self.plan.due else None
        self.next(self.retrain)

    @step
    def retrain(self) -> None:
        """Train the best trial's model on all development rows."""
        self.retrained = hpo.retrain(self.plan, self.result) if self.plan.due else None
        self.next(self.register)

    @step
    def register(self) -> None:
        """Register it as challenger, and record the study as done."""
        due = self.plan.due
        self.model_version = hpo.register(self.plan, self.result, self.retrained, pathspec()) if due else None
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self) -> None:
        """Show what was tuned."""
        current.card.extend(hpo.card(self.plan, self.result, self.model_version))
