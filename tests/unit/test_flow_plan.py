"""What is due: decided from a study's identity and what the ledger remembers of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.config import ScheduleConfig, SystemConfig, UseCase
from shared.domain import DatasetRef, EarlierStudy, StudySpec, Table, TrialSummary
from shared.flow.plan import Plan, continues, earlier_studies, extended, idle_reason, warm_started, why_due
from shared.flow.system import newest_complete, study_spec, upstream_studies
from shared.storage.ledger import LedgerEntry

NOW = datetime(2030, 1, 1, tzinfo=UTC)
USE_CASE = UseCase.model_validate(
    {
        "name": "toy",
        "title": "Toy",
        "data": {"source": "sklearn:iris", "target": "target"},
        "tuning": {"metric": "accuracy"},
        "classical": {"objective": "x.py"},
        "retune": {"warm_trials": 3, "patience": 7, "terminator": True},
    }
)


REF = DatasetRef(
    use_case="toy",
    fingerprint="new",
    uri="",
    table=Table(features=("a",), dtypes=("float64",), target="target", task="classification", shape=(1,)),
    rows={"development": 3},
    folds=5,
    source="rows",
    created_at=NOW,
)


def spec(**changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": "toy/classical/new/1", "use_case": "toy", "variant": "classical", "fingerprint": "new",
        "objective_hash": "1", "directions": ("maximize",), "n_trials": 10,
    }  # fmt: skip
    return StudySpec(**values | changes)


def entry(budget: int = 10, asked: int = 10, hours: int = 0, **changes: Any) -> LedgerEntry:
    best = TrialSummary(number=4, values=(0.9,), params={"depth": hours})
    outcome = {
        "budget": budget, "asked": asked, "trial": 4, "metric": "accuracy", "directions": ["maximize"], "value": 0.9,
        "objective_hash": "1",
        "top": [best.model_dump(mode="json")],
    }  # fmt: skip
    values: dict[str, Any] = {
        "study": "toy/classical/old/1", "use_case": "toy", "variant": "classical", "fingerprint": "old",
        "state": "done", "run": "ClassicalHPOFlow/1", "outcome": outcome, "note": "",
        "asked_at": NOW + timedelta(hours=hours),
    }  # fmt: skip
    return LedgerEntry(**values | changes)


def test_a_study_is_due_until_it_is_done_with_its_budget() -> None:
    assert idle_reason(spec(), None) == ""
    assert idle_reason(spec(), entry(state="failed")) == ""
    assert idle_reason(spec(n_trials=11), entry(budget=10)) == ""
    assert "trial 4 has accuracy 0.9 (ClassicalHPOFlow/1)" in idle_reason(spec(), entry())


def test_a_run_is_tagged_with_its_use_case_and_its_study() -> None:
    assert Plan(USE_CASE, "deep", idle="no table").tags == ["use_case:toy", "idle"]
    assert Plan(USE_CASE, "classical", spec=spec()).tags == ["use_case:toy", "study:toy/classical/new/1"]


def test_continuing_adds_the_budget_to_what_the_study_has() -> None:
    assert extended(spec(), entry(budget=12), continues=True).n_trials == 22
    assert extended(spec(), None, continues=True).n_trials == 10
    assert extended(spec(), entry(state="claimed", outcome={}), continues=True).n_trials == 10


@pytest.mark.parametrize(
    ("budget", "asked", "now", "then", "why"),
    [
        (3, 10, 10, 3, "a warm study is smaller than what was asked for"),
        (3, 10, 15, 15, "more is asked for since"),
        (10, 10, 7, 10, "less is asked for since"),
        (30, 10, 15, 30, "it was continued beyond what is asked for"),
    ],
)
def test_a_study_that_was_done_grows_when_more_is_asked_for(
    budget: int, asked: int, now: int, then: int, why: str
) -> None:
    for state in ("done", "claimed"):  # claimed: the run that extends it was interrupted
        before = entry(budget=budget, asked=asked, state=state)
        assert extended(spec(n_trials=now), before, continues=False).n_trials == then, why


def earlier(same_objective: bool = True) -> EarlierStudy:
    return EarlierStudy(study="toy/classical/old/1", fingerprint="old", same_objective=same_objective, top=())


def test_a_study_on_other_data_is_smaller_and_may_stop_early() -> None:
    warm = warm_started(spec(), USE_CASE, [earlier()], None)
    assert (warm.earlier, warm.n_trials, warm.patience, warm.terminator) == ((earlier(),), 3, 7, True)


def test_an_edited_objective_learns_from_earlier_studies_but_has_its_whole_budget() -> None:
    edited = earlier(same_objective=False)
    warm = warm_started(spec(), USE_CASE, [edited], None)
    assert (warm.earlier, warm.n_trials, warm.patience, warm.terminator) == ((edited,), 10, 0, False)


def test_a_study_that_goes_on_keeps_its_budget_and_still_learns() -> None:
    again = warm_started(spec(), USE_CASE, [earlier()], entry())
    assert (again.earlier, again.n_trials, again.patience) == ((earlier(),), 10, 0)
    assert warm_started(spec(), USE_CASE, [], None) == spec()


def test_studies_to_learn_from_are_of_the_same_question_first_and_then_the_newest() -> None:
    same, newer = entry(hours=1), entry(hours=2, study="toy/classical/older/1")
    edited = entry(hours=3, study="toy/classical/old/2")
    found = earlier_studies([same, edited, newer], spec(), "accuracy")
    assert [(e.study, e.same_objective) for e in found] == [
        ("toy/classical/older/1", True), ("toy/classical/old/1", True), ("toy/classical/old/2", False),
    ]  # fmt: skip
    assert found[0].top[0].params == {"depth": 2}
    assert len(earlier_studies([same, edited, newer, newer], spec(), "accuracy")) == 3


def test_a_study_that_is_tuned_on_still_teaches_what_it_had() -> None:
    assert [found.study for found in earlier_studies([entry(state="open")], spec(), "accuracy")] == [entry().study]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (entry(outcome={}), "it has never ended"),
        (entry(variant="deep"), "another variant"),
        (entry(study="toy/classical/new/1"), "it is the study itself"),
        (entry(study="toy/classical/old/2", outcome=entry().outcome | {"metric": "f1"}), "edited, another metric"),
        (entry(study="toy/classical/old/2", outcome=entry().outcome | {"directions": ["minimize"]}), "turned around"),
    ],
)
def test_what_a_study_cant_learn_from(other: LedgerEntry, why: str) -> None:
    assert earlier_studies([other], spec(), "accuracy") == [], why


def test_the_system_takes_the_study_of_each_member_that_was_asked_for_last() -> None:
    old, new = entry(hours=1), entry(hours=2)
    other_metric = entry(hours=4, outcome={**entry().outcome, "metric": "f1"})
    assert upstream_studies([new, old, other_metric], USE_CASE) == {"classical": new}
    scores_itself = entry(hours=5, outcome={**entry().outcome, "metric": "rows_kept", "scores_itself": True})
    assert upstream_studies([new, scores_itself, other_metric], USE_CASE) == {"classical": scores_itself}


def test_a_system_is_another_one_when_an_upstream_best_changes() -> None:
    def name(**outcome: Any) -> str:
        upstream = {"classical": entry(outcome={**entry().outcome, **outcome})}
        return study_spec(USE_CASE, SystemConfig(), REF, upstream).name

    better = TrialSummary(number=4, values=(0.9,), params={"depth": 9})
    assert name() == name(counts={"COMPLETE": 99})
    assert name() != name(top=[better.model_dump(mode="json")])


def version(fingerprint: str) -> DatasetRef:
    return REF.model_copy(update={"fingerprint": fingerprint})


def on_data(fingerprint: str, variant: str = "classical", **changes: Any) -> LedgerEntry:
    about = {"study": f"toy/{variant}/{fingerprint}/1", "variant": variant, "fingerprint": fingerprint}
    return entry(**about | changes)


BOTH = UseCase.model_validate(USE_CASE.model_dump(exclude_none=True) | {"deep": {"objective": "x.py"}})
EDITED = {"hours": 1, "study": "toy/classical/new/2"}


@pytest.mark.parametrize(
    ("use_case", "entries", "found", "why"),
    [
        (USE_CASE, [], None, "nothing is done"),
        (USE_CASE, [on_data("old")], "old", "the newest one lacks a variant"),
        (USE_CASE, [on_data("old"), on_data("new")], "new", "both are complete"),
        (BOTH, [on_data("old"), on_data("old", "deep"), on_data("new")], "old", "a variant was added, or is late"),
        (BOTH, [on_data("new"), on_data("old", "deep")], None, "the variants are done on different versions"),
        (USE_CASE, [on_data("new"), on_data("new", "deep", state="failed")], "new", "the variant was taken out"),
        (BOTH, [on_data("new"), on_data("new", "deep", state="failed")], None, "a variant has failed"),
        (USE_CASE, [on_data("new"), on_data("new", **EDITED, state="claimed")], None, "its edited objective is tuned"),
        (USE_CASE, [on_data("new"), on_data("new", **EDITED, state="failed")], None, "its edited objective failed"),
        (USE_CASE, [on_data("new", hours=2), on_data("new", **EDITED, state="failed")], "new", "the edit was undone"),
        (USE_CASE, [on_data("new", outcome=entry().outcome | {"metric": "f1"})], None, "it is of another metric"),
        (
            USE_CASE, [on_data("old"), on_data("new", state="claimed"), on_data("new", "system")], None,
            "a system was tuned on newer data than the complete one",
        ),
    ],
)  # fmt: skip
def test_a_system_is_tuned_on_the_newest_version_whose_configured_variants_are_done(
    use_case: UseCase, entries: list[LedgerEntry], found: str | None, why: str
) -> None:
    ref = newest_complete([version("new"), version("old")], entries, use_case)
    assert (ref and ref.fingerprint) == found, why


def test_unchanged_data_adds_trials_once_for_each_look_at_it() -> None:
    nightly = USE_CASE.model_copy(update={"schedule": ScheduleConfig(when_unchanged="continue")})
    done = entry(finished_at=NOW)
    before, after = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
    assert [continues(nightly, done, seen) for seen in (None, before, after)] == [False, False, True]
    assert not continues(nightly, None, after)
    assert not continues(USE_CASE, done, after)


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (None, "no run has asked for it yet"),
        (entry(budget=5), "10 trials are asked for, and it is done with 5"),
        (entry(state="failed", note="no luck"), "ClassicalHPOFlow/1 failed: no luck"),
        (entry(state="due", note="HPO/2 was interrupted"), "HPO/2 was interrupted"),
        (entry(state="claimed"), "ClassicalHPOFlow/1 is at it, or has died: it isn't done"),
        (entry(state="claimed", recorded=True), "its result is recorded, and has to be published"),
    ],
)
def test_what_is_due_says_why(known: LedgerEntry | None, why: str) -> None:
    assert why_due(spec(), known).endswith(why)
