"""Where the aliases of registered models stand, and the one way to move them.

MLflow takes seconds to import. So its tables, or its server, are asked directly where that can be, and its own client
where not: another kind of store, a schema that isn't known here, a server that wants other credentials.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Protocol, TypeVar

from shared.errors import RegistryError, ServiceError
from shared.settings import settings

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
WORKSPACES = ("MLFLOW_WORKSPACE", "MLFLOW_ENABLE_WORKSPACES")  # which the direct ways know nothing of

Answer = TypeVar("Answer")


class Store(Protocol):
    """One way to the registry."""

    def aliases(self, name: str) -> dict[str, int]: ...
    def has_version(self, name: str, version: int) -> bool: ...
    def set_alias(self, name: str, alias: str, version: int) -> None: ...
    def delete_alias(self, name: str, alias: str) -> None: ...


def of(name: str) -> dict[str, int]:
    """Version by alias; empty where there is no such model.

    Raises:
        RegistryError, ServiceError: the registry can't be reached.
    """
    return _ask(lambda store: store.aliases(name))


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
    return _ask(lambda store: store.has_version(name, version))


def point(name: str, alias: str, version: int) -> None:
    """Let an alias stand at a version. The champion is moved by `promotion`, which locks and keeps the log.

    Raises:
        RegistryError: there is no such version.
    """
    _ask(lambda store: store.set_alias(name, alias, version))
    logger.info("alias moved", extra={"model": name, "alias": alias, "version": version})


def remove(name: str, alias: str) -> None:
    """Take an alias away; nothing happens where it stands at no version."""
    _ask(lambda store: store.delete_alias(name, alias))


def _ask(question: Callable[[Store], Answer]) -> Answer:
    if (direct := _direct()) is not None:
        try:
            return question(direct)
        except ServiceError as err:
            logger.debug("asking MLflow's client", extra={"reason": str(err)})
    from shared.registry import client

    return question(client)


def _direct() -> Store | None:
    """The way that doesn't import MLflow, if there is one."""
    from shared.registry import rest
    from shared.storage import mlflow_tables

    external = settings().mlflow_tracking_uri
    scheme = external.get_secret_value().partition(":")[0] if external else "postgresql"
    if any(os.environ.get(variable) for variable in WORKSPACES):
        return None
    ways: dict[str, Store] = {"postgresql": mlflow_tables, "http": rest, "https": rest}
    return ways.get(scheme.partition("+")[0])
