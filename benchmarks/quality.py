"""How good the champion is: the default budget against well calibrated, untuned baselines on the same holdout rows."""

import json
import subprocess
import sys
from statistics import mean

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, sandbox

USE_CASES = ("digits", "breast_cancer", "diabetes")


def measure(seeds: int) -> Table:
    """The chain of each use case on `seeds` splits, and the baseline on each."""
    rows: list[tuple[str | float, ...]] = []
    for use_case in USE_CASES:
        seen = [compare(use_case, seed) for seed in range(seeds)]
        rows += [(use_case, str(s), c, b, c - b, e, verdict(c - b, e)) for s, (c, b, e) in enumerate(seen)]
        gain = mean(c - b for c, b, _ in seen)
        champion, baseline = mean(c for c, _, _ in seen), mean(b for _, b, _ in seen)
        rows.append((use_case, "mean", champion, baseline, gain, "", "better" if gain > 0 else "not better"))
    return Table(
        "quality",
        "Champion against an untuned baseline, on the holdout (neg_log_loss; r2 for diabetes; greater is better)",
        ("use case", "split seed", "champion", "baseline", "gain", "standard error of the gain", "verdict"),
        rows,
        notes=("Baselines: digits, scaled RBF SVC, one against the rest; breast_cancer, scaled logistic regression; "
               "both with the calibration that cross-validates best; diabetes, RidgeCV.",),
    )  # fmt: skip


def verdict(gain: float, standard_error: float) -> str:
    return "better" if gain > 0 else "within one SE" if gain >= -standard_error else "worse"


def compare(use_case: str, split_seed: int) -> tuple[float, float, float]:
    """Champion's and baseline's score on the holdout, and the standard error of the difference."""
    with sandbox() as box:
        box.evertune("run", use_case, "--set", f"data.split_seed={split_seed}")
        command = (sys.executable, "-m", "benchmarks.baseline", use_case)
        done = subprocess.run(command, cwd=ROOT, env=box.env, capture_output=True, text=True, check=True)
    scores = json.loads(done.stdout.splitlines()[-1])
    print(use_case, split_seed, scores, file=sys.stderr, flush=True)  # a run takes half an hour
    return scores["champion"], scores["baseline"], scores["standard_error"]
