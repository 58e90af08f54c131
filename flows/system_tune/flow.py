"""Tune the whole system end to end, retrain the pick, and promote it if it beats the champion."""

from pathlib import Path

from metaflow import Config, Parameter, card, current, step, trigger_on_finish
from obproject import ProjectFlow

from shared.config import parse_use_case
from shared.flow import system
from shared.flow.config import use_case_of

DIGITS = Path(__file__).parent.parent.parent / "configs" / "digits.toml"


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
        self.plan = system.plan(use_case_of(self), dataset=self.dataset, force=self.force, run=run_pathspec())
        print(self.plan.headline)
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
        self.merge_artifacts(inputs, include=["plan"])
        self.result = system.select(self.plan, [i.stats for i in inputs]) if self.plan.due else None
        self.next(self.retrain)

    @step
    def retrain(self):
        """Train the picked system on all development rows."""
        self.files = system.retrain(self.plan, self.result) if self.plan.due else None
        self.next(self.gate)

    @step
    def gate(self):
        """Register it, score it and the champion on the holdout, and promote the better one."""
        self.gated = system.gate(self.plan, self.result, self.files, run_pathspec()) if self.plan.due else None
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self):
        """Show the Pareto front, the pick and the decision."""
        current.card.extend(system.cards(self.plan, self.result, self.gated))


def run_pathspec() -> str:
    return f"{current.flow_name}/{current.run_id}"


if __name__ == "__main__":
    SystemTuneFlow()
