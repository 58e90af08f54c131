"""The samplers' benchmark: its optima are right, and its figures are of whole studies."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.trial import FixedTrial

from benchmarks import sampler_problems as problems
from benchmarks.sampler_problems import PROBLEMS, Problem, dominated
from benchmarks.samplers import run

OPTIMA = {
    problems.branin: {"x": math.pi, "y": 2.275},
    problems.hartmann: {"x0": 0.2017, "x1": 0.15, "x2": 0.4769, "x3": 0.2753, "x4": 0.3117, "x5": 0.6573},
    problems.rosenbrock: {"x0": 1, "x1": 1, "x2": 1},
    problems.kernel: {"C": 10**1.2, "gamma": 10**-1.2},
    problems.boosting: {"step": math.exp(-2.5), "rounds": 183, "depth": 4, "rows": 0.8, "columns": 0.5},
    problems.neighbours: {"k": 17, "leaf": 7, "p": 3},
    problems.network: {"lr": 1e-3, "layers": 3, "width": 64, "optimizer": "adam", "activation": "gelu"},
    problems.choices: {"scale": 2, "impute": 0, "encode": 1, "select": 1, "alpha": 10**0.5, "ratio": 0.2},
    problems.families: {"family": "svm", "svm_C": 10, "svm_gamma": 1e-2},
    problems.optional: {
        "lr": 1e-3, "decay": 1e-4, "augment": True, "augment_a": 0.3, "augment_b": 0.6, "schedule": True,
        "schedule_a": 0.8, "schedule_b": 0.2,
    },
}  # fmt: skip


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.objective in OPTIMA], ids=lambda p: p.objective.__name__)
def test_the_optimum_is_where_the_regret_is_none(problem: Problem) -> None:
    assert problem.objective(FixedTrial(OPTIMA[problem.objective])) == pytest.approx(problem.best, abs=1e-4)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p.kind}: {p.objective.__name__}")
def test_nothing_is_better_than_the_optimum(problem: Problem) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials, _ = run(problem, optuna.samplers.RandomSampler(seed=0), 60)
    assert len(trials) == 60
    assert all(trial.state.is_finished() for trial in trials)
    assert 0 < problem.loss(trials) <= problem.loss(trials[:30])


def test_a_front_dominates_the_steps_below_it() -> None:
    assert dominated([(0.5, 0.5)]) == 0.25
    assert dominated([(0.5, 0.5), (0.25, 0.75), (0.6, 0.6), (2, 0)]) == 0.25 + 0.25 * 0.25
    assert dominated([]) == 0
