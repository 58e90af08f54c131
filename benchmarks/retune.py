"""What a study that starts from an earlier one saves on new data, and costs where they have nothing in common."""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial

from benchmarks import retune_synthetic, retune_tables
from benchmarks.report import Table
from shared.domain import EarlierStudy, StrategySpec, StudySpec
from shared.tuning.stopping import Stopping
from shared.tuning.study import open_study
from shared.tuning.transfer import TransferSampler

Evaluate = Callable[[optuna.Trial], float]

TRIALS = 24  # of a cold study; a warm one has a quarter
QUARTER = TRIALS // 4
CHANGES = (("50 %", "75 %"), ("75 %", "100 %"), ("100 %", "noised"), ("100 %", "prior"))
SEEDS, REAL_SEEDS, UNRELATED_SEEDS = 30, 3, 100
WARM_TRIALS, PATIENCES = 10, (2, 3, 4, 5)
LEAST = 0.01  # of the log loss; where all cold studies end at one optimum, their deviation is next to nothing
COLUMNS = (
    "data", "change", "studies", "trials to the level: cold", "warm", f"at the level: cold, after {TRIALS}",
    f"warm, after {QUARTER}", "median of the warm at it", "regret, warm / cold",
)  # fmt: skip
NOTES = (
    f"Cold: {TRIALS} trials of `auto` on the new data. Warm: the same after a study of {TRIALS} trials on the old one.",
    "Level: the median of the cold studies' best values less their standard deviation over the seeds. Trials to it: "
    f"median (quartiles), {TRIALS + 1} where it isn't reached.",
    f"Two readings of a warm study with {QUARTER} trials that ends no worse than a cold one with {TRIALS}: the share "
    "of the studies that reach the level, and in how many cells (data and change) the median of their best values "
    "does.",
    "Regret: the sum over all trials of what the best so far lacks to the optimum. Unrelated: two draws of one kind.",
    "Log loss of the shipped classical objectives, 3 folds, up to 720 rows, no pruner, as predicted by Gaussian "
    "processes from 100 real trials per version; rows `real`: nothing but real trials.",
)


@dataclass(frozen=True)
class Runs:
    """The best value so far after each trial of cold and warm studies on the same data: `(n_seeds, n_trials)`.

    stops: after how many of `WARM_TRIALS` the warm study stops with each of `PATIENCES`: `(n_seeds, n_patiences)`.
    """

    cold: np.ndarray
    warm: np.ndarray
    stops: np.ndarray


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
    rows.append(("all", f"pooled, deviation at least {LEAST:.0%}", *related(list(cells.values()), LEAST)))
    regrets = {name: _unrelated(make) for name, make in retune_synthetic.OBJECTIVES.items()}
    rows += [(name, "unrelated", *unrelated([found])) for name, found in regrets.items()]
    rows.append(("all", "unrelated", *unrelated(list(regrets.values()))))
    for use_case in retune_tables.LOADERS:
        runs = _compared(use_case, *CHANGES[1], retune_tables.real, REAL_SEEDS)
        rows.append((use_case, f"{' → '.join(CHANGES[1])}, real", *related([runs])))
    title = "A study from an earlier one's trials (warm) against one begun anew (cold)"
    return Table("retune", title, COLUMNS, rows, (*NOTES, *patience(list(cells.values()))))


def related(cells: Sequence[Runs], least: float = 0.0) -> tuple[str | float, ...]:
    """Figures of the cells pooled: each has a level of its own. least: deviation from the median, as a share of it."""
    cold = np.concatenate([trials_to(runs.cold, level(runs, least)) for runs in cells])
    warm = np.concatenate([trials_to(runs.warm, level(runs, least)) for runs in cells])
    reached = f"{(cold <= TRIALS).mean():.0%}", f"{(warm <= QUARTER).mean():.0%}"
    at_level = sum(bool(np.median(runs.warm[:, QUARTER - 1]) >= level(runs, least)) for runs in cells)
    return len(cold), quartiles(cold), quartiles(warm), *reached, f"{at_level} of {len(cells)}", ""


