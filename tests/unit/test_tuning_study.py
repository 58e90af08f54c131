"""The identity of a study, and what is refused before its first trial."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage

from shared.config import UseCase
from shared.domain import DatasetRef, StudySpec, Table, Variant
from shared.errors import ConfigError, ObjectiveError
from shared.tuning.objective import Objective
from shared.tuning.study import open_study, study_spec

BUILD = Objective.from_source("def build(trial): return trial.suggest_float('x', 0, 1)", "objectives/x.py")
DEEP = Objective.from_source("def build(trial): pass\ndef fit_plan(trial): pass", "objectives/x.py")
SCRIPT = Objective.from_source("def objective(trial): return 1", "objectives/x.py")
TWO = ["maximize", "minimize"]
TRAINED = Objective.from_source("def objective(trial): return 1\ndef train(trial, data): pass", "objectives/x.py")


def use_case(*, promotion: bool = False, metric: str = "r2", **variants: dict[str, Any]) -> UseCase:
    tree: dict[str, Any] = {
        "name": "toy",
        "title": "Toy",
        "data": {"source": "sklearn:diabetes", "target": "target"},
        "tuning": {"metric": metric},
    }
    tree |= {name: {"objective": "objectives/x.py"} | options for name, options in variants.items()}
    return UseCase.model_validate(tree | ({"system": {}, "promotion": {}} if promotion else {}))


def ref(**changes: Any) -> DatasetRef:
    table = Table(features=("a",), dtypes=("float64",), target="target", task="regression", shape=(1,))
    values: dict[str, Any] = {
        "use_case": "toy", "fingerprint": "0123456789abcdef", "uri": "", "table": table, "rows": {"development": 3},
        "folds": 5, "source": "rows", "created_at": datetime(2030, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return DatasetRef(**values | changes)


def name(config: UseCase, variant: Variant = "classical", objective: Objective = BUILD, **changes: Any) -> str:
    return study_spec(config, variant, ref(**changes), objective).name


def test_a_study_is_named_by_use_case_variant_dataset_and_a_hash() -> None:
    use_case_name, variant, fingerprint, digest = name(use_case(classical={})).split("/")
    assert (use_case_name, variant, fingerprint) == ("toy", "classical", "0123456789ab")
    assert len(digest) == 8


@pytest.mark.parametrize("budget", [{}, {"n_trials": 7}, {"sampler": "RandomSampler"}, {"timeout_s": 3, "workers": 1}])
def test_budget_strategy_and_workers_leave_the_study_what_it_is(budget: dict[str, Any]) -> None:
    assert name(use_case(classical=budget)) == name(use_case(classical={}))


def test_another_source_metric_fold_count_direction_or_dataset_is_another_study() -> None:
    other = Objective.from_source(BUILD.source + "\n", "objectives/x.py")
    names = {
        name(use_case(classical={})),
        name(use_case(classical={}), objective=other),
        name(use_case(classical={}), objective=SCRIPT),
        name(use_case(classical={"directions": ["minimize"]}), objective=SCRIPT),
        name(use_case(classical={"directions": TWO}), objective=SCRIPT),
        name(use_case(classical={"directions": TWO, "metrics": ["a", "b"], "guard": "a"}), objective=SCRIPT),
        name(use_case(classical={"directions": TWO, "metrics": ["a", "b"], "guard": "b"}), objective=SCRIPT),
        name(use_case(classical={}, metric="neg_mean_squared_error")),
        name(use_case(classical={}), folds=3),
        name(use_case(classical={}), fingerprint="f" * 16),
        name(use_case(deep={}), "deep", DEEP),
    }
    assert len(names) == 11


def test_what_the_values_are_called_makes_no_other_study() -> None:
    plain = name(use_case(classical={"directions": TWO}), objective=SCRIPT)
    assert name(use_case(classical={"directions": TWO, "metrics": ["a", "b"]}), objective=SCRIPT) == plain


def test_the_spec_takes_budget_and_strategy_from_the_config() -> None:
    now = datetime(2030, 1, 2, tzinfo=UTC)
    config = use_case(classical={"n_trials": 7, "timeout_s": 60, "max_failures": 2, "sampler": "RandomSampler"})
    spec = study_spec(config, "classical", ref(), BUILD, now)
    assert (spec.n_trials, spec.timeout_s, spec.max_failures, spec.since) == (7, 60, 2, now)
    assert (spec.sampler.name, spec.pruner.name, spec.directions) == ("RandomSampler", "auto", ("maximize",))


def test_promotion_of_an_objective_without_train_is_refused() -> None:
    with pytest.raises(ObjectiveError) as caught:
        study_spec(use_case(promotion=True, classical={}), "classical", ref(), SCRIPT)
    message = str(caught.value)
    assert message.startswith("configs/toy.toml: [system] needs objectives whose best trial can be retrained")
    assert (
        "objectives/x.py defines neither `build(trial)` nor `train(trial, data)`; add `train(trial, data)`" in message
    )


def test_promotion_of_an_objective_with_train_is_accepted() -> None:
    assert study_spec(use_case(promotion=True, classical={}), "classical", ref(), TRAINED)
    assert study_spec(use_case(classical={}), "classical", ref(), SCRIPT)


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "minimize"]])
def test_directions_of_a_build_are_refused(directions: list[str]) -> None:
    with pytest.raises(ObjectiveError, match=r"`classical\.directions` are for an `objective` of one's own.*leave"):
        study_spec(use_case(classical={"directions": directions}), "classical", ref(), BUILD)


def test_directions_of_an_own_objective_are_its_own() -> None:
    config = use_case(classical={"directions": ["maximize", "minimize"]})
    assert study_spec(config, "classical", ref(), SCRIPT).directions == ("maximize", "minimize")


def test_metrics_of_a_build_are_refused() -> None:
    with pytest.raises(
        ObjectiveError, match=r"`classical\.metrics` name the values .* by `tuning.metric` \(r2\); leave"
    ):
        study_spec(use_case(classical={"metrics": ["rmse"]}), "classical", ref(), BUILD)


@pytest.mark.parametrize(
    ("variant", "objective", "steps"), [("classical", BUILD, "fold"), ("deep", DEEP, "epoch"), ("deep", SCRIPT, "")]
)
def test_the_spec_says_after_what_a_trial_reports(variant: Variant, objective: Objective, steps: str) -> None:
    assert study_spec(use_case(**{variant: {}}), variant, ref(), objective).steps == steps


def test_a_deep_build_needs_a_fit_plan_and_a_classical_one_must_have_none() -> None:
    with pytest.raises(ObjectiveError, match=r"\[deep\] .* has no `fit_plan`; add .* or move the objective to \[class"):
        study_spec(use_case(deep={}), "deep", ref(), BUILD)
    with pytest.raises(ObjectiveError, match=r"\[classical\] .* defines `fit_plan`; remove it, or move .* to \[deep\]"):
        study_spec(use_case(classical={}), "classical", ref(), DEEP)


def test_a_variant_that_the_config_leaves_out_has_no_study() -> None:
    with pytest.raises(ConfigError, match=r"configs/toy\.toml has no table \[deep\]; add it"):
        study_spec(use_case(classical={}), "deep", ref(), DEEP)


def test_a_bad_sampler_is_refused_before_the_first_trial() -> None:
    with pytest.raises(ConfigError, match="did you mean 'TPESampler'"):
        study_spec(use_case(classical={"sampler": "TPE"}), "classical", ref(), BUILD)


def test_an_open_study_says_what_it_is_about_and_opens_again() -> None:
    spec = study_spec(use_case(classical={}), "classical", ref(), BUILD)
    storage = InMemoryStorage()
    study = open_study(spec, storage)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    again = open_study(spec.model_copy(update={"n_trials": 50}), storage)
    assert (again.study_name, len(again.trials)) == (spec.name, 1)
    about = again.user_attrs["evertune"]
    assert (about["n_trials"], about["fingerprint"], about["objective_hash"]) == (50, spec.fingerprint, BUILD.hash)


def test_a_continued_study_draws_other_numbers_than_it_began_with() -> None:
    spec = StudySpec(
        name="s", use_case="toy", variant="classical", fingerprint="f", objective_hash="h", directions=("maximize",),
        n_trials=9,
    )  # fmt: skip
    storage = InMemoryStorage()
    open_study(spec, storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    open_study(spec, storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    values = [trial.value for trial in open_study(spec, storage).trials]
    assert len(set(values)) == 6
