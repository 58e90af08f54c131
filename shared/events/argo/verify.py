"""What must hold before anything is deployed. The rules are pure; `read_cluster` and `check_database` look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from shared.config import ComputeConfig, Part, UseCase
from shared.errors import ConfigError, ServiceError

DATASTORES = ("s3", "azure", "gs")
HEADERS = "METAFLOW_SERVICE_HEADERS"
EVENTS = "EVENT", "EVENT_SOURCE", "SERVICE_ACCOUNT", "INTERNAL_WEBHOOK_URL"


@dataclass(frozen=True)
class ClusterSettings:
    """What Metaflow is configured to use. events: `METAFLOW_ARGO_EVENTS_<name>` by name.

    exposed: it would write the key of its own service into the templates.
    """

    datastore: str
    image: str | None
    secrets: str
    events: dict[str, str | None]
    exposed: bool = False


def read_cluster() -> ClusterSettings:
    """From Metaflow's environment variables and its configuration file."""
    from metaflow import metaflow_config as metaflow

    return ClusterSettings(
        datastore=metaflow.DEFAULT_DATASTORE,
        image=metaflow.KUBERNETES_CONTAINER_IMAGE,
        secrets=metaflow.KUBERNETES_SECRETS or metaflow.ARGO_WORKFLOWS_KUBERNETES_SECRETS,
        events={name: getattr(metaflow, f"ARGO_EVENTS_{name}") for name in EVENTS},
        exposed=bool(metaflow.SERVICE_HEADERS) and HEADERS not in metaflow.ARGO_WORKFLOWS_ENV_VARS_TO_SKIP.split(","),
    )


def check_settings(use_cases: Sequence[UseCase], cluster: ClusterSettings, *, deployed: bool = True) -> None:
    """Refuse what would fail on the cluster, or wait there for ever; all of it in one message.

    deployed: as templates that events start. Else this machine starts pods.

    Raises:
        ConfigError: a setting is missing.
    """
    own = [*_store_problems(cluster), *(_template_problems(cluster) if deployed else ())]
    found = [*own, *(p for use_case in use_cases for p in _compute_problems(use_case, cluster))]
    if found:
        raise ConfigError("\n".join(found))


def check_database() -> None:
    """The pods' database is that of EVERTUNE_DATABASE_URL. The URL stays here: a secret brings it to them.

    Raises:
        ServiceError: it isn't set, or nothing answers there.
    """
    from shared.settings import settings
    from shared.storage import database

    if settings().database_url is None:
        raise ServiceError(
            "pods need a database outside of them, but EVERTUNE_DATABASE_URL isn't set, and the embedded PostgreSQL of "
            "this machine can't be reached from a cluster; set it here, where it is only tried, and in a secret of the "
            "cluster that [compute.*] names"
        )
    if not database.answers():
        where = database.describe(database.url())
        raise ServiceError(
            f"the database must answer before anything is deployed, but {where} doesn't; start it, or mend "
            "EVERTUNE_DATABASE_URL (`kubectl port-forward` brings one inside the cluster here)"
        )


def _store_problems(cluster: ClusterSettings) -> list[str]:
    if cluster.datastore in DATASTORES:
        return []
    return [
        f"METAFLOW_DEFAULT_DATASTORE must be one of {', '.join(DATASTORES)}, since pods share no disk, but is "
        f"{cluster.datastore!r}; set it, and the root of that store, such as METAFLOW_DATASTORE_SYSROOT_S3"
    ]


def _template_problems(cluster: ClusterSettings) -> list[str]:
    found = []
    if missing := [f"METAFLOW_ARGO_EVENTS_{name}" for name, value in cluster.events.items() if not value]:
        found.append(
            f"flows start each other by Argo Events, which Metaflow must be told, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set; take the names from your EventSource and its service"
        )
    if cluster.exposed:
        found.append(
            f"secrets must not stand in templates, but Metaflow would write {HEADERS}, with its service's key, into "
            f"them; put {HEADERS} into a secret of METAFLOW_KUBERNETES_SECRETS, and set "
            f"METAFLOW_ARGO_WORKFLOWS_ENV_VARS_TO_SKIP={HEADERS}"
        )
    return found


def _compute_problems(use_case: UseCase, cluster: ClusterSettings) -> list[str]:
    """Each flow needs an image and a secret, also one that has nothing to do: it asks the ledger."""
    tables = {part: use_case.compute.get(part, ComputeConfig()) for part in get_args(Part)}
    found = []
    if bare := [part for part, table in tables.items() if not (table.image or cluster.image)]:
        found.append(
            f"configs/{use_case.name}.toml: pods need an image in which this project's packages are installed, but "
            f'{_tables(bare)} no `image`; add image = "…", or set METAFLOW_KUBERNETES_CONTAINER_IMAGE for all'
        )
    if bare := [part for part, table in tables.items() if not (table.secrets or cluster.secrets)]:
        found.append(
            f"configs/{use_case.name}.toml: pods take EVERTUNE_DATABASE_URL and MLFLOW_TRACKING_URI from a secret of "
            f'the cluster, but {_tables(bare)} no `secrets`; add secrets = ["…"], or set METAFLOW_KUBERNETES_SECRETS'
        )
    return found


def _tables(parts: Sequence[str]) -> str:
    return f"{', '.join(f'[compute.{part}]' for part in parts)} {'name' if len(parts) > 1 else 'names'}"
