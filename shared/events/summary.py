"""What a chain led to, read from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.domain import Variant

if TYPE_CHECKING:
    from shared.events.chain import Chain
    from shared.storage.ledger import LedgerEntry, Promotion


@dataclass(frozen=True)
class Summary:
    """The newest finished study of each variant, the champion, and the decision that the chain's gate took, if any."""

    studies: tuple[LedgerEntry, ...]
    champion: Promotion | None
    decision: Promotion | None
    tuned: bool

    @property
    def metric(self) -> str:
        return str(self.studies[-1].outcome.get("metric", "score")) if self.studies else "score"


def summarize(chain: Chain | None, entries: Sequence[LedgerEntry], promotions: Sequence[Promotion]) -> Summary:
    """What the ledger knows after a chain. Promotions come oldest first.

    `tuned`: a run of this chain has finished a study; else nothing was due.
    """
    runs = {flow.run for flow in chain.flows.values()} if chain else set()
    newest = newest_done(entries)
    promoted = [p for p in promotions if p.promoted]
    decided = [p for p in promotions if p.actor in runs]
    return Summary(
        studies=tuple(newest.values()),
        champion=promoted[-1] if promoted else None,
        decision=decided[-1] if decided else None,
        tuned=any(entry.run in runs for entry in newest.values()),
    )


def newest_done(entries: Sequence[LedgerEntry]) -> dict[Variant, LedgerEntry]:
    """The study of each variant that finished last."""
    done = sorted((e for e in entries if e.state == "done"), key=lambda e: e.updated_at)
    by_variant = {entry.variant: entry for entry in done}
    order: tuple[Variant, ...] = ("classical", "deep", "system")
    return {variant: by_variant[variant] for variant in order if variant in by_variant}
