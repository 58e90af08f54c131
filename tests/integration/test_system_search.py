"""Tuning a whole system on real rows: what is cached, what is recorded, what is retrained."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from statistics import fmean
from textwrap import dedent
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn import datasets
from sklearn.metrics import log_loss, r2_score

from shared.domain import Dataset, DatasetRef, Table, TrialSummary
from shared.errors import ConfigError, ObjectiveError
from shared.training import threads
from shared.training.evaluate import evaluator
from shared.training.latency import latency_ms
from shared.training.oof import Configuration, FoldScores, OutOfFold, falls_behind
from shared.training.pick import pick
from shared.training.space import SystemChoice
from shared.training.system import DIRECTIONS, SystemSearch, UpstreamMember
from shared.tuning.objective import Objective
from shared.tuning.select import summary

LOGISTIC = """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def build(trial):
        C = trial.suggest_float("C", 1e-3, 1e3, log=True)
        return make_pipeline(StandardScaler(), LogisticRegression(C=C))
"""
NETWORK = """
    from torch import nn

    def build(trial):
        width = trial.suggest_int("width", 4, 64, log=True)
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def fit_plan(trial):
        return {"lr": trial.suggest_float("lr", 1e-3, 1e-1, log=True), "batch_size": 32, "epochs": 30}
"""
RIDGE = """
    from sklearn.linear_model import Ridge

    def build(trial):
        return Ridge(alpha=trial.suggest_float("alpha", 1e-3, 10, log=True))
"""
SELF_SCORED = """
    from sklearn.naive_bayes import GaussianNB

    def objective(trial, data):
        return -trial.suggest_float("smoothing", 0, 1)

    def train(trial, data):
        return GaussianNB(var_smoothing=trial.suggest_float("smoothing", 0, 1)).fit(data.X, data.y)
"""


class Memory(dict[str, bytes]):
    """A shared cache, and what was written to it."""

    put = dict.__setitem__


SHARED = Memory()  # what the tests that don't count fits share


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    threads.limit(1)


@cache
def dataset(name: str, rows: int = 150, ordered: bool = False) -> Dataset:
    """Rows of a data set of scikit-learn, shuffled, dealt to three folds (by time: to four)."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True, as_frame=True)
    chosen = np.random.default_rng(0).permutation(len(X))[:rows]
    X, y, task = X.iloc[chosen].reset_index(drop=True), y.to_numpy()[chosen], "regression"
    if name != "diabetes":
        y, task = y.astype(np.int64), "classification"
    table = Table(
        features=tuple(X.columns),
        dtypes=tuple(map(str, X.dtypes)),
        target="target",
        task=task,
        classes=tuple(range(y.max() + 1)) if task == "classification" else (),
        shape=(X.shape[1],),
    )
    ref = DatasetRef(
        use_case=name,
        fingerprint="f" * 64,
        uri="memory:",
        table=table,
        rows={"development": len(X)},
        folds=3,
        source="test",
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
    )
    return Dataset(ref, X, y, np.arange(len(X)) % (4 if ordered else 3), ordered)


def upstream(source: str, *params: dict[str, Any], **user_attrs: Any) -> UpstreamMember:
    """A member whose upstream trials had these parameters, best first."""
    trials = tuple(
        TrialSummary(number=i, values=(-0.1 - i,), params=p, user_attrs=user_attrs) for i, p in enumerate(params)
    )
    return UpstreamMember(Objective.from_source(dedent(source), "objectives/iris.py"), trials)


def search(*, budget_ms: float = 1e6, cached: Memory = SHARED, **members: UpstreamMember) -> SystemSearch:
    members = members or {
        "classical": upstream(LOGISTIC, {"C": 1.0}, {"C": 10.0}, {"C": 0.1}),
        "deep": upstream(NETWORK, {"width": 16, "lr": 0.05}, {"width": 8, "lr": 0.05}, best_epoch=4),
    }
    return SystemSearch(members, dataset("iris"), "neg_log_loss", budget_ms, cache=cached)


def run(system: SystemSearch, *params: dict[str, Any], n_trials: int = 0) -> list[TrialSummary]:
    """Finished trials of a system study with these parameters, then sampled ones."""
    study = optuna.create_study(directions=DIRECTIONS, sampler=optuna.samplers.TPESampler(seed=0))
    for given in params:
        study.enqueue_trial(given)
    study.optimize(system.evaluate, n_trials=len(params) + n_trials)
    return [summary(t) for t in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])]


