"""Lineage as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from rich.console import Console

from shared.cli.lineage import told
from shared.flow.cards import study_card, system_card
from shared.flow.reproduce import Reproduction, difference
from shared.registry.tree import Branch, drawn, of_dataset, of_version
from shared.storage.records import ModelRecord

ENVIRONMENT = {
    "commit": "c" * 40, "lock": "d" * 64, "packages": {"scikit-learn": "1.9", "rich": "14"}, "python": "3.11.9",
    "platform": "Linux", "cpu": "A processor (x86_64)",
}  # fmt: skip
DATASET = {
    "fingerprint": "f" * 64, "source": "csv:rows/*.csv", "files": ["rows/a.csv", "rows/b.csv"],
    "rows": {"development": 80, "holdout": 20}, "previous": "e" * 64,
}  # fmt: skip


def origin(variant: str = "classical", fingerprint: str = "f", **changes: Any) -> dict[str, Any]:
    facts = {
        "dataset": {**DATASET, "fingerprint": fingerprint * 64},
        "study": {"name": f"toy/{variant}/ffff/1234", "seed": 7},
        "trial": {"number": 3, "params": {"C": 0.123456789, "kernel": "[rbf]"}, "user_attrs": {}},
        "objective": {"hash": "a" * 64, "label": "objectives/toy.py"},
        "upstream": {},
        "runs": {"made": "ClassicalHPOFlow/2", "prepared": "DataPrepFlow/1"},
        "environment": ENVIRONMENT,
    }
    return facts | changes


def record(model: str = "toy-classical", version: int = 1, **changes: Any) -> ModelRecord:
    return ModelRecord(model, version, {}, origin(**changes), datetime(2030, 1, 2, 3, 4, tzinfo=UTC))


def a_system() -> ModelRecord:
    member = {
        "study": "toy/classical/ffff/1234", "run": "ClassicalHPOFlow/2", "model": "toy-classical", "version": 1,
        "trial": 3, "objective": {"hash": "a" * 64, "label": "objectives/toy.py"},
    }  # fmt: skip
    choice = {"members": {"classical": {"weight": 1.0, "params": {"C": 0.5}}}}
    return record(
        "toy", 4, variant="system", objective={}, runs={"made": "SystemTuneFlow/5"},
        upstream={"classical": member, "deep": {**member, "version": None}},
        trial={"number": 9, "params": {"members": "classical"}, "user_attrs": {"system": choice}},
    )  # fmt: skip


def lines(branch: Branch) -> Iterator[str]:
    yield branch.text
    for below in branch.below:
        yield from lines(below)


def test_a_version_leads_to_its_run_study_parameters_rows_files_and_code() -> None:
    assert list(lines(of_version(record(), {}))) == [
        "toy-classical version 1",
        "run ClassicalHPOFlow/2, 2030-01-02 03:04 UTC",
        "study toy/classical/ffff/1234, trial 3",
        "parameters C=0.123457, kernel=[rbf]",
        "seed 7",
        "objective objectives/toy.py, aaaaaaaaaaaa",
        "dataset version ffffffffffff",
        "source csv:rows/*.csv",
        "rows/a.csv",
        "rows/b.csv",
        "rows: 80 development, 20 holdout",
        "run DataPrepFlow/1",
        "after eeeeeeeeeeee",
        "code at commit cccccccccccc",
        "package lock dddddddddddd",
        "2 packages: scikit-learn 1.9",
        "Python 3.11.9 on A processor (x86_64)",
    ]


def test_a_system_leads_on_to_the_versions_and_the_runs_of_its_members() -> None:
    said = list(lines(of_version(a_system(), {"classical": record()})))
    at = said.index("member classical: weight 1, registered as toy-classical version 1")
    assert said[at + 1 : at + 6] == [
        "parameters C=0.5",
        "objective objectives/toy.py, aaaaaaaaaaaa",
        "study toy/classical/ffff/1234, best trial 3",
        "run ClassicalHPOFlow/2",
        "code at commit cccccccccccc",
    ]
    assert "member deep: not used" in said


def test_a_version_that_was_only_trusted_says_so() -> None:
    trusted = ModelRecord("toy", 1, {}, {"trusted_by": "ann"}, datetime(2030, 1, 1, tzinfo=UTC))
    assert [branch.text for branch in of_version(trusted, {}).below] == [
        "what it was made of isn't on record: its files were trusted by ann, 2030-01-01 00:00 UTC"
    ]


@pytest.mark.parametrize("lineage", [origin(), {"trusted_by": "ann"}], ids=["made", "trusted"])
def test_the_times_of_a_database_in_another_zone_are_told_in_utc(lineage: dict[str, Any]) -> None:
    noon = datetime(2030, 1, 2, 12, 0, tzinfo=timezone(timedelta(hours=9)))
    first, *_ = of_version(ModelRecord("toy", 1, {}, lineage, noon), {}).below
    assert first.text.endswith(", 2030-01-02 03:00 UTC")


def test_a_dataset_version_leads_to_all_models_that_were_made_of_it() -> None:
    made = [record(version=2, fingerprint="b"), a_system(), record(version=3), record(version=1)]
    first, second = of_dataset(made)
    assert list(lines(first)) == [
        "dataset version bbbbbbbbbbbb",
        "toy-classical",
        "version 2: trial 3 of toy/classical/ffff/1234, run ClassicalHPOFlow/2",
    ]
    assert [model.text for model in second.below] == ["toy", "toy-classical"]
    assert [made.text.partition(":")[0] for made in second.below[1].below] == ["version 1", "version 3"]


def test_the_terminal_shows_the_tree_as_it_is() -> None:
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(drawn(of_version(record(), {})))
    assert "│   ├── parameters C=0.123457, kernel=[rbf]" in capture.get()


@pytest.mark.parametrize("card", [study_card, system_card])
def test_the_cards_show_the_same_tree(card: Callable[..., list[Any]]) -> None:
    from shared.domain import StudySpec

    spec = StudySpec(
        name="toy/system/f/1", use_case="toy", variant="system", fingerprint="f", objective_hash="h",
        directions=("maximize", "minimize"), n_trials=2,
    )  # fmt: skip
    tree = of_version(a_system(), {})
    (shown,) = (c.render()["source"] for c in card([], spec, None, lineage=tree)[-1:])
    assert shown.startswith("## What it was made of\n```text\ntoy version 4\n├── run SystemTuneFlow/5")
    assert "│   ├── parameters members=classical\n" in shown
    assert shown.endswith("\n```")


@pytest.mark.parametrize(
    ("other", "tolerance", "expected"),
    [
        ([[0.5, 0.5], [0.2, 0.8]], 0.0, (0, 0.0)),
        ([[0.5, 0.5], [0.2 + 1e-7, 0.8]], 0.0, (1, 1e-7)),
        ([[0.5, 0.5], [0.2 + 1e-7, 0.8]], 1e-6, (0, 1e-7)),
        ([[0.5, 0.5], [float("nan"), 0.8]], 1e-6, (1, float("nan"))),
    ],
)
def test_rows_differ_that_are_further_apart_than_the_tolerance(
    other: list[list[float]], tolerance: float, expected: tuple[int, float]
) -> None:
    import numpy as np

    rows, largest = difference(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array(other), tolerance)
    assert (rows, largest) == (expected[0], pytest.approx(expected[1], nan_ok=True))


def test_what_has_changed_is_told_only_where_the_predictions_differ() -> None:
    changes = [f"package {i} was 1, and is 2 now" for i in range(25)]
    assert told(Reproduction("toy", 1, 20, 0, 0.0, 0.0, changes)) == [
        "toy version 1: the same predictions for all 20 rows of the holdout"
    ]
    said = told(Reproduction("toy", 1, 20, 3, 0.25, 1e-6, changes))
    assert said[0] == (
        "toy version 1: other predictions for 3 of 20 rows of the holdout, within 1e-06; the largest difference is 0.25"
    )
    assert (said[1], said[-1]) == (changes[0], "and 5 more")


def test_where_nothing_around_a_version_has_changed_what_may_not_repeat_is_told() -> None:
    said = told(Reproduction("toy", 1, 20, 3, 0.25, 0.0, []))
    assert "of then: a generator of the objective's own, unseeded, or a GPU, may be what doesn't repeat" in said[1]
