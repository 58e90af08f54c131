"""What a chain led to, read from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.flow.plan import newest_done

if TYPE_CHECKING:
    from shared.events.chain import Chain
    from shared.storage.ledger import LedgerEntry, Promotion


@dataclass(frozen=True)
class Summary:
    """The newest finished study of each variant, the gate's last decision, and the version that is served.

    champion: how it was promoted; None where the promotion log doesn't say so of `live`.
    """

    studies: tuple[LedgerEntry, ...]
    decision: Promotion | None
    live: int | None
    champion: Promotion | None

    @property
    def metric(self) -> str:
        return str(self.studies[-1].outcome.get("metric", "score")) if self.studies else "score"

    def finished_by(self, chain: Chain) -> bool:
        """Whether a run of the chain finished one of the studies; else nothing was due."""
        runs = {flow.run for flow in chain.flows.values()}
        return any(study.run in runs for study in self.studies)


def summarize(entries: Sequence[LedgerEntry], promotions: Sequence[Promotion], live: int | None) -> Summary:
    """What the ledger knows of a use case. Promotions come oldest first; live: what the registry says is champion."""
    promoted = [p for p in promotions if p.promoted]
    return Summary(
        studies=tuple(newest_done(entries).values()),
        decision=promotions[-1] if promotions else None,
        live=live,
        champion=promoted[-1] if promoted and promoted[-1].version == live else None,
    )
