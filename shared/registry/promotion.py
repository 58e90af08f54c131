"""Acting on the gate's decision: under a lock, compare-and-set on the alias `champion`, then the promotion log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.domain import ModelVersion, PromotionDecision
from shared.errors import RegistryError
from shared.registry import client
from shared.storage.database import connect
from shared.storage.ledger import Ledger, Promotion

logger = logging.getLogger(__name__)

# One process at a time moves the aliases of a registered model; the lock ends with the connection.
LOCK = "SELECT pg_advisory_lock(hashtextextended('evertune.promotion/' || %(name)s, 0))"

FOUND = PromotionDecision(
    promote=True,
    reason="it was found as champion: its run died before it could log that, or somebody moved the alias",
)


class ChampionMovedError(RegistryError):
    """A decision was made against a champion of the past."""


def settle(
    name: str, version: int, judge: Callable[[ModelVersion | None], PromotionDecision], *, actor: str
) -> Promotion:
    """The gate's decision on a version: made once, however often and by how many runs at once it is asked for.

    judge: compares the version with the champion; asked again where that has moved on meanwhile.

    Raises:
        RegistryError: the registry can't be reached, or refuses.
    """
    while (known := decision_on(name, version)) is None:
        champion = client.champion(name)
        if champion and champion.version == version:  # a run has died before it could log that
            log_champion(name)
            continue
        seen = champion.version if champion else None
        try:
            promote(name, version, judge(champion), seen=seen, actor=actor)
        except ChampionMovedError as moved:
            logger.warning("gate asked again", extra={"model": name, "version": version, "reason": str(moved)})
    return known


def decision_on(name: str, version: int) -> Promotion | None:
    """The gate's decision on a version, if it was made. A version that later was moved by hand has more entries."""
    return next((p for p in Ledger().promotions(name) if p.version == version), None)


def point_challenger(name: str) -> None:
    """Let the alias `challenger` stand at the version that a study on the newest dataset version led to.

    What the ledger says counts, not who comes last: a run that was late points to the same version.
    """
    with _locked(name):
        newest = Ledger().newest_version(name)
        current = client.by_alias(name, client.CHALLENGER)
        if newest is None and current:
            client.delete_alias(name, client.CHALLENGER)
        elif newest is not None and (current is None or current.version != newest):
            client.set_alias(name, client.CHALLENGER, newest)


def log_champion(name: str) -> None:
    """Log the champion if the log knows another one: its run died before it could, or somebody moved the alias."""
    with _locked(name):
        if live := client.champion(name):
            _log_unknown(name, live.version)


def promote(name: str, version: int, decision: PromotionDecision, *, seen: int | None, actor: str) -> bool:
    """Carry out a decision and log it, unless one was made before; whether `version` was promoted.

    name: the registered model of a use case, which is named like it.
    seen: version of the champion that the decision was made against; None: there was none.
    actor: who decided: the pathspec of a run, or a person.

    Raises:
        ChampionMovedError: another version has become champion since.
    """
    with _locked(name):
        if known := decision_on(name, version):
            return known.promoted
        current = client.champion(name)
        live = None if current is None else current.version
        if live is not None and live != version:
            _log_unknown(name, live)
        if decision.promote and live != version:
            if live != seen:
                raise ChampionMovedError(
                    f"{name}: version {version} was compared with {_said(seen)}, but the champion is {_said(live)} "
                    "by now; compare it with that one, by running SystemTuneFlow again"
                )
            if live is not None:
                client.set_alias(name, client.PREVIOUS, live)
            client.set_alias(name, client.CHAMPION, version)
        Ledger().log_promotion(name, version, seen, decision, actor)
        logger.info("promotion decided", extra={"model": name, "version": version, "promoted": decision.promote})
    return decision.promote


def retire(version: ModelVersion) -> bool:
    """Delete a version, unless an alias stands at it by now; whether it was deleted."""
    with _locked(version.name):
        held = client.version(version.name, version.version).aliases
        if not held:
            client.delete_version(version)
    return not held


def _said(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _log_unknown(name: str, live: int) -> None:
    """Log the champion first if the log knows another one, so that no champion is missing from it."""
    promoted = [p.version for p in Ledger().promotions(name) if p.promoted]
    known = promoted[-1] if promoted else None
    if live != known:
        Ledger().log_promotion(name, live, known, FOUND, "unknown")


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with connect() as connection:
        connection.execute(LOCK, {"name": name})
        yield
