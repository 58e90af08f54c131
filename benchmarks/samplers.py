"""Optuna's samplers on cheap objectives with known optima: what `sampler = "auto"` decides by."""

import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import optuna
from optuna import samplers
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata

from benchmarks.report import Table
from benchmarks.sampler_problems import PROBLEMS, Problem
from shared.training import threads
from shared.tuning.auto_sampler import AutoSampler

BUDGETS = (10, 25, 50, 100)
DRAWS = 300


@dataclass(frozen=True)
class Candidate:
    """slow: it is tried from two seeds, with fifty trials. takes: the problems that it is for."""

    make: Callable[[int], BaseSampler]
    slow: bool = False
    takes: Callable[[Problem], bool] = lambda _: True

    @property
    def trials(self) -> int:
        return 50 if self.slow else 100


CANDIDATES: Mapping[str, Candidate] = {
    "random": Candidate(lambda seed: samplers.RandomSampler(seed=seed)),
    "QMC": Candidate(lambda seed: samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)),
    "CMA-ES": Candidate(lambda seed: samplers.CmaEsSampler(seed=seed), takes=lambda p: p.directions == 1),
    "NSGA-II": Candidate(lambda seed: samplers.NSGAIISampler(seed=seed), takes=lambda p: p.directions > 1),
    "TPE": Candidate(lambda seed: samplers.TPESampler(seed=seed)),
    "TPE, multivariate": Candidate(  # with one direction, it is so by default
        lambda seed: samplers.TPESampler(seed=seed, multivariate=True), takes=lambda p: p.directions > 1
    ),
    "TPE, groups": Candidate(lambda seed: samplers.TPESampler(seed=seed, multivariate=True, group=True)),
    "GP": Candidate(lambda seed: samplers.GPSampler(seed=seed, warn_independent_sampling=False), slow=True),
    "auto": Candidate(  # elsewhere it is TPE, multivariate
        lambda seed: AutoSampler(50, seed),
        slow=True,
        takes=lambda p: p.kind.startswith(("continuous", "with integers")),
    ),
}


@dataclass(frozen=True)
class Study:
    """losses: after as many trials as each of the budgets that it had, where a trial at random has 1."""

    losses: Sequence[float]
    ms: float


def measure(seeds: int) -> Table:
    """Each sampler on each problem, from so many seeds; the slow ones from two."""
    threads.limit(1)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = {problem: dict(studies(problem, seeds)) for problem in PROBLEMS}
    kinds = dict.fromkeys(problem.kind for problem in PROBLEMS)
    rows = [row for kind in kinds for row in rows_of(kind, [found[p] for p in PROBLEMS if p.kind == kind])]
    return Table(
        "samplers",
        f"Regret after so many trials: at random 1, at the optimum 0 (medians of {seeds} seeds; GP and auto, of 2)",
        ("search space", "sampler", *(f"{b} trials" for b in BUDGETS), "mean rank", "ms a trial"),
        rows,
        notes=(
            "The mean over the problems of a kind. The rank is that after 50 trials, and the milliseconds are the "
            "sampler's in a study of 100 trials; of GP and auto, of 50.",
        ),
    )  # fmt: skip


def studies(problem: Problem, seeds: int) -> Iterator[tuple[str, list[Study]]]:
    """The studies of each sampler that takes the problem."""
    at_random = run(problem, samplers.RandomSampler(seed=12345), DRAWS)[0]
    scale = median(loss for trial in at_random if (loss := problem.loss([trial])) < float("inf"))
    for name, candidate in CANDIDATES.items():
        if candidate.takes(problem):
            tried = range(2 if candidate.slow else seeds)
            yield name, [study(problem, candidate, seed, scale) for seed in tried]
            print(problem.kind, problem.objective.__name__, name, file=sys.stderr, flush=True)


def study(problem: Problem, candidate: Candidate, seed: int, scale: float) -> Study:
    trials, ms = run(problem, candidate.make(seed), candidate.trials)
    return Study([problem.loss(trials[:budget]) / scale for budget in BUDGETS if budget <= len(trials)], ms)


def run(problem: Problem, sampler: BaseSampler, n_trials: int) -> tuple[list[FrozenTrial], float]:
    """The trials, and the milliseconds that each took; the objectives take next to none."""
    pruner = optuna.pruners.MedianPruner(n_warmup_steps=1)  # as `strategies.auto_pruner`
    study = optuna.create_study(directions=["minimize"] * problem.directions, sampler=sampler, pruner=pruner)
    running: deque[tuple[optuna.Trial, TrialState, object]] = deque()
    started = time.perf_counter()
    for i in range(n_trials + problem.workers - 1):
        if i < n_trials:
            running.append(evaluated(study.ask(), problem))
        if i >= problem.workers - 1:
            trial, state, value = running.popleft()
            study.tell(trial, value, state)
    return study.trials, (time.perf_counter() - started) / n_trials * 1000


def evaluated(trial: optuna.Trial, problem: Problem) -> tuple[optuna.Trial, TrialState, object]:
    try:
        return trial, TrialState.COMPLETE, problem.objective(trial)
    except optuna.TrialPruned:
        return trial, TrialState.PRUNED, None


def rows_of(kind: str, found: Sequence[Mapping[str, Sequence[Study]]]) -> Iterator[tuple[str | float, ...]]:
    """A row for each sampler. found: its studies by its name, for each problem of the kind."""
    losses = [
        {name: list(map(median, zip(*(s.losses for s in studies), strict=True))) for name, studies in problem.items()}
        for problem in found
    ]
    ranks = [dict(zip(problem, rankdata([loss[2] for loss in problem.values()]), strict=True)) for problem in losses]
    for name in found[0]:
        mean = [fmean(each) for each in zip(*(problem[name] for problem in losses), strict=True)]
        ms = fmean(study.ms for problem in found for study in problem[name])
        yield kind, name, *mean, *[""] * (len(BUDGETS) - len(mean)), fmean(rank[name] for rank in ranks), ms
