"""What a study that starts from an earlier one saves on new data, and costs where they have nothing in common."""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks import retune_synthetic, retune_tables
from benchmarks.report import Table
from shared.domain import EarlierStudy, StrategySpec, StudySpec
from shared.tuning.study import open_study
from shared.tuning.transfer import TransferSampler

Evaluate = Callable[[optuna.Trial], float]

TRIALS = 24  # of a cold study; a warm one has a quarter
QUARTER = TRIALS // 4
CHANGES = (("50 %", "75 %"), ("75 %", "100 %"), ("100 %", "noised"), ("100 %", "prior"))
SEEDS, REAL_SEEDS, UNRELATED_SEEDS = 30, 5, 100
COLUMNS = (
    "data", "change", "studies", "trials to the level, cold", "warm", f"warm after {QUARTER} as good as cold",
    "regret, warm / cold",
)  # fmt: skip
NOTES = (
    f"Cold: {TRIALS} trials of TPE on the new data. Warm: the same after a study of {TRIALS} trials on the old data.",
    "Level: the median of the cold studies' best values less their standard deviation over the seeds. Trials to it: "
    f"median [quartiles], {TRIALS + 1} where it isn't reached.",
    f"As good: after {QUARTER} trials no worse than the seed's cold study after {TRIALS} by more than that deviation.",
    "Regret: the sum over all trials of what the best so far lacks to the optimum. Unrelated: two draws of one kind.",
    "Log loss of the shipped classical objectives, 3 folds, up to 720 rows, no pruner, as Gaussian processes predict it "
    "from 100 real trials per version; rows `real`: nothing but real trials.",
)


@dataclass(frozen=True)
class Runs:
    """The best value so far after each trial of cold and warm studies on the same data: `(n_seeds, n_trials)`."""

    cold: np.ndarray
    warm: np.ndarray


def measure() -> Table:
    """The first time half an hour, most of which are the real trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    cells = {
        (use_case, f"{old} → {new}"): _compared(use_case, old, new, retune_tables.surrogate, SEEDS)
        for use_case in retune_tables.LOADERS
        for old, new in CHANGES
    }
    rows: list[Sequence[str | float]] = [(*cell, *related([runs])) for cell, runs in cells.items()]
    rows.append(("all", "pooled", *related(list(cells.values()))))
    for use_case in retune_tables.LOADERS:
        runs = _compared(use_case, *CHANGES[1], retune_tables.real, REAL_SEEDS)
        rows.append((use_case, f"{' → '.join(CHANGES[1])}, real", *related([runs])))
    regrets = {name: _unrelated(make) for name, make in retune_synthetic.OBJECTIVES.items()}
    rows += [(name, "unrelated", *unrelated([found])) for name, found in regrets.items()]
    rows.append(("all", "unrelated", *unrelated(list(regrets.values()))))
    return Table(
        "retune", "A study from an earlier one's trials (warm) against one begun anew (cold)", COLUMNS, rows, NOTES
    )


def related(cells: Sequence[Runs]) -> tuple[str | float, ...]:
    """Figures of the cells pooled: each has a level and a deviation of its own."""
    cold = np.concatenate([trials_to(runs.cold, level(runs)) for runs in cells])
    warm = np.concatenate([trials_to(runs.warm, level(runs)) for runs in cells])
    good = [runs.warm[:, QUARTER - 1] >= runs.cold[:, -1] - runs.cold[:, -1].std(ddof=1) for runs in cells]
    return len(cold), quartiles(cold), quartiles(warm), f"{np.concatenate(good).mean():.0%}", ""


def unrelated(regrets: Sequence[Runs]) -> tuple[str | float, ...]:
    """Figures of objectives pooled, of which each counts the same: regrets in the place of values."""
    ratio = float(np.mean([runs.warm.sum() / runs.cold.sum() for runs in regrets]))
    each = np.concatenate([runs.warm.sum(axis=1) / runs.cold.sum(axis=1) for runs in regrets])
    return len(each), "", "", "", f"{ratio:.3f}; per study {quartiles(each)}"


def level(runs: Runs) -> float:
    best = runs.cold[:, -1]
    return float(np.median(best) - best.std(ddof=1))


def trials_to(best: np.ndarray, level: float) -> np.ndarray:
    """How many trials each study needs to a level, `(n_seeds,)`; one more than it has where it doesn't reach it."""
    reached = best >= level
    return np.where(reached.any(axis=1), reached.argmax(axis=1), best.shape[1]) + 1


def quartiles(values: np.ndarray) -> str:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.3g} [{low:.3g}–{high:.3g}]"


def _compared(use_case: str, old: str, new: str, evaluation: Callable[[str, str], Evaluate], seeds: int) -> Runs:
    pairs = [compare(evaluation(use_case, old), evaluation(use_case, new), seed) for seed in range(seeds)]
    runs = Runs(*map(np.array, zip(*pairs, strict=True)))
    print(use_case, old, new, *related([runs]), file=sys.stderr, flush=True)  # the real ones take minutes
    return runs


def _unrelated(make: Callable[[np.random.Generator], Evaluate]) -> Runs:
    """Regrets on an objective after a study of another draw."""
    pairs = [
        compare(make(np.random.default_rng([0, seed])), make(np.random.default_rng([1, seed])), seed)
        for seed in range(UNRELATED_SEEDS)
    ]
    return Runs(*(-np.array(runs) for runs in zip(*pairs, strict=True)))


def compare(old: Evaluate, new: Evaluate, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Best values so far on new data: of a cold study, and of one that starts from the study on old data."""
    storage = InMemoryStorage()
    run("old", old, seed, storage)
    cold, warm = run("cold", new, 1000 + seed, storage), run("warm", new, 1000 + seed, storage, "old")
    return np.maximum.accumulate(cold), np.maximum.accumulate(warm)


def run(name: str, evaluate: Evaluate, seed: int, storage: BaseStorage, *earlier: str) -> list[float]:
    """The values of a study's trials."""
    spec = StudySpec(
        name=name,
        use_case="retune",
        variant="classical",
        fingerprint=name,
        objective_hash="",
        directions=("maximize",),
        n_trials=TRIALS,
        seed=seed,
        sampler=StrategySpec(name="TPESampler"),
        earlier=tuple(EarlierStudy(study=e, fingerprint=e, same_objective=True, top=()) for e in earlier),
    )
    study = open_study(spec, storage)
    if isinstance(study.sampler, TransferSampler):
        study.sampler.enqueue(study)
    study.optimize(evaluate, n_trials=TRIALS)
    return [trial.values[0] for trial in study.trials]