def unrelated(regrets: Sequence[Runs]) -> tuple[str | float, ...]:
    """Figures of objectives pooled, of which each counts the same: regrets in the place of values."""
    ratio = float(np.mean([runs.warm.sum() / runs.cold.sum() for runs in regrets]))
    each = np.concatenate([runs.warm.sum(axis=1) / runs.cold.sum(axis=1) for runs in regrets])
    return len(each), "", "", "", "", "", f"{ratio:.3f}; per study {quartiles(each)}"


def patience(cells: Sequence[Runs]) -> list[str]:
    """What each patience saves of the warm budget, and what it loses, in standard deviations of the cold studies."""
    notes = []
    for place, count in enumerate(PATIENCES):
        stops = np.concatenate([runs.stops[:, place] for runs in cells])
        lost = np.concatenate([_lost(runs, runs.stops[:, place]) for runs in cells])
        notes.append(
            f"Patience {count}: {stops.mean():.1f} of {WARM_TRIALS} trials; {(lost == 0).mean():.0%} of the studies "
            f"end as without it, {(lost <= 1).mean():.0%} within one standard deviation."
        )
    return notes


def _lost(runs: Runs, stops: np.ndarray) -> np.ndarray:
    at = runs.warm[np.arange(len(stops)), stops - 1]
    return (runs.warm[:, WARM_TRIALS - 1] - at) / runs.cold[:, -1].std(ddof=1)


def level(runs: Runs, least: float = 0.0) -> float:
    best = runs.cold[:, -1]
    return float(np.median(best) - max(best.std(ddof=1), least * abs(np.median(best))))


def trials_to(best: np.ndarray, level: float) -> np.ndarray:
    """How many trials each study needs to a level, `(n_seeds,)`; one more than it has where it doesn't reach it."""
    reached = best >= level
    return np.where(reached.any(axis=1), reached.argmax(axis=1), best.shape[1]) + 1


def quartiles(values: np.ndarray) -> str:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.3g} ({low:.3g}–{high:.3g})"


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
    cold, warm, stops = map(np.array, zip(*pairs, strict=True))
    return Runs(-cold, -warm, stops)


def compare(old: Evaluate, new: Evaluate, seed: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Best values so far on new data: of a cold study, and of one that starts from the study on old data; its stops."""
    storage = InMemoryStorage()
    run(spec("old", seed), old, storage)
    cold, warm = spec("cold", 1000 + seed), spec("warm", 1000 + seed, "old")
    trials = run(warm, new, storage)
    stops = [stop(warm.model_copy(update={"patience": count}), trials[:WARM_TRIALS]) for count in PATIENCES]
    return _best(run(cold, new, storage)), _best(trials), stops


def spec(name: str, seed: int, *earlier: str) -> StudySpec:
    return StudySpec(
        name=name,
        use_case="retune",
        variant="classical",
        fingerprint=name,
        objective_hash="",
        directions=("maximize",),
        n_trials=TRIALS,
        seed=seed,
        pruner=StrategySpec(name="NopPruner"),
        earlier=tuple(EarlierStudy(study=e, fingerprint=e, same_objective=True, top=()) for e in earlier),
    )


def run(spec: StudySpec, evaluate: Evaluate, storage: BaseStorage) -> list[FrozenTrial]:
    study = open_study(spec, storage)
    if isinstance(study.sampler, TransferSampler):
        study.sampler.enqueue(study)
    study.optimize(evaluate, n_trials=TRIALS)
    return study.trials


def stop(spec: StudySpec, trials: Sequence[FrozenTrial]) -> int:
    """After how many of these trials the study stops."""
    stopping = Stopping(spec)
    return next((n for n in range(1, len(trials)) if stopping.reason(trials[:n], 0.0)), len(trials))


def _best(trials: Sequence[FrozenTrial]) -> np.ndarray:
    return np.maximum.accumulate([trial.values[0] for trial in trials])
