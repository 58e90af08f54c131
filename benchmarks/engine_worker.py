"""`python -m benchmarks.engine_worker memory|engine|open N`: one worker on a study of N quick trials; figures as JSON.

`memory`: by Optuna alone, in memory. `engine`: by Evertune's loop on PostgreSQL. `open`: the study that `engine` left.
"""

import json
import sys
import time
from pathlib import Path

import optuna

from shared.domain import StrategySpec, StudySpec
from shared.storage import PostgresStorage
from shared.tuning.study import open_study
from shared.tuning.worker import run_worker

N_PARAMETERS, N_STEPS = 4, 5

began: list[float] = []


def suggest_and_report(trial: optuna.Trial) -> float:
    """What a trial of the benchmarks tells its storage; takes next to no time by itself."""
    value = sum(trial.suggest_float(f"x{i}", 0, 1) for i in range(N_PARAMETERS))
    for step in range(N_STEPS):
        trial.report(value / (step + 1), step)
    return value


def objective(trial: optuna.Trial) -> float:
    began.append(time.perf_counter())
    return suggest_and_report(trial)


def spec(n_trials: int) -> StudySpec:
    return StudySpec(
        name="engine", use_case="engine", variant="classical", fingerprint="", objective_hash="",
        directions=("minimize",), n_trials=n_trials, sampler=StrategySpec(name="RandomSampler"),
    )  # fmt: skip


def main(what: str, n_trials: int) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    begin = time.perf_counter()
    match what:
        case "memory":
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler())
            study.optimize(objective, n_trials)
        case "engine":
            run_worker(spec(n_trials), objective)
        case "open":
            open_study(spec(n_trials), PostgresStorage()).get_trials(deepcopy=False)
    ended = time.perf_counter()
    if what == "open":
        return {"seconds": ended - begin}
    edge = min(1000, n_trials // 2)
    return {
        "ms": 1000 * (ended - began[0]) / n_trials,
        "first_ms": 1000 * (began[edge] - began[0]) / edge,
        "last_ms": 1000 * (ended - began[-edge]) / edge,
        "memory_mib": peak_mib(),
    }


def peak_mib() -> float:
    """The process's largest resident set. `getrusage` would count the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
