"""What a use case has gathered, and what of it nobody needs any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from shared.flow.plan import EARLIER_STUDIES

if TYPE_CHECKING:
    from shared.config import RetentionConfig
    from shared.domain import DatasetRef, ModelVersion
    from shared.storage.ledger import LedgerEntry
    from shared.storage.sources import Source

Item = TypeVar("Item")


@dataclass(frozen=True)
class RunFiles:
    """A run of a flow on this machine. `finished`: None while it may still be running."""

    flow: str
    id: str
    finished: datetime | None

    @property
    def pathspec(self) -> str:
        return f"{self.flow}/{self.id}"


@dataclass(frozen=True)
class ChainFiles:
    """The record and the logs of a chain on this machine. `finished`: None while it is running."""

    id: str
    finished: datetime | None


@dataclass(frozen=True)
class Holdings:
    """What there is of a use case. `datasets` are the newest first; `sources` are those of all use cases."""

    datasets: Sequence[DatasetRef] = ()
    studies: Sequence[LedgerEntry] = ()
    versions: Sequence[ModelVersion] = ()
    sources: Sequence[Source] = ()
    runs: Sequence[RunFiles] = ()
    chains: Sequence[ChainFiles] = ()

    def __bool__(self) -> bool:
        return any(vars(self).values())


@dataclass(frozen=True)
class Kept:
    """Names of what is needed."""

    fingerprints: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    chains: set[str] = field(default_factory=set)


def surplus(holdings: Holdings, retention: RetentionConfig, now: datetime, champions: Collection[str] = ()) -> Holdings:
    """What is kept for no reason.

    champions: URIs of the versions that were champion once, to which a rollback may lead.

    Reasons of a model version: an alias stands at it; it was champion once; it is one of the newest of its registered
    model. Of a study: a kept version came of it; it isn't finished; the next study of its variant learns from it; its
    dataset version is one of the newest. Of a dataset version: it is one of the newest; a kept version or an unfinished
    study is on it. Of a run: something kept came of it; it is running; it is one of the newest of its flow. Of an
    objective's source: a kept study names it; a kept version was made by it. Of a chain: it is running; it is one of
    the newest. And of all: it is young.
    """
    kept = needed(holdings, retention, now, champions)
    return Holdings(
        datasets=[d for d in holdings.datasets if d.fingerprint not in kept.fingerprints],
        studies=[s for s in holdings.studies if s.study not in kept.studies],
        versions=[v for v in holdings.versions if v.uri not in kept.versions],
        sources=[s for s in holdings.sources if s.hash not in kept.sources],
        runs=[r for r in holdings.runs if r.pathspec not in kept.runs],
        chains=[c for c in holdings.chains if c.id not in kept.chains],
    )


def needed(holdings: Holdings, retention: RetentionConfig, now: datetime, champions: Collection[str] = ()) -> Kept:
    """What `surplus` leaves."""
    young = now - timedelta(days=retention.days)
    versions = [
        *(v for v in holdings.versions if v.aliases or v.uri in champions),
        *(v for v in holdings.versions if v.created_at is None or v.created_at > young),
        *_newest(holdings.versions, retention.versions, lambda v: v.name, lambda v: v.version),
    ]
    recent = {
        *(d.fingerprint for d in holdings.datasets[: retention.versions]),
        *(d.fingerprint for d in holdings.datasets if d.created_at > young),
    }
    unfinished = [s for s in holdings.studies if s.state in ("due", "claimed")]
    studies = [
        *unfinished,
        *(s for s in holdings.studies if s.fingerprint in recent or s.asked_at > young),
        *(s for s in holdings.studies if s.study in {v.lineage.get("study") for v in versions}),
        *_newest(
            [s for s in holdings.studies if s.state == "done"],
            EARLIER_STUDIES,
            lambda s: s.variant,
            lambda s: s.asked_at,
        ),
    ]
    runs = [
        *(r for r in holdings.runs if r.finished is None or r.finished > young),
        *_newest(holdings.runs, retention.versions, lambda r: r.flow, lambda r: r.id),
    ]
    chains = [
        *(c for c in holdings.chains if c.finished is None or c.finished > young),
        *sorted(holdings.chains, key=lambda c: c.id)[-retention.versions :],
    ]
    made = [version.lineage for version in versions]
    doomed = {s.study for s in holdings.studies} - {s.study for s in studies}
    pruned = {v.uri for v in holdings.versions} - {v.uri for v in versions}
    return Kept(
        fingerprints=recent | {s.fingerprint for s in unfinished} | {facts.get("dataset", "") for facts in made},
        studies={s.study for s in studies},
        versions={v.uri for v in versions},
        sources={
            s.hash
            for s in holdings.sources
            if s.saved_at > young or set(s.studies) - doomed or set(s.versions) - pruned
        },
        chains={c.id for c in chains},
        runs={r.pathspec for r in runs} | {s.run for s in studies if s.run} | {facts.get("run", "") for facts in made},
    )


def _newest(items: Iterable[Item], n: int, group: Any, age: Any) -> list[Item]:
    """The newest `n` of each group."""
    groups: dict[Any, list[Item]] = defaultdict(list)
    for item in sorted(items, key=age, reverse=True):
        groups[group(item)].append(item)
    return [item for members in groups.values() for item in members[:n]]
