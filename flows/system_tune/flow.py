"""Tune the whole system end to end, retrain the pick, and promote it if it beats the champion."""

from pathlib import Path

from metaflow import Config, Parameter, card, current, step, trigger_on_finish
from obproject import ProjectFlow

from shared.config import parse_use_case
from shared.flow import system
from shared.flow.config import use_case_of
from shared.flow.run import pathspec
from shared.flow.user import ensure_user

DIGITS = Path(__file__).parent / "../../configs/digits.toml"


@trigger_on_finish(flows=["ClassicalHPOFlow", "DeepHPOFlow"])
class SystemTuneFlow(ProjectFlow):
    """plan → tune (one task per worker, many trials each) → select → retrain → gate.

    It ignores which runs woke it: the ledger knows the newest dataset version whose variants are all done.
    """

    use_case = Config("use_case", default=str(DIGITS), parser=parse_use_case)
    dataset = Parameter("dataset", default="latest", type=str, help="latest, or the beginning of a fingerprint")
    force = Parameter("force", default=False, type=bool, help="start the study anew")

    @step
    def start(self):
        """Find out whether a system study is due, and on which dataset version."""
        self.plan = system.plan(use_case_of(self), dataset=self.dataset, force=self.force, run=pathspec())
        print(self.plan.headline)
        current.run.add_tags(self.plan.tags)
        self.workers = list(range(self.plan.workers))
        self.next(self.tune, foreach="workers")

    @step
    def tune(self):
        """Run trials until the study's budget is full."""
        self.stats = system.tune(self.plan, worker=self.input) if self.plan.due else None
        self.next(self.select)

    @step
    def select(self, inputs):
        """Take the best metric among the trials that keep the latency budget."""
        self.plan = inputs[0].plan
        self.result = system.select(self.plan, [i.stats for i in inputs], pathspec()) if self.plan.due else None
        self.next(self.retrain)

    @step
    def retrain(self):
        """Train the picked system on all development rows."""
        self.retrained = system.retrain(self.plan, self.result) if self.plan.due else None
        self.next(self.gate)

    @step
    def gate(self):
        """Register it, score it and the champion on the holdout, and promote the better one."""
        due = self.plan.due
        self.gated = system.gate(self.plan, self.result, self.retrained, pathspec()) if due else None
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self):
        """Show the Pareto front, the pick and the decision."""
        if self.gated:
            print(self.gated.decision.reason)
        current.card.extend(system.card(self.plan, self.result, self.gated))


if __name__ == "__main__":
    ensure_user()
    SystemTuneFlow()
