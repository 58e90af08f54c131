"""One path from a trial to its value, and from the best parameters to a fitted system, for each kind of objective."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent
from unittest.mock import Mock

import numpy as np
import optuna
import pytest

from shared.config import load_use_case
from shared.data.prepare import in_memory
from shared.domain import Dataset
from shared.errors import ConfigError, ObjectiveError
from shared.training import evaluate, threads
from shared.training.evaluate import evaluator, fit_member, retrain
from shared.training.scoring import score
from shared.tuning.objective import Objective

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    threads.limit(1)


CLASSICAL = """
    def build(trial):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        return make_pipeline(StandardScaler(), LogisticRegression(C=trial.suggest_float("C", 0.1, 10, log=True)))
"""
FOREST = """
    def build(trial):
        from sklearn.ensemble import ExtraTreesClassifier
        return ExtraTreesClassifier(trial.suggest_int("n_estimators", 3, 5))
"""
DEEP = """
    def build(trial):
        from torch import nn
        width = trial.suggest_int("width", 8, 16)
        return nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, width), nn.ReLU(), nn.Linear(width, 2))

    def fit_plan(trial):
        return {"lr": trial.suggest_float("lr", 1e-3, 1e-1, log=True), "batch_size": 64, "epochs": 6, "patience": 2}
"""
OWN = """
    def objective(trial, data):
        trial.suggest_int("max_features", 1, 5)
        return float(len(data.y))

    def train(trial, data):
        from sklearn.ensemble import ExtraTreesClassifier
        n_features = trial.suggest_int("max_features", 1, 5)
        return ExtraTreesClassifier(10, max_features=n_features, random_state=0).fit(data.X, data.y)
"""
SCRIPT = """
    def objective(trial):
        return trial.suggest_float("x", 0, 1), 2.0
"""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return in_memory(load_use_case("breast_cancer"))


def objective(source: str) -> Objective:
    return Objective.from_source(dedent(source), "objectives/tried.py")


def study(evaluate: Callable[..., object], n_trials: int = 2, **options: object) -> optuna.Study:
    found = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **{"direction": "maximize", **options})
    found.optimize(evaluate, n_trials=n_trials)
    return found


@pytest.mark.parametrize("source", [FOREST, DEEP], ids=["classical", "deep"])
def test_a_trials_value_can_be_repeated_from_seed_and_number(source, data):
    values = [
        [t.value for t in study(evaluator(objective(source), data, "neg_log_loss", seed)).trials] for seed in (0, 0, 50)
    ]

    assert values[0] == values[1]
    assert values[0] != values[2]


def test_a_classical_trial_reports_each_fold_and_is_worth_their_mean(data):
    trial = study(evaluator(objective(CLASSICAL), data, "neg_log_loss"), 1).trials[0]

    assert list(trial.intermediate_values) == [0, 1, 2, 3, 4]
    assert trial.value == trial.intermediate_values[4]


def test_a_deep_trial_reports_each_epoch_and_keeps_its_best(data):
    trial = study(evaluator(objective(DEEP), data, "neg_log_loss"), 1).trials[0]

    best = trial.user_attrs["best_epoch"]
    assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
    assert trial.value == trial.intermediate_values[best] == max(trial.intermediate_values.values())


@pytest.mark.parametrize("source", [CLASSICAL, DEEP], ids=["classical", "deep"])
def test_the_pruner_is_asked_after_each_report(source, data):
    evaluate = evaluator(objective(source), data, "neg_log_loss")

    trial = study(evaluate, 1, pruner=optuna.pruners.ThresholdPruner(lower=1.0)).trials[0]

    assert trial.state is optuna.trial.TrialState.PRUNED
    assert len(trial.intermediate_values) == 1


def test_an_objective_that_scores_itself_gets_the_dataset(data):
    assert study(evaluator(objective(OWN), data, "neg_log_loss"), 1).best_value == len(data.y)


def test_an_optuna_script_may_have_several_values(data):
    found = study(
        evaluator(objective(SCRIPT), data, "accuracy"), 1, direction=None, directions=["maximize", "minimize"]
    )

    assert found.trials[0].values == [found.trials[0].params["x"], 2.0]


def test_the_wrong_number_of_values_is_an_error(data):
    with pytest.raises(ObjectiveError, match="one value per direction, 1 here, but returned 2"):
        study(evaluator(objective(SCRIPT), data, "accuracy"), 1)


def test_a_metric_for_another_number_of_classes_is_refused_before_the_first_trial():
    digits = in_memory(load_use_case("digits", ["data.rows=200"]))

    with pytest.raises(ConfigError, match="must be able to score 10 classes, but 'roc_auc' can't"):
        evaluator(objective(CLASSICAL), digits, "roc_auc")


@pytest.mark.parametrize("source", [CLASSICAL, DEEP, OWN], ids=["classical", "deep", "own"])
def test_the_best_parameters_are_retrained_to_a_system_that_predicts_labels(source, data):
    tried = objective(source)
    best = study(evaluator(tried, data, "neg_log_loss")).best_trial

    system = retrain(tried, best.params, data, best.user_attrs)

    labels = np.array(data.ref.table.classes)[data.y]
    assert (system.predict(data.X) == labels).mean() > 0.9
    assert score("neg_log_loss", data.ref.table, data.y, system.scores(data.X)) > -0.3


@pytest.mark.parametrize("source", [FOREST, DEEP, OWN], ids=["classical", "deep", "own"])
def test_a_member_fitted_on_all_rows_is_the_retrained_one(source, data):
    tried, table = objective(source), data.ref.table
    params = study(evaluator(tried, data, "neg_log_loss"), 1).trials[0].params

    member = fit_member(tried, params, data.X, data.y, table, best_epoch=3, seed=4, name="mine")
    system = retrain(tried, params, data, {"best_epoch": 3}, seed=4)

    assert member.name == "mine"
    np.testing.assert_array_equal(member.scores(data.X, system.signature), system.scores(data.X))


def test_an_own_train_sees_only_the_rows_that_a_member_is_fitted_on(data):
    source = OWN.replace("fit(data.X, data.y)", "set_params(warm_start=len(data.y) == 300).fit(data.X, data.y)")

    member = fit_member(objective(source), {"max_features": 2}, data.X[:300], data.y[:300], data.ref.table)

    assert member.estimator.warm_start is True


OWN_CLASS = """
    from sklearn.linear_model import LogisticRegression

    class Mine(LogisticRegression):
        pass

    def build(trial):
        mine = trial.suggest_categorical("mine", [False, True])
        return (Mine if mine else LogisticRegression)(max_iter=9999)
