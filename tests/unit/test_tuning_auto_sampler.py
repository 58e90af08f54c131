"""`sampler = "auto"`: what it chooses, when it can tell, and that pruned trials count."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from shared.tuning.auto_sampler import AutoSampler, _pruned_counted, choose, common_space
from shared.tuning.pruning import FoldPruner

FLOATS: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "C": FloatDistribution(1e-3, 1e3, log=True)}
INTS: dict[str, BaseDistribution] = {"depth": IntDistribution(1, 9)}
CATEGORIES: dict[str, BaseDistribution] = {"kernel": CategoricalDistribution(["linear", "rbf"])}


@pytest.mark.parametrize(
    ("space", "budget", "n_directions", "chosen"),
    [
        pytest.param(FLOATS, 50, 1, "GPSampler", id="floats"),
        pytest.param(FLOATS | INTS, 50, 1, "GPSampler", id="floats and ints"),
        pytest.param(FLOATS, 20, 1, "GPSampler", id="the smallest budget that is worth the import of torch"),
        pytest.param(FLOATS, 19, 1, "TPESampler", id="half of it is drawn at random anyway"),
        pytest.param(FLOATS, 101, 1, "TPESampler", id="many trials: it gets slower with each"),
        pytest.param(FLOATS | CATEGORIES, 50, 1, "TPESampler", id="categories take it three times as long"),
        pytest.param(None, 50, 1, "TPESampler", id="conditional"),
        pytest.param({}, 50, 1, "TPESampler", id="nothing to tune"),
        pytest.param(FLOATS, 50, 2, "TPESampler", id="two directions take it four times as long"),
    ],
)
def test_the_rule(space: dict[str, BaseDistribution] | None, budget: int, n_directions: int, chosen: str) -> None:
    assert choose(space, budget, n_directions) == chosen


def trial(space: dict[str, BaseDistribution], state: TrialState = TrialState.COMPLETE, **changes: Any) -> Any:
    params = {name: found.to_external_repr(1) for name, found in space.items()}
    value = 1.0 if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, params=params, distributions=space, **changes)


@pytest.mark.parametrize(
    ("tenth", "known"),
    [
        pytest.param(trial(FLOATS), True, id="all alike"),
        pytest.param(trial(FLOATS, TrialState.PRUNED, intermediate_values={0: 0.5}), True, id="pruned with a report"),
        pytest.param(trial(FLOATS, TrialState.PRUNED), False, id="pruned without one can't be learned from"),
        pytest.param(trial(FLOATS | INTS), False, id="one has a parameter more"),
        pytest.param(trial({**FLOATS, "x": FloatDistribution(0, 2)}), False, id="a range that moves"),
        pytest.param(trial(FLOATS, system_attrs={"constraints:a": 0.1}), False, id="a constraint"),
    ],
)
def test_the_space_is_known_when_ten_trials_share_it(tenth: Any, known: bool) -> None:
    before = [trial(FLOATS) for _ in range(9)]
    assert common_space(before) is None
    assert common_space([*before, tenth]) == (FLOATS if known else None)


def test_a_failed_trial_gives_the_space_up_since_it_would_be_suggested_again() -> None:
    assert common_space([*(trial(FLOATS) for _ in range(10)), trial(FLOATS, TrialState.FAIL)]) is None


def tuned(objective: Callable[[optuna.Trial], float], budget: int, pruner: Any = None) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=AutoSampler(budget, seed=1), pruner=pruner or optuna.pruners.NopPruner())
    study.optimize(objective, n_trials=budget)
    return [t.params for t in study.trials]


def bowl(trial: optuna.Trial) -> float:
    return (trial.suggest_float("x", 0, 1) - 0.3) ** 2 + (trial.suggest_float("y", 0, 1) - 0.6) ** 2


def by_tpe(objective: Callable[[optuna.Trial], float], n: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1, multivariate=True))
    study.optimize(objective, n_trials=n)
    return [t.params for t in study.trials]


def test_it_is_the_gaussian_process_after_ten_trials_where_that_is_chosen() -> None:
    found, tpe = tuned(bowl, 24), by_tpe(bowl, 24)
    assert found[:10] == tpe[:10]
    assert found[10:] != tpe[10:]
    assert bowl(optuna.trial.FixedTrial(found[-1])) < 1e-3


def test_elsewhere_it_is_tpe() -> None:
    def family(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("family", ["a", "b"]) == "a":
            return trial.suggest_float("x", 0, 1)
        return 0.5

    assert tuned(family, 24) == by_tpe(family, 24)
    assert tuned(bowl, 15) == by_tpe(bowl, 15)


def test_what_was_pruned_isnt_suggested_again() -> None:
    def pruned_where_good(trial: optuna.Trial) -> float:
        value = bowl(trial)
        trial.report(value + 0.5 * (value < 0.05), 0)
        if value < 0.05:
            raise optuna.TrialPruned
        return value

    def near_the_last(sampler: Any) -> int:
        study = optuna.create_study(sampler=sampler)
        study.optimize(pruned_where_good, n_trials=30)
        last = study.trials[-1].params
        return sum(abs(t.params["x"] - last["x"]) + abs(t.params["y"] - last["y"]) < 0.02 for t in study.trials[:-1])

    assert near_the_last(optuna.samplers.GPSampler(seed=1)) > 5, "Optuna's own is stuck"
    assert near_the_last(AutoSampler(30, seed=1)) < 5


EASY_FIRST = (0.4, -0.1, -0.1, -0.1, -0.1)  # what the folds differ from their mean


def folded(trial: optuna.Trial) -> float:
    value, reported = -bowl(trial), 0.0
    for fold in range(len(EASY_FIRST)):
        reported = value + sum(EASY_FIRST[: fold + 1]) / (fold + 1)
        trial.report(reported, fold)
        if trial.should_prune():
            raise optuna.TrialPruned
    return reported


def test_the_gaussian_process_sees_a_pruned_trial_as_what_it_would_have_come_to() -> None:
    study = optuna.create_study(direction="maximize", pruner=FoldPruner())
    study.optimize(folded, n_trials=30)
    pruned = {t.number for t in study.trials if t.state == TrialState.PRUNED}
    assert max(study.trials[number].value or 0 for number in pruned) > study.best_value, "by their first fold"
    seen = _pruned_counted(study)._get_trials()
    assert {t.state for t in seen} == {TrialState.COMPLETE}
    for t in seen:
        assert t.value == pytest.approx(-((t.params["x"] - 0.3) ** 2) - (t.params["y"] - 0.6) ** 2)
    assert {t.number for t in study.trials if t.state == TrialState.PRUNED} == pruned, "the study is as it was"


def test_torch_is_imported_only_where_the_gaussian_process_is_chosen() -> None:
    code = (
        "import optuna, sys\n"
        "from shared.tuning.auto_sampler import AutoSampler\n"
        "study = optuna.create_study(sampler=AutoSampler(15, 0))\n"
        "study.optimize(lambda t: t.suggest_float('x', 0, 1), n_trials=15)\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
