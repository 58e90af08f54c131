"""Tune the whole system end to end, retrain the pick, and promote it if it beats the champion."""

from datetime import UTC, datetime
from pathlib import Path

from metaflow import Config, Parameter, card, current, step, trigger_on_finish
from obproject import ProjectFlow

from shared.errors import EvertuneError
from shared.flow.compute import compute
from shared.flow.environment import prepare_environment
from shared.flow.idle import idle_card, unless_taken
from shared.flow.run import PARSER, REQUEST_HELP, pathspec

DIGITS = Path(__file__).parent / "../../configs/digits.toml"


@trigger_on_finish(flows=["ClassicalHPOFlow", "DeepHPOFlow"])
@compute("system")
class SystemTuneFlow(ProjectFlow):
    """start (plan) → tune (one task per worker, many trials each) → select → promote (retrain, register, gate) → end.

    It ignores which runs woke it: the ledger knows the newest dataset version whose variants are all done.
    """

    use_case = Config("use_case", default=str(DIGITS), parser=PARSER)
    variant = "system"
    dataset = Parameter("dataset", default="latest", type=str, help="latest, or the beginning of a fingerprint")
    force = Parameter("force", default=False, type=bool, help="start the study anew")
    request = Parameter("request", default="", type=str, help=REQUEST_HELP)

    @step
    def start(self):
        """Find out whether a system study is due, and on which dataset version."""
        from shared.flow import system
        from shared.flow.config import use_case_of
        from shared.flow.request import requested

        self.requested = requested(self)
        self.plan = system.plan(use_case_of(self), self.dataset, force=self.force, run=pathspec())
        self.idle = self.plan.idle
        current.run.add_tags(self.plan.tags)
        print(self.plan.headline)
        self.workers = list(range(self.plan.workers))
        self.next(self.tune, foreach="workers")

    @step
    def tune(self):
        """Run trials until the study's budget is full."""
        if not self.idle:
            from shared.flow import system

            self.stats = system.tune(self.plan, worker=self.input, workers=len(self.workers), task=current.pathspec)
        self.next(self.select)

    @step
    def select(self, inputs):
        """Take the best metric among the trials that keep the latency budget."""
        self.idle = inputs[0].idle
        if not self.idle:
            from shared.flow import system

            self.plan = inputs[0].plan
            self.result, self.trials = system.select(self.plan, [i.stats for i in inputs], run=pathspec())
        self.next(self.promote)

    @step
    def promote(self):
        """Retrain and register it, score it and the champion on the holdout, promote the better one: once per study."""
        if not self.idle:
            from shared.flow import platform, system

            with unless_taken(self):
                self.gated = system.promote(self.plan, self.result, run=pathspec())
                print(self.gated.decision.reason)
                if self.gated.decision.promote:
                    platform.register_champion(self, self.gated.version)
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self):
        """Show the Pareto front, the pick and the decision, or why nothing was due."""
        if self.idle:
            current.card.extend(idle_card(self.idle))
        else:
            from shared.flow import system

            current.card.extend(system.card(self.plan, self.result, self.trials, self.gated))
        if self.use_case.retention.nightly:
            from shared.events.prune import counts, prune
            from shared.flow.config import use_case_of

            try:
                print("pruned", counts(prune(use_case_of(self), datetime.now(UTC))))
            except EvertuneError as err:  # the chain has done its work
                print("not all is pruned, the next night goes on:", err)


if __name__ == "__main__":
    prepare_environment()
    SystemTuneFlow()
