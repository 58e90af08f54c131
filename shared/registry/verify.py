"""Whether the promotion log and the registry say the same, and what they say is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shared.domain import model_names
from shared.errors import RegistryError
from shared.registry import aliases, client, history, promotion
from shared.storage.ledger import Ledger


@dataclass(frozen=True)
class Finding:
    """A point that was looked at. wrong: it isn't as it should be, and a person has to see to it."""

    text: str
    wrong: bool = False


def verify(use_case: str) -> Iterator[Finding]:
    """Let log and registry agree, and look whether what has an alias can be served, the members' models too.

    Raises:
        RegistryError, ServiceError: the registry or the database can't be reached.
    """
    yield from agreement(use_case)
    for name in model_names(use_case):
        for alias, version in sorted(aliases.of(name).items()):
            yield _files(name, alias, version)


def agreement(name: str) -> Iterator[Finding]:
    """Carry out what a crash has left, log what was moved by hand, and say what log and registry have in common.

    name: the registered model of a use case.
    """
    before = Ledger().promotions(name)
    promotion.log_champion(name)
    log, at = Ledger().promotions(name), aliases.of(name)
    yield from _mended(before, log)
    yield _champion(name, at.get(aliases.CHAMPION), log)
    yield from _previous(name, at, log)


def _mended(before: history.Log, log: history.Log) -> Iterator[Finding]:
    left = {entry.id for entry in history.pending(before)}
    known = {entry.id for entry in before}
    for entry in log:
        if entry.id in left:
            void = "void, since the alias was moved by hand meanwhile, or the version deleted"
            how = "carried out now" if entry.took_place else void
            yield Finding(f"the promotion of version {entry.version} by {entry.actor} was interrupted: {how}")
        elif entry.id not in known and entry.kind == "found":
            yield Finding(f"{entry.actor} has made version {entry.version} champion: logged now")


def _champion(name: str, live: int | None, log: history.Log) -> Finding:
    known = history.champion(log)
    if live is None and known is None:
        return Finding("there is no champion yet")
    if live == known:
        return Finding(f"version {live} is champion, as the log says")
    return Finding(
        f"the log knows version {known} as champion, but the alias is gone: somebody has deleted it, or the version; "
        f"`evertune models rollback {name}` sets it again",
        wrong=True,
    )


def _previous(name: str, at: dict[str, int], log: history.Log) -> Iterator[Finding]:
    """`promotion` lets it stand at the nearest one that is still there."""
    found, line = at.get(aliases.PREVIOUS), history.before(log, at.get(aliases.CHAMPION))
    if found is not None and found in line:
        yield Finding(f"version {found} is where a rollback leads to, as the log says")
        return
    there = [version for version in line if aliases.has_version(name, version)]
    if found is not None or there:
        stands = "is gone" if found is None else f"stands at version {found}"
        leads = f"a rollback leads to version {there[0]}" if there else "there is nothing to go back to"
        yield Finding(
            f"the alias `previous` {stands}, but by the log {leads}: somebody moves it by hand; "
            f"`evertune models verify {name}` puts it right",
            wrong=True,
        )


def _files(name: str, alias: str, version: int) -> Finding:
    what = f"{name}@{alias}, version {version}"
    try:
        bytecode = client.check(client.version(name, version))
    except RegistryError as err:
        return Finding(f"{what}: {err}", wrong=True)
    except ImportError as err:
        why = f"all packages that it needs must be installed here, but {err}; do this where they are, or install them"
        return Finding(f"{what}: {why}", wrong=True)
    deleted = (
        f"; {', '.join(bytecode)}: deleted, since MLflow runs it unread; Python makes it again" if bytecode else ""
    )
    return Finding(f"{what}: its files are there, and load{deleted}")
