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


def database_url() -> str:
    """URL of the dashboard app's database, of the project that the step belongs to. It holds the platform's token.

    Raises:
        ServiceError: the platform doesn't say where it is.
    """
    from metaflow import current
    from metaflow.plugins.optuna import get_db_url

    project = current.get("project_name")
    try:
        return str(get_db_url(DATABASE_APP, project=project))
    except Exception as err:
        raise ServiceError(
            f"on Outerbounds the studies are in the database of the app {DATABASE_APP!r}, but the platform doesn't say "
            f"where that of {project or 'any project'} is ({err}); deploy it with `obproject-deploy`, or set "
            "EVERTUNE_DATABASE_URL"
        ) from None


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
