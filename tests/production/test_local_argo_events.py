"""Events that come twice, late, in any order or not at all, and pods that die: one result per study in the end."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.config import load_use_case
from shared.data.prepare import prepare
from shared.domain import ModelVersion
from shared.registry import client
from shared.storage.ledger import Ledger
from tests.production.argo_pods import BEGINS, ENDS
from tests.production.local_argo import LocalArgo
from tests.production.test_local_argo import evertune, publish

CONFIG = """
name = "flowers"
title = "Flowers"
[data]
source = "csv:{folder}/flowers.csv"
target = "species"
[tuning]
metric = "accuracy"
folds = 3
[classical]
objective = "{folder}/tree.py"
n_trials = 3
workers = 1
sampler = "RandomSampler"
[system]
n_trials = 2
workers = 1
[promotion]
"""
TREE = """
import logging

from sklearn.tree import DecisionTreeClassifier

def build(trial):
    logging.getLogger(__name__).warning("a trial runs")
    return DecisionTreeClassifier(max_depth=trial.suggest_int("max_depth", 2, 16), random_state=0)
"""
# `{{retries}}` comes through since the local Argo substitutes once. That is its simplification: Argo itself may go over
# a text again that it has filled in, and what it does to such a payload isn't shown here.
ODD = {
    "quotes": """ "double" and 'single' \\ `$(backtick)` $HOME {{retries}} """,
    "unicode": "Grüße, 你好, 🌷, \u2028 and \u0001",
    "nested": {"list": [1, 2.5, None, True], "": " "},
    "large": "x y " * 25_000,
}


class Flowers:
    """A use case that is deployed, and what happens to it."""

    def __init__(self, argo: LocalArgo, folder: Path) -> None:
        self.argo, self._file, self.config = argo, folder / "flowers.csv", folder / "flowers.toml"
        self._file.write_text("width,length,species\n")
        self.config.write_text(CONFIG.format(folder=folder))
        (folder / "tree.py").write_text(TREE)
        self._n_rows = 0
        self.bring_rows(90)
        self.use_case = load_use_case(self.config)
        self.prefix = f"metaflow.{self.use_case.project}.prod"
        evertune("deploy", "--use-case", str(self.config), "--production")
        argo.forget("sensors", "deephpoflow")  # it has nothing to do, and so need not run each time

    def bring_rows(self, n_rows: int) -> None:
        """New data: the same flowers, and some more."""
        with self._file.open("a") as file:
            for i in range(self._n_rows, self._n_rows + n_rows):
                file.write(f"{i % 7 + i / 1000},{i % 11},{'rose' if i % 7 > 3 else 'lily'}\n")
        self._n_rows += n_rows

    def record(self) -> None:
        """What DataPrepFlow does with new rows, without its pods."""
        ledger = Ledger()
        found = prepare(self.use_case, ledger.newest_dataset("flowers"), datetime.now(UTC))
        assert not found.unchanged
        ledger.record_dataset(found.ref, run="DataPrepFlow/1")

    def finish(self, flow: str) -> None:
        """Say that a flow has finished, as its last step does."""
        said = {"project_name": self.use_case.project, "branch_name": "prod", "auto-generated-by-metaflow": "True"}
        publish(f"{self.prefix}.{flow}.end", flow_name=flow, id=f"{flow}/1/end/1", **said)

    def states(self) -> dict[str, str]:
        """What became of the studies of the newest dataset version."""
        return {entry.variant: entry.state for entry in Ledger().entries("flowers", self.newest())}

    def newest(self) -> str:
        """Fingerprint of the newest dataset version."""
        found = Ledger().newest_dataset("flowers")
        assert found
        return found.fingerprint

    def budget(self, variant: str) -> int:
        """Of the variant's newest study."""
        (newest,) = [entry for entry in Ledger().entries("flowers", self.newest()) if entry.variant == variant]
        return int(newest.outcome["budget"])

    def check(self) -> None:
        """Each study that is done has one result, which was decided on once; nothing else has an alias."""
        for entry in Ledger().entries("flowers"):
            assert entry.state == "done"
            counts = Counter(entry.outcome["counts"])  # with a FAIL for each trial whose pod has died
            assert counts["COMPLETE"] + counts["PRUNED"] == entry.outcome["budget"]
            found = [v for v in client.versions(entry.outcome["model"]) if v.lineage["study"] == entry.study]
            results = [version.version for version in found if _is_result(version)]
            assert results == [entry.outcome["version"]]
            assert all(version.aliases == () for version in found if version.version not in results)
        decisions = [promotion.version for promotion in Ledger().promotions("flowers")]
        assert sorted(decisions) == sorted({*decisions})


def _is_result(version: ModelVersion) -> bool:
    """Whether the registry says that a version is its study's result."""
    found = client.registered(version.name, version.version)
    return found is not None and "evertune.result" in found.tags


@pytest.fixture(scope="module")
def deployed(argo: LocalArgo, tmp_path_factory: pytest.TempPathFactory) -> Flowers:
    return Flowers(argo, tmp_path_factory.mktemp("flowers"))


@pytest.fixture
def flowers(deployed: Flowers) -> Iterator[Flowers]:
    """With rows that nobody has seen."""
    deployed.bring_rows(6)
    deployed.argo.reset()
    yield deployed
    deployed.argo.wait(ok=None)


