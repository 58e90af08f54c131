"""Samplers and pruners of Optuna, by name with their arguments, or `auto`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared.config import did_you_mean
from shared.domain import StrategySpec, StudySpec
from shared.errors import ConfigError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


NESTED = ("base_sampler", "independent_sampler", "wrapped_pruner")


def sampler(spec: StudySpec, worker: int = 0, after: int = 0) -> BaseSampler:
    """The sampler of one worker of a study that has `after` trials; `auto` is TPE with Optuna's defaults.

    Raises:
        ConfigError: Optuna has no such sampler, or it doesn't take these arguments.
    """
    from optuna import samplers

    base_seed = spec.sampler.options.get("seed", spec.seed)
    strategy = spec.sampler.model_copy(update={"name": "TPESampler"}) if spec.sampler.name == "auto" else spec.sampler
    given = {"seed": worker_seed(base_seed, worker, after)}
    found: BaseSampler = _build(strategy, samplers, samplers.BaseSampler, f"{_place(spec)}.sampler", given)
    return found


def pruner(spec: StudySpec) -> BasePruner:
    """The pruner of a study; `auto` is `auto_pruner`.

    Raises:
        ConfigError: Optuna has no such pruner, or it doesn't take these arguments.
    """
    from optuna import pruners

    if spec.pruner.name == "auto":
        if spec.pruner.options:
            raise ConfigError(
                f"{_place(spec)}.pruner: 'auto' takes no arguments, but has {', '.join(spec.pruner.options)}; "
                "name the pruner that takes them"
            )
        return auto_pruner(spec)
    found: BasePruner = _build(spec.pruner, pruners, pruners.BasePruner, f"{_place(spec)}.pruner", {})
    return found


def auto_pruner(spec: StudySpec) -> BasePruner:
    """The median rule: give up a trial whose best report is worse than the median of the finished ones at that step.

    A classical trial reports after each fold, and is judged from its second one on. A deep trial reports after each
    epoch, and is judged from its fifth one on, against five or more trials that got as far (those that stopped early
    didn't). Hyperband needs budgets of many dozens of trials to fill its brackets. Optuna prunes on one direction only.
    """
    from optuna.pruners import MedianPruner, NopPruner

    from shared.tuning.pruning import OncePerTrial

    if len(spec.directions) > 1:
        return NopPruner()
    if spec.variant == "deep":
        return MedianPruner(n_warmup_steps=4, n_min_trials=5)
    return OncePerTrial(MedianPruner(n_warmup_steps=1))


def worker_seed(seed: int, worker: int, after: int = 0) -> int:
    """Random numbers of their own for each worker, and for each continuation of a study after so many trials."""
    from numpy.random import SeedSequence

    return int(SeedSequence(seed, spawn_key=(worker, after)).generate_state(1)[0])


def _build(strategy: StrategySpec, module: Any, base: type, place: str, given: Mapping[str, Any]) -> Any:
    """An instance of a class of an Optuna module; of `given` it gets the arguments that it takes."""
    known = sorted(n for n in module.__all__ if _is_strategy(getattr(module, n), base))
    if strategy.name not in known:
        raise ConfigError(
            f"{place} must be 'auto' or one of Optuna's, but is {strategy.name!r}"
            f"{did_you_mean(strategy.name, known)}; valid: {', '.join(known)}"
        )
    cls = getattr(module, strategy.name)
    takes = inspect.signature(cls).parameters
    for key in strategy.options:
        if key not in takes:
            raise ConfigError(
                f"{place}: {strategy.name} has no argument {key!r}{did_you_mean(key, list(takes))}; "
                f"it takes {', '.join(takes) or 'none'}"
            )
    options = {
        key: _nested(value, module, base, f"{place}.{key}", given) if key in NESTED else value
        for key, value in strategy.options.items()
    }
    try:
        return cls(**options | {k: v for k, v in given.items() if k in takes})
    except (TypeError, ValueError, AssertionError, ImportError) as err:
        raise ConfigError(
            f"{place}: {strategy.name} refuses the arguments {dict(strategy.options)}: {err}; "
            f"it takes {inspect.signature(cls)}"
        ) from err


def _nested(value: Any, module: Any, base: type, place: str, given: Mapping[str, Any]) -> Any:
    """A strategy inside of a strategy, such as `wrapped_pruner = { name = "MedianPruner" }`."""
    if not isinstance(value, Mapping) or "name" not in value:
        return value
    options = {k: v for k, v in value.items() if k != "name"}
    return _build(StrategySpec(name=value["name"], options=options), module, base, place, given)


def _is_strategy(found: Any, base: type) -> bool:
    return inspect.isclass(found) and issubclass(found, base) and not found.__name__.startswith("Base")


def _place(spec: StudySpec) -> str:
    return f"configs/{spec.use_case}.toml: {spec.variant}"
