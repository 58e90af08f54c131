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
        ConfigError: Optuna has no such pruner, it doesn't take these arguments, or it can't prune on a guard.
    """
    from optuna import pruners

    if spec.pruner.name == "auto":
        _refuse_arguments(spec, "pruner")
        return auto_pruner(spec)
    found: BasePruner = _build(spec.pruner, pruners, pruners.BasePruner, f"{_place(spec)}.pruner", lambda _: {})
    if len(spec.directions) > 1:
        _check_guarded(spec, getattr(found, "_wrapped_pruner", found))
    return found


def _check_guarded(spec: StudySpec, pruner: BasePruner) -> None:
    """Refuse a pruner that can't prune a study of several directions."""
    from optuna.pruners import HyperbandPruner, NopPruner

    if spec.guard is None and not isinstance(pruner, NopPruner):
        raise ConfigError(
            f"{_place(spec)}.pruner: {spec.pruner.name} compares one value, but there are {len(spec.directions)} "
            "directions; name the values by `metrics`, and by `guard` the one that `trial.report` reports"
        )
    if isinstance(pruner, HyperbandPruner):
        raise ConfigError(
            f"{_place(spec)}.pruner: HyperbandPruner splits the study into brackets, which know of no `guard`; take "
            "SuccessiveHalvingPruner, or 'auto'"
        )


def auto_pruner(spec: StudySpec) -> BasePruner:
    """By what a trial reports: folds, epochs, or whatever an objective of one's own likes.

    Folds: the fold rule. Epochs: successive halving, by which the better half of the trials that got there goes on
    after 5, 10, 20, … epochs. Else the median rule, which gives up a trial whose best report is worse than the median
    of the complete ones at that step, from its second report on; a deep one from its fifth on, against five or more
    trials that got as far. On several directions it needs a guard.
    """
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    from shared.tuning.pruning import FoldPruner, OncePerTrial

    if len(spec.directions) > 1 and spec.guard is None:
        return NopPruner()
    if spec.steps == "fold":
        return OncePerTrial(FoldPruner())
    if spec.steps == "epoch":
        return SuccessiveHalvingPruner(min_resource=5, reduction_factor=2)
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