def begun(argo: LocalArgo) -> Counter[str]:
    """The flows that have run since this was asked for last, and how often."""
    return Counter(run.flow for run in argo.wait())


def test_events_that_come_twice_and_in_any_order_have_one_result(flowers: Flowers):
    argo, events = flowers.argo, flowers.argo.events
    flowers.record()
    events.deliveries = lambda event: [event, event] if "DataPrepFlow" in event.name else []
    flowers.finish("DataPrepFlow")
    assert begun(argo) == {"ClassicalHPOFlow": 2}
    flowers.check()

    held = [event for event in events.published if event.name == f"{flowers.prefix}.ClassicalHPOFlow.end"]
    flowers.finish("DeepHPOFlow")
    deep = events.published[-1]
    for event in (deep, held[1], deep, deep, held[0], held[0]):
        events.deliver(event)

    assert begun(argo) == {"SystemTuneFlow": 2}
    assert flowers.states() == {"classical": "done", "system": "done"}
    flowers.check()


def test_a_lost_event_is_made_good_at_night_and_a_late_one_finds_newer_data(flowers: Flowers):
    argo, events = flowers.argo, flowers.argo.events
    events.deliveries = lambda event: [] if event.name.endswith("DataPrepFlow.end") else [event]
    publish(f"mfns.{flowers.use_case.project}.prod.new_data", **ODD)
    (prepared,) = argo.wait()
    assert prepared.flow == "DataPrepFlow"
    assert prepared.payload()["unicode"] == ODD["unicode"]
    assert prepared.payload().items() >= ODD.items()
    assert flowers.states() == {}
    late = events.published[-1]
    assert late.name == f"{flowers.prefix}.DataPrepFlow.end"

    events.deliveries = lambda event: [event]
    argo.fire_cron(prepared.template)
    assert begun(argo) == {"DataPrepFlow": 1, "ClassicalHPOFlow": 1}
    assert flowers.states() == {"classical": "done"}

    flowers.bring_rows(6)
    flowers.record()
    events.deliver(late)
    assert begun(argo) == {"ClassicalHPOFlow": 1}
    assert flowers.states() == {"classical": "done"}
    flowers.check()


def test_what_a_lost_event_has_left_is_caught_up_with_where_it_is_deployed(flowers: Flowers):
    argo, events = flowers.argo, flowers.argo.events
    flowers.record()
    events.deliveries = lambda _: []
    flowers.finish("DataPrepFlow")
    assert begun(argo) == {}

    events.deliveries = lambda event: [event]
    told = evertune("catch-up", str(flowers.config), "--trigger", "--production")

    assert begun(argo) == {"ClassicalHPOFlow": 1, "DeepHPOFlow": 1, "SystemTuneFlow": 1}, "the last waits for both"
    assert f"flowers: ClassicalHPOFlow/{argo.runs('ClassicalHPOFlow')[-1].run_id} has been started" in told
    assert flowers.states() == {"classical": "done", "system": "done"}
    flowers.check()
    assert "nothing is due" in evertune("catch-up", str(flowers.config), "--trigger", "--production")


STEPS = {
    "DataPrepFlow": ("start", "prepare", "end"),
    "ClassicalHPOFlow": ("start", "tune", "select", "retrain", "end"),
    "SystemTuneFlow": ("start", "tune", "select", "promote", "end"),
}
RESULT = ("model registered", "result recorded", "study closed", "result claimed")
LOGGED = {
    ("DataPrepFlow", "prepare"): ("dataset version written", "dataset recorded"),
    ("ClassicalHPOFlow", "start"): ("study recorded",),
    ("ClassicalHPOFlow", "tune"): ("a trial runs",),
    ("ClassicalHPOFlow", "retrain"): RESULT,
    ("SystemTuneFlow", "start"): ("study recorded",),
    ("SystemTuneFlow", "promote"): (*RESULT, "promotion decided"),
}


def deaths(repetition: int) -> dict[tuple[str, str], str]:
    """For each step of each flow the moment at which its pod dies: before it, in its middle or after it."""
    steps = [(flow, step) for flow, names in STEPS.items() for step in names]
    moments = [(*LOGGED.get(step, ()), BEGINS, ENDS) for step in steps]
    return {
        step: found[(i + repetition) % len(found)] for i, (step, found) in enumerate(zip(steps, moments, strict=True))
    }


def test_pods_that_die_at_each_step_cost_a_retry_each_and_no_result(flowers: Flowers, repetition: int):
    argo = flowers.argo
    for (flow, step), moment in deaths(repetition).items():
        argo.kill_at(flow, step, moment)

    flowers.finish("DeepHPOFlow")
    publish(f"mfns.{flowers.use_case.project}.prod.new_data", request={"classical": {"n_trials": 4}})
    runs = argo.wait()

    died = [(run.flow, pod.step) for run in runs for pod in run.pods if pod.exit_status == -signal.SIGKILL]
    assert sorted(died) == sorted(deaths(repetition))
    assert flowers.states() == {"classical": "done", "system": "done"}
    flowers.check()
    assert flowers.budget("classical") == 4, "what the event asked for has come through"
