"""The gate in `SystemTuneFlow`: the champion keeps its place through an outage, and gives way only for a reason."""

from __future__ import annotations

import errno
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from shared.config import PromotionConfig, UseCase
from shared.data.fair import new_to_champion
from shared.data.prepare import prepare
from shared.data.store import load_dataset
from shared.domain import Dataset, DatasetRef, ModelVersion, PromotionDecision, Table
from shared.errors import ChangedModelError, DataError, RegistryError, UnrecordedModelError
from shared.flow.compare import compare
from shared.flow.gate import decide, gated, groups, predicted_by
from shared.flow.plan import Plan
from shared.model import Member, Signature, System, save
from shared.registry import client, promotion
from shared.storage import records, turns
from shared.storage.ledger import Ledger
from tests import on_record

X = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
Y = np.array([0, 0, 1, 1])


def rows(classes: tuple[str, ...] = ("no", "yes"), frame: pd.DataFrame = X) -> Dataset:
    table = Table(
        features=tuple(frame.columns), dtypes=("float64",) * 2, target="t", task="classification", classes=classes,
        shape=(2,),
    )  # fmt: skip
    ref = DatasetRef(
        use_case="toy", fingerprint="f", uri="", table=table, rows={"holdout": 4}, folds=2, source="s",
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    return Dataset(ref, frame, Y, np.full(4, -1))


@pytest.fixture
def champion(home: object) -> ModelVersion:
    del home
    return registered()


def registered() -> ModelVersion:
    fitted = LogisticRegression().fit(X, Y)
    system = System(Signature(("a", "b"), (2,), ("no", "yes")), (Member("classical", fitted),))
    return client.register(
        "toy", save(system), use_case="toy", example=X, predictions=system.predict(X), metrics={}, params={}, lineage={}
    )


def test_a_champion_is_scored_on_the_rows_of_now_if_it_was_made_for_them(champion: ModelVersion) -> None:
    assert accuracy(champion, rows()) == 1.0
    others = "it was made for other classes or columns"
    assert predicted_by("accuracy", champion, rows(classes=("no", "maybe"))) == others
    assert predicted_by("accuracy", champion, rows(frame=X.rename(columns={"a": "z"}))) == others


def test_a_champion_that_fails_to_predict_for_no_known_reason_keeps_its_place(champion: ModelVersion) -> None:
    with pytest.raises(
        RegistryError, match=r"models:/toy/1 must predict .*could not convert .*`evertune models promote`"
    ):
        predicted_by("accuracy", champion, rows(frame=X.assign(a="text")))


def test_the_log_says_in_short_why_a_champion_had_no_score(champion: ModelVersion) -> None:
    plan = prepared()
    decision = decide(plan, trained(honest(), plan), champion, latency_ms=1.0)
    assert decision.promote
    assert decision.reason.startswith(
        "the champion has no score on these rows (it was made for other classes or columns), and the challenger's"
    )


def test_a_registry_that_does_not_answer_never_costs_the_champion_its_place(champion: ModelVersion) -> None:
    gone = champion.model_copy(update={"version": 99})
    with pytest.raises(RegistryError):
        predicted_by("accuracy", gone, rows())


def test_a_champion_whose_files_were_changed_keeps_its_place_until_somebody_decides(
    champion: ModelVersion, home: Path
) -> None:
    (manifest,) = home.glob("mlflow/toy/models/*/artifacts/artifacts/system/manifest.json")
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(ChangedModelError, match=r"manifest\.json"):
        predicted_by("accuracy", champion, rows())


def test_a_shortage_while_a_champion_is_loaded_is_no_fault_of_it(
    champion: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("shared.model._load_skops", short)
    with pytest.raises(RegistryError, match="Too many open files"):
        predicted_by("accuracy", champion, rows())


def test_a_champion_of_before_there_were_records_keeps_its_place_until_it_is_trusted(
    home: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    with monkeypatch.context() as patch:
        patch.setattr(records, "record", lambda *_: True)
        unrecorded = registered()
    with pytest.raises(UnrecordedModelError, match="evertune models trust toy 1"):
        predicted_by("accuracy", unrecorded, rows())


def accuracy(version: ModelVersion, rows: Dataset) -> float:
    found = predicted_by("accuracy", version, rows)
    assert not isinstance(found, str)
    return float((found[1].argmax(axis=1) == rows.y).mean())


def prepared(**data: object) -> Plan:
    """A plan on the dataset version that the rows and the rules of the split make, which is on record."""
    use_case = UseCase.model_validate(
        {
            "name": "toy",
            "title": "Toy",
            "data": {"source": "sklearn:breast_cancer", "target": "target", "holdout": 0.4, **data},
            "tuning": {"metric": "accuracy"},
            "classical": {"objective": "x.py"},
            "system": {},
            "promotion": {"alpha": 0.5, "slices": {"mean radius": 0.5}},
        }
    )
    ref = prepare(use_case, None, datetime(2030, 1, 1, tzinfo=UTC)).ref
    Ledger().record_dataset(ref, run="DataPrepFlow/1")
    return Plan(use_case, "system", dataset=ref)


def trained(estimator: Any, plan: Plan) -> ModelVersion:
    """A registered system of an estimator, fitted on the plan's development rows."""
    rows = load_dataset(plan.data)
    table = rows.ref.table
    system = System(
        Signature(table.features, table.shape, table.classes), (Member("one", estimator.fit(rows.X, rows.y)),)
    )
    return client.register(
        "toy", save(system), use_case="toy", example=rows.X[:2], predictions=system.predict(rows.X[:2]), metrics={},
        params={}, lineage={"dataset": plan.data.fingerprint},
    )  # fmt: skip


def gate(plan: Plan, challenger: ModelVersion, champion: ModelVersion) -> PromotionDecision:
    """A gate, and its decision as a run would log it."""
    decision = decide(plan, challenger, champion, latency_ms=1.0)
    Ledger().log_promotion("toy", challenger.version, champion.version, decision, "SystemTuneFlow/1")
    return decision


def rows_of(plan: Plan) -> set[tuple[float, ...]]:
    return set(load_dataset(plan.data).X.itertuples(index=False, name=None))


def by_heart() -> DecisionTreeClassifier:
    return DecisionTreeClassifier(random_state=0)


def honest() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression())


@pytest.mark.usefixtures("home")
def test_after_a_change_of_the_split_the_champion_has_no_credit_for_rows_that_it_knows_by_heart() -> None:
    before, now = prepared(), prepared(split_seed=1)
    champion, challenger = trained(by_heart(), before), trained(honest(), now)
    holdout, known = load_dataset(now.data, "holdout"), rows_of(before)
    new = np.array([row not in known for row in holdout.X.itertuples(index=False, name=None)])

    decision = decide(now, challenger, champion, latency_ms=1.0)

    labels = np.array(holdout.ref.table.classes)[holdout.y[new]]
    expected = client.load_version(champion).predict(holdout.X[new]) == labels
    assert decision.figures["champion"] == pytest.approx(expected.mean())
    assert decision.figures["champion"] < accuracy(champion, holdout) - 0.02
    assert decision.promote
    assert f"accuracy (on the {new.sum()} of {len(new)} holdout rows that are new to the champion)" in decision.reason


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("more", [{}, {"rows": 569}], ids=["the same rows", "more rows"])
def test_while_the_split_stays_all_of_the_holdout_counts(more: dict[str, int]) -> None:
    before, now = prepared(rows=500), prepared(**{"rows": 500, **more})
    champion, challenger = trained(by_heart(), before), trained(honest(), now)
    holdout = load_dataset(now.data, "holdout")

    decision = decide(now, challenger, champion, latency_ms=1.0)

    assert decision.figures["champion"] == accuracy(champion, holdout)
    assert "holdout rows" not in decision.reason


@pytest.mark.usefixtures("home")
def test_of_too_few_rows_that_are_fair_to_both_no_comparison_is_made() -> None:
    before, now = prepared(holdout=0.1), prepared(holdout=0.1, split_seed=1)
    one, other = trained(DummyClassifier(), before), trained(honest(), now)
    difference = compare(now.use_case, one.version, other.version).difference
    assert re.fullmatch(r"only \d of \d\d holdout rows are fair to both, too few to tell them apart", str(difference))


@pytest.mark.usefixtures("home")
def test_what_was_decided_is_known_after_the_champion_of_then_was_pruned() -> None:
    plan = prepared()
    champion, challenger = trained(by_heart(), plan), trained(honest(), plan)
    better = PromotionDecision(promote=True, reason="better", figures={})
    promotion.promote("toy", champion.version, better, seen=None, actor="SystemTuneFlow/1")
    promotion.promote("toy", challenger.version, better, seen=champion.version, actor="SystemTuneFlow/2")
    outcome = {"model": "toy", "version": challenger.version, "top": [{"values": [0.9, 1.0]}]}
    met = gated(plan, outcome, "SystemTuneFlow/2").champion
    assert met is not None
    client.delete_version(champion)
    done = gated(plan, outcome, "SystemTuneFlow/2")
    assert (met.version, done.champion, done.decision.promote) == (champion.version, None, True)


@pytest.mark.usefixtures("home")
def test_a_champion_that_cant_be_compared_fairly_keeps_its_place() -> None:
    before, now = prepared(holdout=0.1), prepared(holdout=0.1, split_seed=1)
    champion, challenger = trained(DummyClassifier(), before), trained(honest(), now)

    few = decide(now, challenger, champion, latency_ms=1.0)
    shutil.rmtree(before.data.uri)
    gone = decide(now, challenger, champion, latency_ms=1.0)

    assert (few.promote, gone.promote) == (False, False)
    assert re.search(
        r"the split has changed since, and only \d of \d\d holdout rows are new to it, too few", few.reason
    )
    assert f"trained on (dataset version {before.data.fingerprint[:12]}) can't be read any more" in gone.reason


def test_rows_that_come_again_with_time_count_if_both_have_learned_from_them() -> None:
    again = rows()
    assert len(new_to_champion(again, development=again, trained_on=again).y) == 4
    only_champion = new_to_champion(again, development=replace(again, X=X[:2]), trained_on=again)
    assert only_champion.X.equals(X[:2])


@pytest.mark.usefixtures("home")
def test_each_gate_on_a_holdout_asks_for_more_until_the_holdout_has_grown() -> None:
    plan, grown = prepared(rows=400), prepared(rows=569)
    champion, guess, honest_one = (trained(e, plan) for e in (by_heart(), DummyClassifier(), honest()))

    first, same, second = (
        gate(plan, guess, champion),
        gate(plan, champion, champion),
        gate(plan, honest_one, champion),
    )
    renewed = gate(grown, honest_one, champion)

    assert [d.figures["level"] for d in (first, second, renewed)] == pytest.approx([0.25, 0.5 / 6, 0.25])
    assert "level" not in same.figures
    assert [d.figures["series"] for d in (first, second, renewed)] == [
        guess.version, guess.version, honest_one.version
    ]  # fmt: skip
    assert {"slice.mean radius", "size_mb"} <= second.figures.keys()


@pytest.mark.usefixtures("home")
def test_a_group_that_the_config_has_named_since_the_rows_were_prepared_is_looked_at_by_the_gate() -> None:
    use_case = prepared().use_case.model_copy(update={"promotion": PromotionConfig(group="b")})
    assert groups(use_case, rows()) == pytest.approx([1.0, 0.0, 1.0, 0.0])
    with pytest.raises(DataError, match="'b' is missing in 1 of 4 rows"):
        groups(use_case, rows(frame=X.assign(b=[1.0, 0.0, 1.0, None])))


@pytest.mark.usefixtures("home")
def test_a_gate_that_no_model_could_pass_on_so_few_rows_takes_no_turn() -> None:
    plan = prepared(rows=40, holdout=0.2)
    rules = PromotionConfig(alpha=0.002)
    plan = replace(plan, use_case=plan.use_case.model_copy(update={"promotion": rules}))
    one, other = (trained(DummyClassifier(strategy="constant", constant=code), plan) for code in (0, 1))

    decision = gate(plan, one, other)

    assert re.search(r"the holdout's \d rows are too few", decision.reason)
    assert turns.last("toy") is None


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("known", [True, False], ids=["the first rows are on record", "they are forgotten"])
def test_a_holdout_of_the_same_size_is_renewed_where_its_rows_are_new(known: bool) -> None:
    before, moved = prepared(), prepared(split_seed=1)
    champion, other = trained(honest(), before), trained(DecisionTreeClassifier(max_depth=2, random_state=0), before)
    if known:
        fingerprint = before.data.fingerprint
        on_record.finish(
            "toy/system/1", {"version": other.version}, use_case="toy", variant="system", fingerprint=fingerprint
        )

    gate(before, other, champion)
    later = gate(moved, trained(DecisionTreeClassifier(max_depth=3, random_state=0), moved), champion)

    assert later.figures["turn"] == (1 if known else 2)


@pytest.mark.usefixtures("home")
def test_a_smaller_model_that_is_as_good_is_promoted_where_that_is_asked_for() -> None:
    plan = prepared()
    rules = PromotionConfig(mode="non_inferiority", margin=0.05, cheaper=0.5)
    use_case = plan.use_case.model_copy(update={"promotion": rules})
    plan = replace(plan, use_case=use_case)
    forest = RandomForestClassifier(n_estimators=200, random_state=0)
    large, small = trained(forest, plan), trained(honest(), plan)

    decision = decide(plan, small, large, latency_ms=1.0)

    assert decision.promote, decision.reason
    assert decision.figures["saving"] > 0.5
    assert not decide(plan, large, small, latency_ms=1.0).promote
