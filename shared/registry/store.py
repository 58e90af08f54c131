"""The ways to the registry: MLflow's tables, its server's REST API, and its own client.

MLflow takes seconds to import. So its tables, or its server, are asked directly where that can be, and its own client
where not: another kind of store, a schema that isn't known here, a server that wants other credentials.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Protocol, TypeVar

from shared.errors import ServiceError
from shared.registry import reachable
from shared.settings import settings
from shared.storage import services
from shared.storage.mlflow_tables import Registered

logger = logging.getLogger(__name__)

WORKSPACES = ("MLFLOW_WORKSPACE", "MLFLOW_ENABLE_WORKSPACES")  # which the direct ways know nothing of

Answer = TypeVar("Answer")


class Store(Protocol):
    """One way to the registry."""

    def aliases(self, name: str) -> dict[str, int]: ...
    def registered(self, name: str, version: int) -> Registered | None: ...
    def set_alias(self, name: str, alias: str, version: int) -> None: ...
    def delete_alias(self, name: str, alias: str) -> None: ...


def ask(question: Callable[[Store], Answer]) -> Answer:
    """The answer of the first way that has one.

    Raises:
        RegistryError, ServiceError: the registry can't be reached.
    """
    if (direct := _direct()) is not None:
        try:
            return question(direct)
        except ServiceError as err:
            logger.debug("asking MLflow's client", extra={"reason": str(err)})
            reachable.check(services.mlflow_tracking_uri())  # else MLflow would be imported to find nobody there
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
