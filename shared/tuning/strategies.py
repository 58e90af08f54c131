"""Samplers and pruners of Optuna, by name with their arguments, or `auto`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from shared.config import did_you_mean
from shared.domain import StrategySpec, StudySpec
from shared.errors import ConfigError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


NESTED = ("base_sampler", "independent_sampler", "wrapped_pruner")
Given = Callable[[str], Mapping[str, Any]]


def sampler(spec: StudySpec, worker: int = 0, after: int = 0) -> BaseSampler:
    """The sampler of one worker of a study that has `after` trials; `auto` is `AutoSampler`.

    Raises:
        ConfigError: Optuna has no such sampler, or it doesn't take these arguments.
    """
    from optuna import samplers

    shared = spec.sampler.options.get("seed", spec.seed)
    own = worker_seed(shared, worker, after)
    if spec.sampler.name == "auto":
        _refuse_arguments(spec, "sampler")
        from shared.tuning.auto_sampler import AutoSampler

        return AutoSampler(spec.n_trials, own)

    def given(name: str) -> Mapping[str, Any]:
        if name == "QMCSampler":  # its workers take turns on one sequence, which each begins at random
            return {"seed": shared, "independent_sampler": samplers.RandomSampler(own)}
        return {"seed": own}

    found: BaseSampler = _build(spec.sampler, samplers, samplers.BaseSampler, f"{_place(spec)}.sampler", given)
    return found


def pruner(spec: StudySpec) -> BasePruner:
    """The pruner of a study; `auto` is `auto_pruner`.

    Raises:
        ConfigError: Optuna has no such pruner, or it doesn't take these arguments.
    """
    from optuna import pruners

    if spec.pruner.name == "auto":
        _refuse_arguments(spec, "pruner")
        return auto_pruner(spec)
    found: BasePruner = _build(spec.pruner, pruners, pruners.BasePruner, f"{_place(spec)}.pruner", lambda _: {})
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


def _refuse_arguments(spec: StudySpec, key: Literal["sampler", "pruner"]) -> None:
    options = getattr(spec, key).options
    if options:
        raise ConfigError(
            f"{_place(spec)}.{key}: 'auto' takes no arguments, but has {', '.join(options)}; "
            f"name the {key} that takes them"
        )


def _build(strategy: StrategySpec, module: Any, base: type, place: str, given: Given) -> Any:
    """An instance of a class of an Optuna module. given: arguments by its name; it gets those that it takes."""
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
        if key != "seed"  # what is given was made from it
    }
    try:
        return cls(**{k: v for k, v in given(strategy.name).items() if k in takes} | options)
    except (TypeError, ValueError, AssertionError, ImportError) as err:
        raise ConfigError(
            f"{place}: {strategy.name} refuses the arguments {dict(strategy.options)}: {err}; "
            f"it takes {inspect.signature(cls)}"
        ) from err


def _nested(value: Any, module: Any, base: type, place: str, given: Given) -> Any:
    """A strategy inside of a strategy, such as `wrapped_pruner = { name = "MedianPruner" }`."""
    if not isinstance(value, Mapping) or "name" not in value:
        return value
    options = {k: v for k, v in value.items() if k != "name"}
    return _build(StrategySpec(name=value["name"], options=options), module, base, place, given)


def _is_strategy(found: Any, base: type) -> bool:
    return inspect.isclass(found) and issubclass(found, base) and not found.__name__.startswith("Base")


def _place(spec: StudySpec) -> str:
    return f"configs/{spec.use_case}.toml: {spec.variant}"
