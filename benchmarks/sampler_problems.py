"""Cheap objectives with known optima, shaped like those of hyperparameter searches. Smaller is better."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

Objective = Callable[[optuna.Trial], float | tuple[float, float]]
FOLDS = 5


@dataclass(frozen=True)
class Problem:
    """best: the smallest value there is; of two values, the area that the best front dominates below (1, 1).

    workers: trials that are under way at the same time.
    """

    kind: str
    objective: Objective
    best: float = 0.0
    directions: int = 1
    workers: int = 1

    def loss(self, trials: Sequence[FrozenTrial]) -> float:
        """How far the best of the complete trials, or their front, is from the best there is; noise left out."""
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if self.directions > 1:
            return self.best - dominated([(trial.values[0], trial.values[1]) for trial in complete])
        best = min(complete, key=lambda trial: trial.values[0], default=None)
        return best.user_attrs.get("noiseless", best.values[0]) - self.best if best else math.inf


def dominated(points: Sequence[tuple[float, float]]) -> float:
    """The area below (1, 1) that points dominate, smaller being better."""
    area, top = 0.0, 1.0
    for x, y in sorted(points):
        if x < 1 and y < top:
            area += (1 - x) * (top - y)
            top = y
    return area


def branin(trial: optuna.Trial) -> float:
    """L. C. W. Dixon, G. P. Szegő: Towards Global Optimisation 2 (1978)."""
    x, y = trial.suggest_float("x", -5, 10), trial.suggest_float("y", 0, 15)
    valley = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
HARTMANN_SLOPES = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
HARTMANN_CENTRES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(trial: optuna.Trial) -> float:
    """Six parameters (Dixon and Szegő 1978)."""
    x = np.array([trial.suggest_float(f"x{i}", 0, 1) for i in range(6)])
    return -float(HARTMANN_WEIGHTS @ np.exp(-(HARTMANN_SLOPES * (x - HARTMANN_CENTRES) ** 2).sum(axis=1)))


def rosenbrock(trial: optuna.Trial) -> float:
    """A bent valley in three parameters."""
    x = [trial.suggest_float(f"x{i}", -2, 2) for i in range(3)]
    return math.log1p(sum(100 * (b - a**2) ** 2 + (1 - a) ** 2 for a, b in pairwise(x)))


def kernel(trial: optuna.Trial) -> float:
    """As of a support vector machine: a plateau, and a slanting valley in the logarithms of two parameters."""
    c = math.log10(trial.suggest_float("C", 1e-3, 1e3, log=True))
    gamma = math.log10(trial.suggest_float("gamma", 1e-5, 1e1, log=True))
    return 1 - math.exp(-((c + gamma) ** 2) / 2 - (c - 1.2) ** 2 / 4)


def boosting(trial: optuna.Trial) -> float:
    """Few rounds want a large step, and the depth has its best in the middle."""
    step = math.log(trial.suggest_float("step", 0.01, 0.5, log=True))
    rounds = math.log(trial.suggest_int("rounds", 20, 500, log=True))
    depth = trial.suggest_int("depth", 1, 10)
    rows, columns = trial.suggest_float("rows", 0.4, 1), trial.suggest_float("columns", 0.2, 1)
    tuned = (step + 2.5) ** 2 / 8 + (step + rounds - math.log(15)) ** 2 / 4 + (depth - 4) ** 2 / 20
    return 1 - math.exp(-tuned - (rows - 0.8) ** 2 - (columns - 0.5) ** 2 / 2)


def neighbours(trial: optuna.Trial) -> float:
    """Three integers, two of which trade off."""
    k, leaf = trial.suggest_int("k", 1, 50), trial.suggest_int("leaf", 1, 30)
    return math.sqrt(
        ((k + leaf - 24) / 10) ** 2 + ((leaf - 7) / 12) ** 2 + ((trial.suggest_int("p", 1, 9) - 3) / 8) ** 2
    )


def network(trial: optuna.Trial) -> float:
    """The best learning rate depends on the optimizer, and the best width on the number of layers."""
    lr = math.log10(trial.suggest_float("lr", 1e-5, 1, log=True))
    layers, width = trial.suggest_int("layers", 1, 5), math.log2(trial.suggest_int("width", 16, 512, log=True))
    optimizer = {"adam": (-3, 0.0), "rmsprop": (-3.5, 0.05), "sgd": (-1, 0.08)}
    place, cost = optimizer[trial.suggest_categorical("optimizer", list(optimizer))]
    activation = {"relu": 0.02, "gelu": 0.0, "tanh": 0.15, "sigmoid": 0.3}
    cost += activation[trial.suggest_categorical("activation", list(activation))]
    return cost + 1 - math.exp(-((lr - place) ** 2) / 2 - (width - 9 + layers) ** 2 / 8)


def choices(trial: optuna.Trial) -> float:
    """Four choices that matter unequally, and two numbers."""
    costs = {"scale": (0.3, 0.1, 0.0), "impute": (0.0, 0.05), "encode": (0.2, 0.0, 0.1, 0.05), "select": (0.02, 0.0)}
    cost = sum(c[trial.suggest_categorical(name, list(range(len(c))))] for name, c in costs.items())
    alpha = math.log10(trial.suggest_float("alpha", 1e-4, 1e2, log=True))
    return cost + 1 - math.exp(-((alpha - 0.5) ** 2) / 4 - (trial.suggest_float("ratio", 0, 1) - 0.2) ** 2)


def families(trial: optuna.Trial) -> float:
    """A family of models first, then the parameters of that family."""
    return FAMILIES[trial.suggest_categorical("family", list(FAMILIES))](trial)


def _linear(trial: optuna.Trial) -> float:
    c = math.log10(trial.suggest_float("linear_C", 1e-3, 1e2, log=True))
    return 0.12 + 0.4 * (1 - math.exp(-((c - 0.3) ** 2)))


def _machine(trial: optuna.Trial) -> float:
    c = math.log10(trial.suggest_float("svm_C", 1e-2, 1e3, log=True))
    gamma = math.log10(trial.suggest_float("svm_gamma", 1e-5, 1, log=True))
    return 0.7 * (1 - math.exp(-((c + gamma + 1) ** 2) / 2 - (c - 1) ** 2 / 3))


def _trees(trial: optuna.Trial) -> float:
    step = math.log10(trial.suggest_float("trees_step", 0.01, 0.5, log=True))
    depth, rows = trial.suggest_int("trees_depth", 1, 8), trial.suggest_float("trees_rows", 0.4, 1)
    rounds = math.log10(trial.suggest_int("trees_rounds", 20, 400, log=True))
    tuned = 2 * (step + rounds - 1) ** 2 + (depth - 3) ** 2 / 8 + (rows - 0.7) ** 2
    return 0.04 + 0.4 * (1 - math.exp(-tuned))


FAMILIES = {"linear": _linear, "svm": _machine, "trees": _trees}


def optional(trial: optuna.Trial) -> float:
    """Two parameters always, two more for each of two options that are worth it only if well set."""
    lr, decay = (math.log10(trial.suggest_float(name, 1e-6, 1, log=True)) for name in ("lr", "decay"))
    value = 1.2 - math.exp(-((lr + 3) ** 2) / 2 - (decay + 4) ** 2 / 8)
    for option, gain, x, y in (("augment", 0.15, 0.3, 0.6), ("schedule", 0.05, 0.8, 0.2)):
        if trial.suggest_categorical(option, [False, True]):
            far = (trial.suggest_float(f"{option}_a", 0, 1) - x) ** 2 + (
                trial.suggest_float(f"{option}_b", 0, 1) - y
            ) ** 2
            value += gain * (1 - 2 * math.exp(-4 * far))
    return value


def front(trial: optuna.Trial) -> tuple[float, float]:
    """ZDT2 with four parameters (E. Zitzler, K. Deb, L. Thiele 2000)."""
    x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(4)]
    g = 1 + 3 * sum(x[1:])
    return x[0], (g - x[0] ** 2 / g) / 4


def accuracy_and_latency(trial: optuna.Trial) -> tuple[float, float]:
    """Two members alone or blended: the blend is better, and takes the time of both. As of a tuned system."""
    members = trial.suggest_categorical("members", ["small", "large", "both"])
    loss = {"small": 0.5, "large": 0.3, "both": 0.1}[members]
    latency = {"small": 0.1, "large": 0.4, "both": 0.5}[members]
    for name in ("small", "large") if members == "both" else (members,):
        size = trial.suggest_float(f"{name}_size", 0, 1)
        loss += 0.15 * (1 - size) ** 2
        latency += 0.2 * size
    if members == "both":
        loss += (trial.suggest_float("share", 0, 1) - 0.3) ** 2
    return loss, latency


def folded(objective: Callable[[optuna.Trial], float]) -> Objective:
    """The objective with the noise of cross-validation, reported fold by fold, for the pruner."""

    @wraps(objective)
    def evaluate(trial: optuna.Trial) -> float:
        value, noise = objective(trial), np.random.default_rng(trial.number).normal(0, 0.05, FOLDS)
        trial.set_user_attr("noiseless", value)
        for fold in range(FOLDS):
            trial.report(value + float(noise[: fold + 1].mean()), fold)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value + float(noise.mean())

    return evaluate


PROBLEMS = (
    Problem("continuous", branin, 0.397887),
    Problem("continuous", hartmann, -3.32237),
    Problem("continuous", rosenbrock),
    Problem("continuous", kernel),
    Problem("with integers", boosting),
    Problem("with integers", neighbours),
    Problem("with categories", network),
    Problem("with categories", choices),
    Problem("conditional", families),
    Problem("conditional", optional),
    Problem("continuous, pruned", folded(kernel)),
    Problem("with integers, pruned", folded(boosting)),
    Problem("continuous, 4 workers", branin, 0.397887, workers=4),
    Problem("continuous, 4 workers", kernel, workers=4),
    Problem("two directions", front, 5 / 6, directions=2),
    Problem("two directions", accuracy_and_latency, 0.6135, directions=2),
)
