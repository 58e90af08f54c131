"""What is pruned: only what no model version, no unfinished study and no rule of [retention] needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.config import RetentionConfig
from shared.domain import DatasetRef, ModelVersion, Table
from shared.flow.retention import Holdings, RunFiles, surplus
from shared.storage.ledger import LedgerEntry

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


def pruned(kept: int = 2, days: int = 30, **changes: Any) -> dict[str, list[str]]:
    """What goes of ten nights, of which each made a dataset version, a study, a model version and a run."""
    nights: dict[str, Any] = {
        "datasets": [dataset(i) for i in reversed(range(N))],
        "studies": [study(i) for i in range(N)],
        "versions": [version(i) for i in range(N)],
        "runs": [run(i) for i in range(N)],
    }
    found = surplus(Holdings(**nights | changes), RetentionConfig(versions=kept, days=days), NOW)
    return {
        "datasets": sorted(ref.fingerprint for ref in found.datasets),
        "studies": sorted(entry.fingerprint for entry in found.studies),
        "versions": sorted(f"f{v.version}" for v in found.versions),
        "runs": sorted(f"f{r.id}" for r in found.runs),
    }


def nights(*numbers: int) -> list[str]:
    return [f"f{i}" for i in numbers]


def test_the_newest_are_kept_and_the_studies_that_the_next_one_learns_from() -> None:
    assert pruned() == {
        "datasets": nights(*range(8)),
        "studies": nights(*range(7)),  # the third newest is an earlier study yet
        "versions": nights(*range(8)),
        "runs": nights(*range(7)),
    }


def test_what_is_young_is_kept() -> None:
    assert pruned(days=95) == {kind: nights(*range(6)) for kind in ("datasets", "studies", "versions", "runs")}
    assert not any(pruned(days=101).values())


@pytest.mark.parametrize("alias", ["champion", "challenger", "shadow"])
def test_an_alias_keeps_a_version_with_its_study_its_rows_and_its_run(alias: str) -> None:
    versions = [version(i, *([alias] if i == 1 else [])) for i in range(N)]
    assert all("f1" not in names and "f0" in names for names in pruned(versions=versions).values())


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


def test_where_there_is_nothing_nothing_goes() -> None:
    assert not surplus(Holdings(), RetentionConfig(), NOW)
