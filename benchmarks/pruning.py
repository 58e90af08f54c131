"""What pruning saves, and what it costs: the studies of digits with each pruner, one after the other, by seed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from statistics import fmean, median, stdev

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox
from shared.domain import Variant

PRUNERS: dict[str, dict[Variant, str]] = {
    "none": {"classical": "NopPruner", "deep": "NopPruner"},
    "median rule": {
        "classical": "{name = 'MedianPruner', n_warmup_steps = 1}",
        "deep": "{name = 'MedianPruner', n_warmup_steps = 4, n_min_trials = 5}",
    },
    "auto": {"classical": "auto", "deep": "auto"},
}
ONE_CORE = {"OMP_NUM_THREADS": "1", "EVERTUNE_CORES": "1"}
# So that the first study doesn't pay for what all import.
IMPORTS = ("sklearn.calibration", "sklearn.ensemble", "sklearn.svm", "torchvision.transforms.v2", "xgboost")


@dataclass(frozen=True)
class Run:
    """One study. steps: folds fitted, or epochs trained; best: its value, greater is better."""

    variant: Variant
    pruner: str
    seed: int
    wall_s: float
    cpu_s: float
    steps: int
    pruned: int
    best: float


def measure(seeds: int) -> Table:
    """Both variants on `seeds` seeds, with each pruner."""
    runs: list[Run] = []
    variants: tuple[Variant, ...] = ("classical", "deep")
    with sandbox() as box:
        box.evertune("services", "start")
        for variant in variants:
            for seed in range(seeds):
                runs += in_one_process(box, variant, seed)
                print(*runs[-len(PRUNERS) :], sep="\n", file=sys.stderr, flush=True)  # all take an hour
    return table(runs)


def table(runs: Sequence[Run]) -> Table:
    """A row per variant and pruner, then one per study."""
    kinds = dict.fromkeys((run.variant, run.pruner) for run in runs)
    each = {kind: [run for run in runs if (run.variant, run.pruner) == kind] for kind in kinds}
    rows: list[Sequence[str | float]] = [summary(each[variant, "none"], each[variant, p]) for variant, p in kinds]
    rows += [
        (r.variant, r.pruner, str(r.seed), r.wall_s, r.cpu_s, r.steps, r.pruned, r.best, "", "", "", "") for r in runs
    ]
    return Table(
        "pruning",
        "The studies of digits without pruning, with the median rule, and as they come; one worker, one thread",
        (
            "variant", "pruner", "seed", "wall, s", "CPU, s", "steps", "pruned", "best value", "x wall", "x CPU",
            "x steps", "loss, SD",
        ),
        rows,
        notes=(
            "Steps: folds fitted, or epochs trained. x: how many times less than the same seed without pruning.",
            "A row of all seeds has medians; of the best value the mean, and of the loss, by how much it is worse, in "
            "standard deviations between seeds of the best value without pruning.",
        ),
    )  # fmt: skip


def summary(plain: Sequence[Run], runs: Sequence[Run]) -> Sequence[str | float]:
    """A pruner over all seeds, against the same seeds without pruning."""
    pairs = list(zip(plain, runs, strict=True))
    loss = fmean(a.best - b.best for a, b in pairs)
    return (
        runs[0].variant,
        runs[0].pruner,
        f"all {len(runs)}",
        median(run.wall_s for run in runs),
        median(run.cpu_s for run in runs),
        float(median(run.steps for run in runs)),
        float(median(run.pruned for run in runs)),
        fmean(run.best for run in runs),
        median(a.wall_s / b.wall_s for a, b in pairs),
        median(a.cpu_s / b.cpu_s for a, b in pairs),
        median(a.steps / b.steps for a, b in pairs),
        loss / stdev(run.best for run in plain) if len(plain) > 1 else "",
    )


def in_one_process(box: Sandbox, variant: Variant, seed: int) -> list[Run]:
    command = (sys.executable, "-m", "benchmarks.pruning", variant, str(seed))
    done = subprocess.run(command, cwd=ROOT, env=box.env | ONE_CORE, stdout=subprocess.PIPE, text=True, check=True)
    return [Run(**run) for run in json.loads(done.stdout.splitlines()[-1])]


def tuned(variant: Variant, seed: int, pruner: str) -> Run:
    """The study as the flow tunes it, but in memory of its data, and under a name of its own."""
    from shared.config import load_use_case
    from shared.data.prepare import in_memory
    from shared.training.evaluate import evaluator
    from shared.tuning.objective import Objective
    from shared.tuning.study import open_study, study_spec
    from shared.tuning.worker import run_worker

    overrides = [f"tuning.seed={seed}", f"{variant}.pruner={PRUNERS[pruner][variant]}"]
    use_case = load_use_case("digits", overrides)
    data = in_memory(use_case)
    objective = Objective.load(ROOT / "flows" / f"{variant}_hpo" / "objectives" / "digits.py")
    spec = study_spec(use_case, variant, data.ref, objective)
    spec = spec.model_copy(update={"name": f"{spec.name}/{pruner}/{seed}"})
    stats = run_worker(spec, evaluator(objective, data, use_case.tuning.metric, seed))
    trials = open_study(spec).trials
    return Run(
        variant,
        pruner,
        seed,
        stats.wall_s,
        stats.cpu_s,
        sum(len(trial.intermediate_values) for trial in trials),
        sum(trial.state.name == "PRUNED" for trial in trials),
        max(trial.values[0] for trial in trials if trial.state.name == "COMPLETE"),
    )


def main(variant: Variant, seed: int) -> None:
    """All pruners on one seed, as JSON."""
    for name in IMPORTS:
        import_module(name)
    print(json.dumps([asdict(tuned(variant, seed, pruner)) for pruner in PRUNERS]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))  # type: ignore[arg-type]  # one of the variants
