"""What a chain led to, read from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.flow.plan import newest_done
from shared.registry import history

if TYPE_CHECKING:
    from shared.events.chain import Chain
    from shared.storage.ledger import LedgerEntry, Promotion


@dataclass(frozen=True)
class Summary:
    """The newest finished study of each variant, the gate's last decision, and the version that is served.

    champion: how it was promoted; None where the promotion log doesn't say so of `live`. score: of it, at the gate.
    """

    studies: tuple[LedgerEntry, ...]
    decision: Promotion | None
    live: int | None
    champion: Promotion | None
    score: float | None = None

    @property
    def metric(self) -> str:
        return str(self.studies[-1].outcome.get("metric", "score")) if self.studies else "score"

    def finished_by(self, chain: Chain) -> bool:
        """Whether a run of the chain finished one of the studies; else nothing was due."""
        runs = {flow.run for flow in chain.flows.values()}
        return any(study.run in runs for study in self.studies)


def summarize(entries: Sequence[LedgerEntry], promotions: Sequence[Promotion], live: int | None) -> Summary:
    """What the ledger knows of a use case. Promotions come oldest first; live: what the registry says is champion."""
    latest, gated = history.latest(promotions), history.gate(promotions, live) if live else None
    return Summary(
        studies=tuple(newest_done(entries).values()),
        decision=next((p for p in reversed(promotions) if p.kind == "gate"), None),
        live=live,
        champion=latest if latest and latest.version == live else None,
        score=gated.figures.get("challenger") if gated else None,
    )
