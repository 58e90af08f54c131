"""What is pruned: only what no model version, no unfinished study and no rule of [retention] needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.config import RetentionConfig
from shared.domain import DatasetRef, ModelVersion, Table
from shared.flow.retention import ChainFiles, Holdings, RunFiles, surplus
from shared.storage.ledger import LedgerEntry
from shared.storage.sources import Source

NOW = datetime(2026, 7, 1, tzinfo=UTC)
N = 10
TABLE = Table(features=("x",), dtypes=("float64",), target="y", task="regression", shape=(1,))


def days_ago(days: int) -> datetime:
    return NOW - timedelta(days=days)


def dataset(i: int) -> DatasetRef:
    return DatasetRef(
        use_case="toy", fingerprint=f"f{i}", uri=f"/data/toy/f{i}", table=TABLE, rows={}, folds=5, source="csv:x",
        created_at=days_ago(100 - i),
    )  # fmt: skip


def study(i: int, variant: Any = "classical", **changes: Any) -> LedgerEntry:
    facts: dict[str, Any] = {
        "study": f"toy/{variant}/f{i}/q", "use_case": "toy", "variant": variant, "fingerprint": f"f{i}",
        "state": "done", "run": f"Flow/{i}", "outcome": {}, "note": "", "asked_at": days_ago(100 - i),
    }  # fmt: skip
    return LedgerEntry(**facts | changes)


def version(i: int, *aliases: str) -> ModelVersion:
    lineage = {"dataset": f"f{i}", "study": f"toy/classical/f{i}/q", "run": f"Flow/{i}"}
    return ModelVersion(name="toy", version=i, created_at=days_ago(100 - i), aliases=aliases, lineage=lineage)


def run(i: int) -> RunFiles:
    return RunFiles("Flow", str(i), days_ago(100 - i))


def source(i: int, *studies: str) -> Source:
    return Source(f"f{i}", days_ago(100 - i), studies)


def chain(i: int) -> ChainFiles:
    return ChainFiles(f"f{i}", days_ago(100 - i))


def pruned(kept: int = 2, days: int = 30, champions: Sequence[str] = (), **changes: Any) -> dict[str, list[str]]:
    """What goes of ten nights, of which each made a dataset version, a study of a source, a version, a run, a chain."""
    nights: dict[str, Any] = {
        "datasets": [dataset(i) for i in reversed(range(N))],
        "studies": [study(i) for i in range(N)],
        "versions": [version(i) for i in range(N)],
        "sources": [source(i, f"toy/classical/f{i}/q") for i in range(N)],
        "runs": [run(i) for i in range(N)],
        "chains": [chain(i) for i in range(N)],
    }
    found = surplus(Holdings(**nights | changes), RetentionConfig(versions=kept, days=days), NOW, champions)
    return {
        "datasets": sorted(ref.fingerprint for ref in found.datasets),
        "studies": sorted(entry.fingerprint for entry in found.studies),
        "versions": sorted(f"f{v.version}" for v in found.versions),
        "sources": sorted(s.hash for s in found.sources),
        "runs": sorted(f"f{r.id}" for r in found.runs),
        "chains": sorted(c.id for c in found.chains),
    }


def nights(*numbers: int) -> list[str]:
    return [f"f{i}" for i in numbers]


def test_the_newest_are_kept_and_the_studies_that_the_next_one_learns_from() -> None:
    assert pruned() == {
        "datasets": nights(*range(8)),
        "studies": nights(*range(7)),  # the third newest is an earlier study yet
        "versions": nights(*range(8)),
        "sources": nights(*range(7)),
        "runs": nights(*range(7)),
        "chains": nights(*range(8)),
    }


def test_what_is_young_is_kept() -> None:
    young = pruned(days=95)
    assert [*young.values()] == [nights(*range(6))] * 6
    assert not any(pruned(days=101).values())


@pytest.mark.parametrize("alias", ["champion", "challenger", "shadow"])
def test_an_alias_keeps_a_version_with_its_study_its_source_its_rows_and_its_run(alias: str) -> None:
    found = pruned(versions=[version(i, *([alias] if i == 1 else [])) for i in range(N)])
    del found["chains"]
    assert all("f1" not in names and "f0" in names for names in found.values())


def test_what_was_champion_once_is_kept_as_whole_for_a_rollback() -> None:
    found = pruned(champions=["models:/toy/1"])
    del found["chains"]
    assert all("f1" not in names and "f0" in names for names in found.values())


@pytest.mark.parametrize(("state", "stays"), [("claimed", True), ("due", True), ("failed", False)])
def test_an_unfinished_study_keeps_its_rows(state: Any, stays: bool) -> None:
    found = pruned(studies=[study(i, **({"state": state} if i == 1 else {})) for i in range(N)])
    assert ("f1" not in found["studies"]) is stays
    assert ("f1" not in found["datasets"]) is stays


def test_each_variant_and_each_flow_keeps_its_own_newest() -> None:
    assert "f0" not in pruned(studies=[study(0, "deep"), *(study(i) for i in range(1, N))])["studies"]
    runs = [RunFiles("Other", "0", days_ago(100)), *(run(i) for i in range(1, N))]
    assert "f0" not in pruned(runs=runs)["runs"]


def test_a_running_run_stays_however_old_it_is() -> None:
    assert "f0" not in pruned(runs=[RunFiles("Flow", "0", None), *(run(i) for i in range(1, N))])["runs"]


def test_a_running_chain_stays_however_old_it_is() -> None:
    assert "f0" not in pruned(chains=[ChainFiles("f0", None), *(chain(i) for i in range(1, N))])["chains"]


@pytest.mark.parametrize(
    ("studies", "goes"),
    [
        ((), True),
        (("toy/classical/f0/q", "toy/classical/f1/q"), True),
        (("toy/classical/f0/q", "toy/classical/f9/q"), False),  # one of them stays
        (("toy/classical/f0/q", "other/deep/f0/q"), False),  # another use case has the same objective
    ],
)
def test_a_source_goes_with_the_last_study_that_names_it(studies: tuple[str, ...], goes: bool) -> None:
    assert bool(pruned(sources=[source(0, *studies)])["sources"]) is goes


@pytest.mark.parametrize(
    ("versions", "goes"),
    [
        (("models:/toy/0",), True),
        (("models:/toy/0", "models:/toy/9"), False),  # a system that stays has a member of it
        (("models:/other/0",), False),  # what another use case holds isn't known here
    ],
)
def test_a_source_stays_while_a_version_that_was_made_by_it_does(versions: tuple[str, ...], goes: bool) -> None:
    assert bool(pruned(sources=[replace(source(0), versions=versions)])["sources"]) is goes


def test_where_there_is_nothing_nothing_goes() -> None:
    assert not surplus(Holdings(), RetentionConfig(), NOW)
