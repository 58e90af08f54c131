"""An objective file run by itself: a few trials in memory, without Metaflow, a database or a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.config import UseCase, load_use_case
from shared.domain import Variant
from shared.tuning.objective import Objective

if TYPE_CHECKING:
    import optuna


def try_out(path: str | Path, n_trials: int = 3) -> optuna.Study:
    """Tune the objective of a file for a few trials on the data of `configs/<the file's name>.toml`, and print them.

    Raises:
        ConfigError: there is no such config.
        DataError: its data can't be read.
        ObjectiveError: the file breaks the objective contract.
    """
    import optuna

    from shared.data.prepare import in_memory
    from shared.training import threads
    from shared.training.evaluate import evaluator
    from shared.tuning.worker import tune_in_memory

    threads.limit(threads.cores())
    path = Path(path).resolve()
    use_case = load_use_case(path.stem)
    config = getattr(use_case, _variant(path, use_case))
    metric, seed = use_case.tuning.metric, use_case.tuning.seed
    evaluate = evaluator(Objective.load(path, path.name), in_memory(use_case), metric, seed)

    def shown(trial: optuna.Trial) -> float | tuple[float, ...]:
        value = evaluate(trial)
        print(f"trial {trial.number}: {value}  {trial.params}", flush=True)
        return value

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = tune_in_memory(shown, n_trials, config.directions, seed, config.metrics, config.guard)
    for best in study.best_trials:
        print(f"best is trial {best.number}: {metric} {best.values}  {best.params}")
    return study


def _variant(path: Path, use_case: UseCase) -> Variant:
    """The variant whose flow's folder the file is in, else the first that the config has."""
    folder = path.parent.parent.name.removesuffix("_hpo")
    return next((v for v in use_case.members if v == folder), use_case.members[0])