def asked(system: SystemSearch, params: dict[str, Any]) -> TrialSummary:
    """A trial with these parameters, as if it had finished."""
    choice = system.space.suggest(optuna.trial.FixedTrial(params))
    return TrialSummary(
        number=0, values=(0.0, 0.0), params=params, user_attrs={"system": choice.model_dump(mode="json")}
    )


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the members that were fitted, one by one."""
    seen = list[str]()
    fit = Configuration.fit

    def counted(self: Configuration, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.name)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Configuration, "fit", counted)
    return seen


BOTH = {
    "members": "classical+deep",
    "preprocessing": "none",
    "calibration": "none",
    "hyperparameters.classical": "best",
    "hyperparameters.deep": "best",
    "share.classical": 0.5,
}


def test_a_trial_that_changes_only_the_blend_fits_nothing(fits):
    first, *others = run(
        search(cached=Memory()),
        BOTH,
        BOTH | {"share.classical": 0.8},
        BOTH | {"calibration": "temperature"},
        BOTH | {"members": "deep"},
    )
    assert fits == ["classical"] * 3 + ["deep"] * 3
    assert len({first.values[0], *(t.values[0] for t in others)}) == 4


def test_another_worker_reads_what_the_first_one_cached(fits):
    cached = Memory()
    first = run(search(cached=cached), BOTH)
    again = run(search(cached=cached), BOTH)
    assert len(fits) == len(cached) == 6
    assert again[0].values[0] == first[0].values[0]
    assert all(key.startswith(("oof/classical/", "oof/deep/")) for key in cached)


def test_other_parameters_preprocessing_or_seed_are_fitted_anew(fits):
    cached = Memory()
    run(search(cached=cached), BOTH | {"members": "classical"})
    run(search(cached=cached), BOTH | {"members": "classical", "hyperparameters.classical": "second"})
    run(search(cached=cached), BOTH | {"members": "classical", "preprocessing": "standard"})
    other_seed = search(cached=cached)
    SystemSearch(other_seed.space.members, other_seed.data, "accuracy", 1e6, seed=1, cache=cached).evaluate(
        optuna.trial.FixedTrial(BOTH | {"members": "classical"})
    )
    assert fits == ["classical"] * 12


def test_a_member_alone_has_the_metric_of_its_upstream_study():
    system = search()
    alone = optuna.create_study(direction="maximize")
    alone.enqueue_trial({"C": 1.0})
    alone.optimize(evaluator(system.space.members["classical"].objective, system.data, "neg_log_loss"), n_trials=1)
    assert run(system, BOTH | {"members": "classical"})[0].values[0] == pytest.approx(alone.best_value)


def test_the_metric_of_a_blend_is_that_of_the_weighted_mean_out_of_fold():
    system = search()
    trial = run(system, BOTH | {"share.classical": 0.3})[0]
    classical_, deep = (system.oof.all(c) for c in system._configurations(SystemChoice.of(trial)))
    expected = [
        -log_loss(y, 0.3 * a.scores + 0.7 * b.scores) for y, a, b in zip(system.oof.y, classical_, deep, strict=True)
    ]
    assert trial.values[0] == pytest.approx(fmean(expected))


def test_the_initial_trials_are_finished_as_they_were_asked_for():
    system = search()
    asked = system.initial_trials()
    finished = run(system, *asked)
    assert [t.params for t in finished] == asked
    assert [t.params["members"] for t in finished] == ["deep", "classical", "classical", *["classical+deep"] * 2]
    assert finished[3].user_attrs["system"]["members"]["deep"]["weight"] == 0.5


def test_sampled_trials_finish_or_are_given_up_and_keep_what_they_chose():
    study = optuna.create_study(directions=DIRECTIONS, sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(search().evaluate, n_trials=12)
    chosen = [SystemChoice.model_validate(t.user_attrs["system"]) for t in study.trials]
    assert {m.origin for c in chosen for m in c.members.values()} > {"best", "around"}
    assert all(sum(c.weights) == pytest.approx(1) for c in chosen)
    names = {"classical": {"C"}, "deep": {"width", "lr"}}
    assert all(set(m.params) == names[name] for c in chosen for name, m in c.members.items())


def test_around_stays_near_the_best_and_keeps_its_epochs():
    study = optuna.create_study(directions=DIRECTIONS)
    study.enqueue_trial(BOTH | {"members": "deep", "hyperparameters.deep": "around"})
    trial = study.ask()
    member = search().space.suggest(trial).members["deep"]
    assert member.best_epoch == 4
    assert 16 / 1.7 < member.params["width"] < 16 * 1.7
    assert {"deep.width", "deep.lr"} < set(trial.params)


def test_an_objective_that_trains_itself_is_a_member_but_is_not_searched_around():
    member = upstream(SELF_SCORED, {"smoothing": 0.1}, {"smoothing": 0.5})
    system = search(classical=member)
    assert member.origins == ("best", "second", "third")
    trial = run(system, *system.initial_trials())[0]
    assert system.retrain(trial).predict(system.data.X.head(3)).shape == (3,)


def test_a_configuration_that_falls_behind_is_given_up_after_a_fold(fits):
    member = upstream(LOGISTIC, {"C": 1.0}, {"C": 1e-6})
    trials = run(
        search(cached=Memory(), classical=member),
        BOTH,
        BOTH | {"hyperparameters.classical": "second"},
    )
    assert len(trials) == 1
    assert len(fits) == 4


@pytest.mark.parametrize(
    ("why", "mine", "n_folds", "worse"),
    [
        ("better", -0.1, 1, False),
        ("within one fold's spread", -0.29, 1, False),
        ("beyond it", -0.31, 1, True),
        ("after two folds nothing is allowed", -0.21, 2, True),
        ("better after two folds", -0.19, 2, False),
    ],
)
def test_what_falls_behind(why, mine, n_folds, worse):
    assert falls_behind(mine, -0.2, 0.1, n_folds) is worse, why


def test_two_workers_meet_in_the_middle_of_the_folds():
    order = list[int]()

    class Spy(OutOfFold):
        def fold(self, member: Configuration, k: int) -> FoldScores:
            order.append(k)
            return super().fold(member, k)

    system = search()
    configuration = Configuration("classical", system.space.members["classical"].objective, {"C": 1.0})
    found = [Spy(system.data, "neg_log_loss").all(configuration, backwards=b) for b in (False, True)]
    assert order == [0, 1, 2, 2, 1, 0]
    assert all((a.scores == b.scores).all() for a, b in zip(*found, strict=True))


def test_the_latency_constraint_is_in_the_study_and_infeasible_trials_are_not_picked():
    fast, *_, slow = sorted(run(search(), *search().initial_trials()), key=lambda t: t.values[1])
    system = search(budget_ms=(fast.values[1] + slow.values[1]) / 2)
    study = optuna.create_study(directions=DIRECTIONS)
    for known in (slow, fast):
        study.enqueue_trial(known.params)
    study.optimize(system.evaluate, n_trials=2)
    for trial in study.trials:
        assert trial.constraints == {"latency_ms": pytest.approx(trial.values[1] - system.latency_budget_ms)}
    picked = pick([summary(t) for t in study.trials], system.latency_budget_ms)
    assert picked.params == fast.params
    assert [t.params for t in study.best_trials] == [fast.params]


def test_the_retrained_system_predicts_raw_rows_and_equals_the_blend_of_its_members():
    system = search()
    chosen = {"preprocessing": "quantile", "calibration": "temperature", "share.classical": 0.4}
    trial = asked(system, BOTH | chosen)
    fitted = system.retrain(trial)
    X = system.data.X
    parts = [m.scores(X, fitted.signature) for m in fitted.members]
    blended = 0.4 * parts[0] + 0.6 * parts[1]
    assert [m.name for m in fitted.members] == ["classical", "deep"]
    assert fitted.scores(X) == pytest.approx(fitted.calibrator.predict_proba(blended))
    assert (fitted.predict(X) == system.data.y).mean() > 0.9
    assert latency_ms(fitted, X) > 0


def test_the_retrained_parameters_are_those_of_the_trial_even_if_the_upstream_best_is_another_now():
    trial = run(search(), BOTH | {"members": "classical"})[0]
    later = search(classical=upstream(LOGISTIC, {"C": 100.0}), deep=search().space.members["deep"])
    assert later.retrain(trial).members[0].estimator[-1].C == 1.0


def test_a_retrained_system_goes_through_its_native_files(tmp_path):
    from shared import model

    system = search()
    fitted = system.retrain(asked(system, BOTH | {"preprocessing": "quantile", "calibration": "temperature"}))
    for name, content in model.save(fitted).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert model.load(tmp_path).scores(system.data.X) == pytest.approx(fitted.scores(system.data.X), abs=1e-6)


def test_a_regression_of_one_member_is_tuned_and_retrained():
    data = dataset("diabetes", 200)
    system = SystemSearch({"classical": upstream(RIDGE, {"alpha": 0.1}, {"alpha": 1.0})}, data, "r2", 100.0)
    trials = run(system, *system.initial_trials(), n_trials=5)
    assert trials[0].params == {"preprocessing": "none", "hyperparameters.classical": "best"}
    fitted = system.retrain(pick(trials, 100.0))
    assert r2_score(data.y, fitted.predict(data.X)) > 0.4
    assert fitted.calibrator is None


def test_rows_by_time_that_are_only_trained_on_have_no_score():
    data = dataset("iris", ordered=True)
    system = SystemSearch({"classical": upstream(LOGISTIC, {"C": 1.0})}, data, "neg_log_loss", 100.0)
    trial = run(system, {"calibration": "temperature", "hyperparameters.classical": "best"})[0]
    assert sum(map(len, system.oof.y)) == (data.fold > 0).sum() < len(data.y)
    assert system.retrain(trial).predict(data.X).shape == data.y.shape


def test_text_columns_are_left_to_the_members():
    data = dataset("iris")
    X = data.X.assign(color=pd.Series(["red", "blue"] * 75, dtype="str"))
    source = """
        from sklearn.compose import make_column_transformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        def build(trial):
            C = trial.suggest_float("C", 0.1, 10)
            encode = make_column_transformer((OneHotEncoder(), ["color"]), remainder="passthrough")
            return make_pipeline(encode, LogisticRegression(C=C, max_iter=1000))
    """
    table = data.ref.table.model_copy(
        update={"features": tuple(X.columns), "dtypes": (*data.ref.table.dtypes, "str"), "shape": (5,)}
    )
    mixed = Dataset(data.ref.model_copy(update={"table": table}), X, data.y, data.fold)
    system = SystemSearch({"classical": upstream(source, {"C": 1.0})}, mixed, "accuracy", 100.0)
    assert system.space.preprocessings == {"classical": ("none",)}
    assert run(system, *system.initial_trials())[0].values[0] > 0.8


DEPTH = r"objectives/iris.py: the member 'classical' must fit .* raised KeyError: 'depth'; try it with .* {'C': 1.0}"


def test_a_network_on_images_takes_raw_pixels_whatever_the_preprocessing():
    iris = dataset("iris")
    table = iris.ref.table.model_copy(update={"shape": (1, 2, 2)})
    members = search().space.members
    images = Dataset(iris.ref.model_copy(update={"table": table}), iris.X, iris.y, iris.fold)
    system = SystemSearch(members, images, "neg_log_loss", 100.0)
    assert system.space.preprocessings == {"classical": ("none", "standard"), "deep": ("none",)}
    choice = SystemChoice.of(asked(system, BOTH | {"preprocessing": "standard"}))
    assert [c.preprocessing for c in system._configurations(choice)] == ["standard", "none"]
    assert "preprocessing" not in system.initial_trials()[0]
    assert "preprocessing" in system.initial_trials()[1]


FAULTY = {
    "build": "def build(trial):\n    raise KeyError('depth')",
    "fit": (
        "from sklearn.linear_model import LogisticRegression\n"
        "def build(trial):\n    return LogisticRegression(solver='newton')"
    ),
}


@pytest.mark.parametrize(
    ("where", "origin", "message"),
    [
        (
            "build",
            "best",
            DEPTH,
        ),
        (
            "build",
            "around",
            DEPTH,
        ),
        ("fit", "best", r"'classical' must fit .* raised InvalidParameterError: The 'solver' parameter"),
    ],
)
def test_an_objective_that_raises_fails_its_trial_with_its_own_words(where, origin, message):
    system = search(classical=upstream(FAULTY[where], {"C": 1.0}))
    with pytest.raises(ObjectiveError, match=message):
        run(system, {"hyperparameters.classical": origin})


def test_a_member_without_train_is_refused():
    source = "def objective(trial):\n    return trial.suggest_float('x', 0, 1)"
    with pytest.raises(ObjectiveError, match=r"but 'classical' defines only `objective`; add `train\(trial, data\)`"):
        search(classical=upstream(source, {"x": 0.5}))


def test_a_system_without_members_is_refused():
    with pytest.raises(ConfigError, match=r"at least one member, but has none; add a table \[classical\]"):
        SystemSearch({}, dataset("iris"), "neg_log_loss", 10.0)
