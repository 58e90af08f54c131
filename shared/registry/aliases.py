"""Where the aliases of registered models stand, and the one way to move them."""

from __future__ import annotations

import logging

from shared.errors import RegistryError
from shared.registry.store import ask

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"


def of(name: str) -> dict[str, int]:
    """Version by alias; empty where there is no such model.

    Raises:
        RegistryError, ServiceError: the registry can't be reached.
    """
    return ask(lambda way: way.aliases(name))


def champion(name: str) -> int | None:
    """The version that is served; None: there is none yet."""
    return of(name).get(CHAMPION)


def version_of(name: str, given: str) -> int:
    """The version that a person means by its number or by an alias.

    Raises:
        RegistryError: there is none.
    """
    at = of(name)
    version = int(given) if given.isdecimal() else at.get(given)
    if version is None or not has_version(name, version):
        known = ", ".join(f"{alias} ({number})" for alias, number in at.items())
        raise RegistryError(
            f"{name} has versions, by number, and aliases: {known or 'none'}; but {given!r} is none of them; "
            "`evertune models list` shows all"
        )
    return version


def has_version(name: str, version: int) -> bool:
    """Whether an alias can stand at a version: it was registered, and isn't deleted."""
    return ask(lambda way: way.registered(name, version)) is not None


def point(name: str, alias: str, version: int) -> None:
    """Let an alias stand at a version. The champion is moved by `promotion`, which locks and keeps the log.

    Raises:
        RegistryError: there is no such version.
    """
    ask(lambda way: way.set_alias(name, alias, version))
    logger.info("alias moved", extra={"model": name, "alias": alias, "version": version})


def remove(name: str, alias: str) -> None:
    """Take an alias away; nothing happens where it stands at no version."""
    ask(lambda way: way.delete_alias(name, alias))
