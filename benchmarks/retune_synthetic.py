"""Objectives that cost nothing, to be maximized: two draws of one kind have only their search space in common."""

from collections.abc import Callable

import numpy as np
import optuna

Objective = Callable[[optuna.Trial], float]


def bowl(rng: np.random.Generator, d: int = 4) -> Objective:
    """A quadratic with its optimum anywhere; the best value is 0."""
    center, weight = rng.uniform(size=d), rng.uniform(0.5, 2, d)
    return lambda trial: -float((weight * (_floats(trial, d) - center) ** 2).sum())


def ripples(rng: np.random.Generator, d: int = 3) -> Objective:
    """The same with many local optima (Rastrigin)."""
    center = rng.uniform(size=d)

    def value(trial: optuna.Trial) -> float:
        x = _floats(trial, d) - center
        return -float((x**2 + 0.05 * (1 - np.cos(6 * np.pi * x))).sum())

    return value


def families(rng: np.random.Generator) -> Objective:
    """Four families of one to three parameters each, as the shipped objectives have; the best value is 0."""
    level, center = rng.uniform(size=4), rng.uniform(size=(4, 3))
    weight, sizes = rng.uniform(0.2, 1, (4, 3)), (1, 2, 3, 3)

    def value(trial: optuna.Trial) -> float:
        k = trial.suggest_categorical("family", range(4))
        n = sizes[k]
        x = np.array([np.log10(trial.suggest_float(f"{k}_{i}", 1e-2, 1e2, log=True)) / 4 + 0.5 for i in range(n)])
        return float(level.min() - level[k] - (weight[k, :n] * (x - center[k, :n]) ** 2).sum())

    return value


OBJECTIVES = {"bowl": bowl, "ripples": ripples, "families": families}


def _floats(trial: optuna.Trial, d: int) -> np.ndarray:
    return np.array([trial.suggest_float(f"x{i}", 0, 1) for i in range(d)])
