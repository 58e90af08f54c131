"""Outerbounds, where it runs the flows: the database of one of its apps, and its list of data and model assets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from shared.errors import ServiceError

if TYPE_CHECKING:
    from shared.domain import DatasetRef, ModelVersion

logger = logging.getLogger(__name__)

DATABASE_APP = "optuna-dashboard"  # as in deployments/optuna_dashboard/config.yml


def is_there() -> bool:
    """Whether Outerbounds' part of Metaflow is installed."""
    try:
        return find_spec("metaflow_extensions.outerbounds") is not None
    except ModuleNotFoundError:
        return False


def database_url() -> str | None:
    """URL of the dashboard app's database, of the project and branch that the flow is deployed to.

    It holds the platform's token. None for a flow that a person runs: it stays apart from what is deployed.

    Raises:
        ServiceError: the platform doesn't say where it is.
    """
    from metaflow import current
    from metaflow.plugins.optuna import get_db_url

    project, branch = current.get("project_name"), app_branch(current.get("branch_name") or "")
    if branch is None:
        return None
    try:
        return str(get_db_url(DATABASE_APP, project=project, branch=branch))
    except Exception as err:  # noqa: BLE001  # whatever the platform's client raises
        raise ServiceError(
            f"on Outerbounds the studies are in the database of the app {DATABASE_APP!r}, but the platform doesn't say "
            f"where that of {project}, branch {branch}, is ({err}); deploy it with `obproject-deploy`, or set "
            "EVERTUNE_DATABASE_URL"
        ) from None


def app_branch(flow_branch: str) -> str | None:
    """The branch that `obproject-deploy` gives the apps that it deploys beside flows of a branch of Metaflow."""
    if flow_branch == "prod":
        return "main"
    kind, _, name = flow_branch.partition(".")
    return name if kind == "test" else None


def register_dataset(flow: Any, ref: DatasetRef) -> None:
    """A dataset version as a new instance of the data asset that is named like the use case."""
    rows = {f"rows_{split}": str(rows) for split, rows in ref.rows.items()}
    annotations = {"fingerprint": ref.fingerprint, "source": ref.source, **rows}
    _register(flow, "register_external_data", ref.use_case, ref.uri, "parquet", annotations)


def register_champion(flow: Any, champion: ModelVersion) -> None:
    """A model version that was promoted as a new instance of the model asset that is named like it."""
    annotations = {"version": str(champion.version), **champion.lineage}
    _register(flow, "register_external_model", champion.name, champion.uri, "mlflow", annotations)


def _register(flow: Any, method: str, name: str, blob: str, kind: str, annotations: Mapping[str, str]) -> None:
    """Nothing without a platform. An asset notes what has happened: that it can't be written must not undo it."""
    if not is_there():
        return
    try:
        register: Callable[..., None] = getattr(flow.prj, method)
        register(name, blobs=[blob], kind=kind, annotations=dict(annotations))
    except Exception as err:  # noqa: BLE001  # whatever requests, Metaflow or the platform raise
        logger.warning("asset not registered", extra={"asset": name, "kind": kind, "reason": str(err)})
