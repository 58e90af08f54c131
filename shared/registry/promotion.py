"""Moving the alias `champion`: decided and logged first, then carried out, by one process at a time.

A promotion is a row in the promotion log, then the alias, then a row that says so. Whoever takes the lock next carries
out what a crash has left, and logs what somebody has moved in the registry itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from shared.domain import ModelVersion, PromotionDecision
from shared.errors import RegistryError
from shared.registry import aliases, history
from shared.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS
from shared.storage.alias_lock import locked
from shared.storage.ledger import Kind, Ledger, Promotion

logger = logging.getLogger(__name__)

FOUND = PromotionDecision(promote=True, reason="somebody has moved the alias in the registry itself")
ELSEWHERE = "somebody outside of Evertune"


class ChampionMovedError(RegistryError):
    """A decision was made against a champion of the past, or somebody has moved the alias while it was carried out."""


def settle(
    name: str, version: int, judge: Callable[[ModelVersion | None], PromotionDecision], *, actor: str
) -> Promotion:
    """The gate's decision on a version: made once, however often and by how many runs at once it is asked for.

    judge: compares the version with the champion; asked again where that has moved on meanwhile.

    Raises:
        RegistryError: the registry can't be reached, or refuses.
    """
    from shared.registry import client

    while (known := decision_on(name, version)) is None:
        seen = aliases.champion(name)
        champion = None if seen is None else client.version(name, seen)
        try:
            promote(name, version, judge(champion), seen=seen, actor=actor)
        except ChampionMovedError as moved:
            logger.warning("champion moved meanwhile", extra={"model": name, "version": version, "reason": str(moved)})
    return known


def decision_on(name: str, version: int) -> Promotion | None:
    """What was decided of a version, if it was, and carried out. It is decided on once: one rolled back stays so."""
    with locked(name):
        _, log = _agree(name)
    return history.decision(log, version)


def point_challenger(name: str) -> None:
    """Let the alias `challenger` stand at the version that a study on the newest dataset version led to.

    What the ledger says counts, not who comes last: a run that was late points to the same version.
    """
    with locked(name):
        newest = Ledger().newest_version(name)
        current = aliases.of(name).get(CHALLENGER)
        if newest is None and current is not None:
            aliases.remove(name, CHALLENGER)
        elif newest is not None and current != newest:
            aliases.point(name, CHALLENGER, newest)


def log_champion(name: str) -> None:
    """Let log and registry agree: carry out what a crash has left, log a champion that the log doesn't know."""
    with locked(name):
        _agree(name)


def promote(
    name: str, version: int, decision: PromotionDecision, *, seen: int | None, actor: str, kind: Kind = "gate"
) -> bool:
    """Log a decision and carry it out; whether `version` was promoted. The gate decides once: later ones are void.

    name: the registered model of a use case, which is named like it.
    seen: version of the champion that the decision was made against; None: there was none.
    actor: who decided: the pathspec of a run, or a person.

    Raises:
        ChampionMovedError: another version has become champion since, or does so in this moment.
        RegistryError: the registry has no such version.
    """
    with locked(name):
        live, log = _agree(name)
        if kind == "gate" and (known := history.decision(log, version)):
            return known.took_place
        if decision.promote and live != seen:
            raise ChampionMovedError(_moved(name, version, seen, live, history.latest(log)))
        if decision.promote and not aliases.has_version(name, version):
            raise RegistryError(f"what is promoted must be in the registry, but {name} has no version {version} there")
        return _decide(name, version, live, decision, actor, kind).took_place


def rollback(name: str, to: int | None = None, *, reason: str = "", actor: str) -> Promotion:
    """Let a version that was champion before be it again, by default the one before; how that was logged.

    Raises:
        ChampionMovedError: somebody has moved the alias elsewhere in this moment.
        RegistryError: there is no such version; the message lists those that there are.
    """
    with locked(name):
        live, log = _agree(name)
        others = [version for version in history.champions(log) if version != live]
        wanted = history.before(log, live) if to is None else [version for version in others if version == to]
        target = _first_there(name, wanted)
        if target is None:
            raise RegistryError(_no_rollback(name, to, live, [v for v in others if aliases.has_version(name, v)]))
        decision = PromotionDecision(promote=True, reason=reason or f"rolled back from {_said(live)}")
        return _decide(name, target, live, decision, actor, "rollback")


