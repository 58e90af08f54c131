"""Puts studies on record by the ledger's own transitions, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.domain import Variant
from shared.storage import claims
from shared.storage.ledger import Ledger, LedgerEntry


def finish(
    name: str,
    outcome: Mapping[str, Any],
    run: str = "r",
    *,
    use_case: str = "digits",
    variant: Variant = "classical",
    fingerprint: str = "aaaa",
) -> LedgerEntry:
    """A study that a run has begun and done."""
    budget = int(outcome.get("budget", 1))
    Ledger().begin(name, use_case, variant, fingerprint, budget=budget, run=run)
    claims.conclude(name, budget, run, make=lambda: outcome, publish=lambda _: None)
    entry = Ledger().entry(name)
    assert entry is not None
    return entry
