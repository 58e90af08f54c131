"""`HPORunner` and `evertune tune` on this machine: real flows, real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sklearn.tree import DecisionTreeClassifier

from shared import HPORunner
from shared.config import load_use_case
from shared.errors import ConfigError, FlowError
from tests.flows.conftest import IRIS, Command
from tests.on_record import prepare_rows

CONFIG = (
    IRIS
    + """folds = 2
[classical]
objective = "objectives/breast_cancer.py"
n_trials = 40
workers = 1
sampler = "RandomSampler"
"""
)
DEPTHS = (1, 30)
SLOW = """
import time

from sklearn.tree import DecisionTreeClassifier


def build(trial):
    time.sleep(0.2)
    return DecisionTreeClassifier(max_depth=trial.suggest_int("max_depth", 1, 30))
"""


def build(trial):
    return DecisionTreeClassifier(max_depth=trial.suggest_int("max_depth", *DEPTHS), random_state=0)


@pytest.fixture
def iris(home: Path, tmp_path: Path) -> Path:
    """The config of a use case with data."""
    del home
    config = tmp_path / "iris.toml"
    config.write_text(CONFIG)
    prepare_rows(load_use_case(config))
    return config


@pytest.mark.usefixtures("forked")
def test_functions_are_tuned_and_a_study_goes_on_with_its_own_objective(iris: Path):
    first = HPORunner(iris, objective=build, n_trials=2).run()

    assert (first.state, len(first.trials), first.idle) == ("done", 2, False)
    assert first.best.params.keys() == {"max_depth"}
    assert first.best.values[0] == first.trials["value"].max()
    assert first.model == "models:/iris-classical/1"
    assert first.run.successful
    assert first.run["start"].task["requested"].data.startswith('{"classical": {"n_trials": 2, "objective": "sha256:')

    more = HPORunner(iris, n_trials=3)
    resumed = more.resume(first.study)

    assert (resumed.study, len(resumed.trials)) == (first.study, 3)
    assert more.result().trials.equals(resumed.trials)
    with pytest.raises(FlowError, match=rf"'iris/classical/x' is none.*on record: {first.study}"):
        more.resume("iris/classical/x")
    iris.write_text(CONFIG.replace("folds = 2", "folds = 3").replace('"accuracy"', '"f1_macro"'))
    with pytest.raises(FlowError, match="have changed: they make it iris/classical/"):
        HPORunner(iris).resume(first.study)


def test_a_run_is_followed_and_cancelled_and_loses_nothing(iris: Path, tmp_path: Path):
    (tmp_path / "slow.py").write_text(SLOW)
    runner = HPORunner(iris, objective=tmp_path / "slow.py", n_trials=500)

    async def follow() -> list[str]:
        tuning = await runner.run_async()
        lines = [line async for line in _until(tuning.log(), "tune/2")]
        while not (progress := tuning.progress) or progress.finished < 2:
            assert tuning.status == "running"
            await asyncio.sleep(0.2)
        assert (tuning.status, tuning.best) == ("running", tuning.progress.best)
        with pytest.raises(FlowError, match="does \\(process"):
            await HPORunner(iris).run_async()
        tuning.cancel()
        with pytest.raises(FlowError, match="stopped"):
            await tuning.result()
        assert tuning.status == "stopped"
        return lines

    lines = asyncio.run(follow())

    assert any("500 trials, 1 workers" in line for line in lines)
    left = runner.result()
    assert left.state == "claimed"
    assert left.best.values[0] == left.trials["value"].max()
    assert 2 <= len(left.trials) < 500


async def _until(lines, text: str):
    async for line in lines:
        yield line
        if text in line:
            return


def test_decorators_reach_the_steps_and_a_flow_that_fails_says_why(iris: Path):
    with pytest.raises(FlowError, match=r"(?s)ClassicalHPOFlow.*failed.*nosuch"):
        HPORunner(iris, objective=build, n_trials=1).run(with_=["nosuch"])


@pytest.mark.usefixtures("forked")
def test_the_command_tunes_as_the_client_does(evertune: Command, iris: Path):
    told = evertune("tune", str(iris), "--trials", "2").stdout
    assert "ClassicalHPOFlow finished" in told
    assert "models:/iris-classical/1" in told

    told = evertune("tune", str(iris), "--trials", "2", "--mode", "async").stdout
    assert "Task finished successfully" in told
    assert "nothing was due" in told


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"flow": "classical"}, ConfigError, "did you mean 'classical_hpo'"),
        ({"flow": "deep_hpo"}, ConfigError, "there is no such table"),
        ({"flow": "data_prep", "n_trials": 3}, FlowError, "DataPrepFlow tunes nothing, but is asked for n_trials"),
        ({"n_trials": 0}, FlowError, "`classical.n_trials` breaks a rule"),
        ({"request": {"deep": {"n_trials": 1}}}, FlowError, r"no table \[deep\]"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(iris: Path, arguments, error, message):
    with pytest.raises(error, match=message):
        HPORunner(iris, **arguments)