def retire(version: ModelVersion) -> bool:
    """Delete a version, unless an alias stands at it by now; whether it was deleted.

    Its files go last and without the lock, which a slow bucket would hold up: no alias can stand at it any more.
    """
    from shared.registry import client

    with locked(version.name):
        _agree(version.name)
        if version.version in aliases.of(version.name).values():
            return False
        location = client.delete_version(version)
    client.delete_files(location)
    return True


def _decide(
    name: str, version: int, live: int | None, decision: PromotionDecision, actor: str, kind: Kind
) -> Promotion:
    """Log a decision, and carry it out; how that was logged.

    Raises:
        ChampionMovedError: the champion is another one afterwards.
    """
    id = Ledger().log_promotion(name, version, live, decision, actor, kind)
    logger.info("promotion decided", extra={"model": name, "version": version, "promoted": decision.promote})
    live, log = _agree(name)
    if decision.promote and live != version:
        raise ChampionMovedError(_overtaken(name, version, live, history.latest(log)))
    return next(entry for entry in log if entry.id == id)


def _agree(name: str) -> tuple[int | None, history.Log]:
    """Carry out what is logged, and log what is found; champion and log, which agree afterwards."""
    ledger, at = Ledger(), aliases.of(name)
    log, live = ledger.promotions(name), at.get(CHAMPION)
    if pending := history.pending(log):
        for promotion in pending:
            live = _carry_out(promotion, live)
        return _agree(name)
    if live is not None and live != history.champion(log):
        ledger.log_promotion(name, live, history.champion(log), FOUND, ELSEWHERE, "found")
        return _agree(name)
    _point_previous(name, history.before(log, live), at.get(PREVIOUS))
    return live, log


def _carry_out(promotion: Promotion, live: int | None) -> int | None:
    """Move the alias, unless somebody has moved it elsewhere meanwhile; the champion afterwards."""
    name, version = promotion.use_case, promotion.version
    outcome = history.outcome(promotion, live, exists=aliases.has_version(name, version))
    if outcome == "moved" and live != version:
        aliases.point(name, CHAMPION, version)
    Ledger().settle_promotion(promotion.id, outcome)
    return version if outcome == "moved" else live


def _point_previous(name: str, candidates: list[int], current: int | None) -> None:
    """Let the alias `previous` stand where a rollback leads to."""
    wanted = current if candidates[:1] == [current] else _first_there(name, candidates)
    if wanted is None and current is not None:
        aliases.remove(name, PREVIOUS)
    elif wanted is not None and wanted != current:
        aliases.point(name, PREVIOUS, wanted)


def _first_there(name: str, versions: list[int]) -> int | None:
    return next((version for version in versions if aliases.has_version(name, version)), None)


def _said(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _moved(name: str, version: int, seen: int | None, live: int | None, latest: Promotion | None) -> str:
    return (
        f"{name}: version {version} was compared with {_said(seen)}, but {_by_now(live, latest)}; compare it with that "
        f"one, by running SystemTuneFlow again or by `evertune models compare {name} {version}`"
    )


def _overtaken(name: str, version: int, live: int | None, latest: Promotion | None) -> str:
    why = _by_now(live, latest) if aliases.has_version(name, version) else "somebody has deleted it in this moment"
    return (
        f"{name}: version {version} was to be champion, but {why}; `evertune models list {name}` shows what there is: "
        "agree with who has done so, and do this again if need be"
    )


def _by_now(live: int | None, latest: Promotion | None) -> str:
    by = f", moved by {latest.actor}" if latest and latest.version == live else ""
    return f"the champion is {_said(live)} by now{by}"


def _no_rollback(name: str, to: int | None, live: int | None, valid: list[int]) -> str:
    if to is None:
        broken = f"{_said(live)} is the only champion in its line" if live else "there never was one"
    else:
        broken = f"version {to} is the champion already" if to == live else f"version {to} never was, or is deleted"
    others = ", ".join(map(str, valid))
    remedy = f"name another one: --to {others}" if valid else f"`evertune models list {name}` shows what there is"
    return f"{name}: a rollback leads to a version that was champion before, but {broken}; {remedy}"
