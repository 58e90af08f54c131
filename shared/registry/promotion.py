"""Acting on the gate's decision: under a lock, compare-and-set on the alias `champion`, then the promotion log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from shared.domain import PromotionDecision
from shared.errors import RegistryError
from shared.registry import client
from shared.storage.database import connect
from shared.storage.ledger import Ledger

logger = logging.getLogger(__name__)

# One process at a time decides on the champion of a registered model; the lock ends with the connection.
LOCK = "SELECT pg_advisory_lock(hashtextextended('evertune.promotion/' || %(name)s, 0))"

FOUND = PromotionDecision(
    promote=True,
    reason="it was found as champion: its run died before it could log that, or somebody moved the alias",
)


def promote(name: str, version: int, decision: PromotionDecision, *, seen: int | None, actor: str) -> bool:
    """Carry out a decision and log it; whether `version` is the champion now. Repeating it changes nothing.

    name: the registered model of a use case, which is named like it.
    seen: version of the champion that the decision was made against; None: there was none.
    actor: who decided: the pathspec of a run, or a person.

    Raises:
        RegistryError: another version has become champion since.
    """
    with _locked(name):
        current = client.champion(name)
        live = None if current is None else current.version
        if live is not None and live != version:
            _log_unknown(name, live)
        if decision.promote and live != version:
            if live != seen:
                raise RegistryError(
                    f"{name}: version {version} was compared with {_said(seen)}, but the champion is {_said(live)} "
                    "by now; compare it with that one, by running SystemTuneFlow again"
                )
            if live is not None:
                client.set_alias(name, client.PREVIOUS, live)
            client.set_alias(name, client.CHAMPION, version)
        if not _is_logged(name, version, decision, seen):
            Ledger().log_promotion(name, version, seen, decision, actor)
            logger.info("promotion decided", extra={"model": name, "version": version, "promoted": decision.promote})
    return decision.promote


def _said(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _log_unknown(name: str, live: int) -> None:
    """Log the champion first if the log knows another one, so that no champion is missing from it."""
    promoted = [p.version for p in Ledger().promotions(name) if p.promoted]
    known = promoted[-1] if promoted else None
    if live != known:
        Ledger().log_promotion(name, live, known, FOUND, "unknown")


def _is_logged(name: str, version: int, decision: PromotionDecision, seen: int | None) -> bool:
    """Whether this decision is the last one in the log: a step that is retried has made it before."""
    last = next(reversed(Ledger().promotions(name)), None)
    return last is not None and (last.version, last.promoted, last.previous) == (version, decision.promote, seen)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with connect() as connection:
        connection.execute(LOCK, {"name": name})
        yield
