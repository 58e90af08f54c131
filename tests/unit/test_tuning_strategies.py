"""Samplers and pruners by name, and what is said of bad ones."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import StrategySpec, StudySpec
from shared.errors import ConfigError
from shared.tuning.pruning import FoldPruner, OncePerTrial
from shared.tuning.strategies import pruner, sampler, worker_seed


def spec(**changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": "toy/classical/0/1", "use_case": "toy", "variant": "classical", "fingerprint": "0",
        "objective_hash": "1", "directions": ("maximize",), "n_trials": 10,
    }  # fmt: skip
    return StudySpec(**values | changes)


def named(name: str, **options: Any) -> StrategySpec:
    return StrategySpec(name=name, options=options)


def configurations(study_spec: StudySpec, worker: int = 0, n: int = 14) -> list[dict[str, Any]]:
    study = optuna.create_study(direction="maximize", sampler=sampler(study_spec, worker))
    study.optimize(lambda t: t.suggest_float("x", 0, 1) - t.suggest_int("k", 1, 9), n_trials=n)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize(
    ("study_spec", "rule"),
    [
        (spec(steps="fold"), FoldPruner),
        (spec(), optuna.pruners.MedianPruner),
        (spec(variant="deep", steps="epoch"), optuna.pruners.SuccessiveHalvingPruner),
        (spec(variant="deep"), optuna.pruners.MedianPruner),
        (spec(directions=("maximize", "minimize")), optuna.pruners.NopPruner),
        (spec(directions=("maximize", "minimize"), metrics=("a", "b"), guard="b"), optuna.pruners.MedianPruner),
    ],
)
def test_the_auto_pruner_follows_from_what_a_trial_reports(study_spec: StudySpec, rule: type) -> None:
    found = pruner(study_spec)
    assert isinstance(found.pruner if isinstance(found, OncePerTrial) else found, rule)


@pytest.mark.parametrize("options", [{}, {"wrapped_pruner": {"name": "HyperbandPruner"}, "patience": 1}])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_hyperband_is_refused_where_there_is_a_guard(options: dict[str, Any]) -> None:
    strategy = named("PatientPruner" if options else "HyperbandPruner", **options)
    with pytest.raises(ConfigError, match=r"toy\.toml: classical\.pruner: HyperbandPruner .* know of no `guard`; take"):
        pruner(spec(directions=("maximize", "minimize"), metrics=("a", "b"), guard="b", pruner=strategy))


def test_a_pruner_of_several_directions_needs_a_guard() -> None:
    several = ("maximize", "minimize")
    with pytest.raises(
        ConfigError, match="MedianPruner compares one value, but there are 2 directions; name the values"
    ):
        pruner(spec(directions=several, pruner=named("MedianPruner")))
    assert isinstance(pruner(spec(directions=several, pruner=named("NopPruner"))), optuna.pruners.NopPruner)


def test_the_median_rule_spares_the_first_report_and_the_first_trials() -> None:
    study = optuna.create_study(direction="maximize", pruner=pruner(spec()))

    def pruned_at(values: list[float]) -> int | None:
        trial = study.ask()
        for step, value in enumerate(values):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return step
        study.tell(trial, values[-1])
        return None

    assert [pruned_at([v, v, v]) for v in (5, 4, 3, 2, 1)] == [None] * 5
    assert pruned_at([0, 0, 0]) == 1
    assert pruned_at([4, 4, 4]) is None


@given(st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5), max_size=12))
def test_reading_the_trials_once_prunes_as_reading_them_at_each_report(folds: list[list[int]]) -> None:
    def pruned_steps(median: optuna.pruners.BasePruner) -> list[int]:
        study = optuna.create_study(direction="maximize", pruner=median)
        for values in folds:
            trial = study.ask()
            for step, value in enumerate(values):
                trial.report(value, step)
                if trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, values[-1])
        return [len(trial.intermediate_values) for trial in study.trials]

    plain = optuna.pruners.MedianPruner(n_startup_trials=2)
    assert pruned_steps(OncePerTrial(plain)) == pruned_steps(plain)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RandomSampler", {}),
        ("TPESampler", {"n_startup_trials": 20}),
        ("QMCSampler", {"scramble": True, "warn_independent_sampling": False}),
        ("NSGAIISampler", {"population_size": 4}),
        ("BruteForceSampler", {}),
        ("CmaEsSampler", {}),
        ("GridSampler", {"search_space": {"x": [0, 1]}}),
        ("PartialFixedSampler", {"fixed_params": {"x": 1}, "base_sampler": {"name": "RandomSampler"}}),
    ],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_of_optuna_is_built_by_name(name: str, options: dict[str, Any]) -> None:
    assert type(sampler(spec(sampler=named(name, **options)))).__name__ == name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("HyperbandPruner", {"reduction_factor": 4}),
        ("SuccessiveHalvingPruner", {}),
        ("NopPruner", {}),
        ("PatientPruner", {"patience": 2, "wrapped_pruner": {"name": "MedianPruner", "n_warmup_steps": 3}}),
        ("WilcoxonPruner", {}),
    ],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_pruner_of_optuna_is_built_by_name(name: str, options: dict[str, Any]) -> None:
    assert type(pruner(spec(pruner=named(name, **options)))).__name__ == name


@pytest.mark.parametrize(
    ("key", "strategy", "parts"),
    [
        (
            "sampler",
            named("TPE"),
            [
                "must be 'auto' or one of Optuna's, but is 'TPE'",
                "did you mean 'TPESampler'?",
                "valid: BruteForceSampler",
            ],
        ),
        ("sampler", named("BaseSampler"), ["but is 'BaseSampler'"]),
        ("sampler", named("nsgaii"), ["but is 'nsgaii'"]),
        (
            "sampler",
            named("TPESampler", n_startup=5),
            ["TPESampler has no argument 'n_startup'; did you mean 'n_startup_trials'?", "it takes consider_prior"],
        ),
        ("sampler", named("QMCSampler", qmc_type="x"), ["QMCSampler refuses the arguments {'qmc_type': 'x'}"]),
        ("sampler", named("GridSampler"), ["GridSampler refuses the arguments {}", "search_space"]),
        ("sampler", named("auto", n_startup_trials=3), ["'auto' takes no arguments, but has n_startup_trials"]),
        ("pruner", named("Median"), ["but is 'Median'; did you mean 'MedianPruner'?", "valid: HyperbandPruner"]),
        ("pruner", named("auto", patience=3), ["'auto' takes no arguments, but has patience; name the pruner"]),
        ("pruner", named("MedianPruner", n_startup_trials=-1), ["MedianPruner refuses the arguments", "-1"]),
        (
            "pruner",
            named("PatientPruner", patience=1, wrapped_pruner={"name": "None"}),
            ["classical.pruner.wrapped_pruner must be 'auto' or one of Optuna's, but is 'None'"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_bad_strategy_is_told_the_key_the_value_and_what_is_valid(
    key: str, strategy: StrategySpec, parts: list[str]
) -> None:
    build = sampler if key == "sampler" else pruner
    with pytest.raises(ConfigError) as caught:
        build(spec(**{key: strategy}))
    for part in [f"configs/toy.toml: classical.{key}", *parts]:
        assert part in str(caught.value)


def test_one_worker_with_one_seed_repeats_exactly() -> None:
    assert configurations(spec(seed=3)) == configurations(spec(seed=3))


def test_another_seed_or_worker_draws_other_numbers() -> None:
    first = [configurations(spec(seed=s), w, n=1)[0]["x"] for s, w in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len(set(first)) == 4


def test_a_seed_among_the_arguments_still_differs_by_worker() -> None:
    seeded = spec(sampler=named("RandomSampler", seed=5))
    assert configurations(seeded, 0, n=2) == configurations(spec(sampler=named("RandomSampler"), seed=5), 0, n=2)
    assert configurations(seeded, 0, n=2) != configurations(seeded, 1, n=2)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_workers_of_qmc_take_turns_on_one_sequence_and_begin_apart() -> None:
    options = {"scramble": True, "warn_independent_sampling": False}
    study = optuna.create_study(direction="maximize")
    for number in range(17):
        study.sampler = sampler(spec(sampler=named("QMCSampler", **options)), worker=number % 2, after=number)
        study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    sixteenths = sorted(int(16 * trial.params["x"]) for trial in study.trials[1:])
    assert sixteenths == [*range(16)], "a Sobol sequence fills each of them once"
    first = [configurations(spec(sampler=named("QMCSampler", **options)), worker, n=1) for worker in (0, 1)]
    assert first[0] != first[1]


@given(st.integers(0, 2**40), st.integers(0, 99), st.integers(0, 10_000))
def test_a_worker_seed_is_one_that_numpy_takes_and_repeats(seed: int, worker: int, after: int) -> None:
    assert 0 <= worker_seed(seed, worker, after) < 2**32
    assert worker_seed(seed, worker, after) == worker_seed(seed, worker, after)
    assert worker_seed(seed, worker, after) != worker_seed(seed, worker + 1, after)