"""
OWN_BRANCH = """
    from torch import nn

    class Mine(nn.Linear):
        def forward(self, rows):
            return super().forward(rows / 1000 if rows.sum() > 0 else rows)

    def build(trial):
        return Mine(30, 2)

    def fit_plan(trial):
        return {"lr": 0.001, "batch_size": 64, "epochs": 6}
"""


def test_what_could_not_be_registered_fails_in_its_first_fold_and_the_rest_of_the_space_goes_on(data):
    tried = optuna.create_study(direction="maximize")
    for mine in (False, True, False):
        tried.enqueue_trial({"mine": mine})

    tried.optimize(evaluator(objective(OWN_CLASS), data, "neg_log_loss"), n_trials=3, catch=ObjectiveError)

    found = [(trial.state.name, len(trial.intermediate_values)) for trial in tried.trials]
    assert found == [("COMPLETE", 5), ("FAIL", 0), ("COMPLETE", 5)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (OWN_CLASS.replace("[False, True]", "[True]"), r"holds .*\.Mine; build it of"),
        (OWN_BRANCH, "torch.export takes, but"),
    ],
    ids=["classical", "deep"],
)
def test_what_could_not_be_registered_is_told_by_the_first_trial(source, message, data):
    with pytest.raises(
        ObjectiveError, match=rf"`build\(trial\)` must return a model that can be registered: .*{message}"
    ):
        study(evaluator(objective(source), data, "neg_log_loss"), 1)


@pytest.mark.parametrize(("source", "times"), [(FOREST, 0), (DEEP, 1)], ids=["known to be savable", "one's own"])
def test_models_of_one_make_are_saved_once_to_see_whether_they_can_be(source, times, data, monkeypatch):
    saved = Mock(wraps=evaluate.save)
    monkeypatch.setattr(evaluate, "save", saved)

    study(evaluate.evaluator(objective(source), data, "neg_log_loss"), 3)

    assert saved.call_count == times


def test_a_script_without_train_cannot_be_retrained(data):
    with pytest.raises(ObjectiveError, match="must define `train`"):
        retrain(objective(SCRIPT), {"x": 0.5}, data)


NO_MODEL = """
    def objective(trial, data):
        return 1.0

    def train(trial, data):
        from sklearn.svm import LinearSVC
        return {returned}
"""


@pytest.mark.parametrize(
    ("returned", "shown"),
    [("None", "None"), ("0.5", "a float"), ("LinearSVC().fit(data.X, data.y)", "a LinearSVC")],
    ids=["nothing", "a score", "a classifier without probabilities"],
)
def test_a_train_that_returns_no_model_is_told_what_to_return(returned, shown, data):
    with pytest.raises(ObjectiveError) as caught:
        retrain(objective(NO_MODEL.format(returned=returned)), {}, data)

    assert str(caught.value) == (
        "objectives/tried.py: `train(trial, data)` must return the fitted model, an estimator with `predict_proba` or "
        f"a torch.nn.Module, but returned {shown}; end it with `return model.fit(data.X, data.y)`"
    )
