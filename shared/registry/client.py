"""Model versions in MLflow: registered as a pyfunc by "models from code", found by alias, loaded without unpickling."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from shared import model
from shared.domain import ModelVersion
from shared.errors import ChangedModelError, RegistryError, UnloadableModelError, UnrecordedModelError
from shared.registry import digests, pyfunc, reachable, store
from shared.registry.aliases import CHAMPION
from shared.registry.lineage import PREFIX, from_tags, to_tags
from shared.settings import settings
from shared.storage import records, services
from shared.storage.mlflow_tables import Registered

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

PAGE = 1000  # versions in one answer

_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # some 15 seconds; its default is four minutes
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",  # it would take a write for done that became a read of another page
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else it copies the project's uv.lock into every model
}


def register(
    name: str,
    files: Mapping[str, bytes],
    *,
    use_case: str,
    example: pd.DataFrame,
    predictions: np.ndarray,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
    lineage: Mapping[str, str],
    origin: Mapping[str, Any] | None = None,
) -> ModelVersion:
    """Add a version to the registered model `name`, with a run that holds its metrics, parameters and lineage.

    No alias stands at it, and it can be loaded only once the digests of its files are on record.

    files: a system saved by `model.save`; example: a few raw rows; predictions: the system's for the example.
    params: may be nested; lineage and origin: see `shared.registry.lineage`.

    Raises:
        RegistryError: MLflow refuses it.
        ServiceError: MLflow's database can't be reached.
    """
    tags = {**to_tags(lineage), "evertune.use_case": use_case}
    with _registry(f"register a version of {name}") as client, tempfile.TemporaryDirectory() as tmp:
        experiment = _experiment(client, name)
        _close_abandoned_runs(client, experiment, use_case)
        run_id = client.create_run(experiment, tags=tags, run_name=lineage.get("run")).info.run_id
        logged = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags=tags)
        size = {"size_mb": sum(map(len, files.values())) / 1e6}
        _log(client, run_id, logged.model_id, {**metrics, **size}, params)
        folder = pyfunc.write(files, example, predictions, run_id, logged.model_id, Path(tmp))
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        client.set_terminated(run_id)
        _ensure_registered_model(client, name, use_case)
        created = client.create_model_version(
            name, logged.artifact_location, run_id, tags=tags, description=_describe(lineage), model_id=logged.model_id
        )
        _record(name, int(created.version), folder, origin or {})
        logger.info("model registered", extra={"model": name, "version": created.version})
    return version(name, int(created.version))


def champion(name: str) -> ModelVersion | None:
    """The version that is served; None: there is none yet."""
    return by_alias(name, CHAMPION)


def by_alias(name: str, alias: str) -> ModelVersion | None:
    """The version that an alias stands at; None: there is no such model or alias."""
    number = store.ask(lambda way: way.aliases(name)).get(alias)
    return None if number is None else version(name, number)


def version(name: str, number: int) -> ModelVersion:
    """A version by its number.

    Raises:
        RegistryError: there is none.
    """
    return _of(name, number, _known(name, number))


def note(name: str, number: int, key: str, text: str) -> None:
    """Say something of a version, by a tag `evertune.<key>`."""
    with _registry(f"note {key} on {name} version {number}") as client:
        client.set_model_version_tag(name, str(number), f"{PREFIX}{key}", text[:5000])


def versions(name: str, *, with_metrics: bool = False) -> list[ModelVersion]:
    """All versions of a registered model, the newest first; none where there is no such model.

    Two requests, however many there are, and two more for the metrics: versions don't come with their aliases, nor with
    the metrics of their runs.
    """
    with _registry(f"list the versions of {name}") as client:
        from mlflow.utils import get_results_from_paginated_fn

        aliases = _aliases(client, name)
        metrics = _metrics(client, name) if with_metrics else {}
        found = get_results_from_paginated_fn(
            lambda n, token: client.search_model_versions(f"name = '{name}'", max_results=n, page_token=token), PAGE
        )
        found.sort(key=lambda version: int(version.version), reverse=True)
        return [_of(name, int(v.version), _registered(v, v.source, metrics.get(v.run_id, {}), aliases)) for v in found]


def params(version: ModelVersion) -> dict[str, str]:
    """The parameters of a version, nested ones by dotted keys."""
    with _registry(f"look up the parameters of {version.uri}") as client:
        run_id = client.get_model_version(version.name, str(version.version)).run_id
        return dict(client.get_run(run_id).data.params) if run_id else {}


def delete_version(version: ModelVersion) -> str:
    """Delete a version and its run; where its files are, for `delete_files`. Called by `promotion.retire`.

    MLflow keeps what it deletes as deleted rows, which `mlflow gc` removes, with the files where they are still there.
    """
    with _registry(f"delete {version.uri}") as client:
        found = client.get_model_version(version.name, str(version.version))
        if found.model_id:
            client.delete_logged_model(found.model_id)
        if found.run_id:
            client.delete_run(found.run_id)
        client.delete_model_version(version.name, found.version)  # last: who was interrupted finds it again
        return str(found.source)


def delete_files(location: str, part: str | None = None) -> None:
    """Delete the files of a deleted version, or a folder of a version's."""
    with _registry(f"delete the files in {location}") as client:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(location, client.tracking_uri, client.tracking_uri).delete_artifacts(part)


def add_metrics(version: ModelVersion, metrics: Mapping[str, float]) -> None:
    """Metrics that are known only after the registration, such as those on the holdout."""
    with _registry(f"log metrics of {version.uri}") as client:
        run_id = client.get_model_version(version.name, str(version.version)).run_id
        for key, value in metrics.items():
            client.log_metric(run_id, key, value)


def aliases(name: str) -> dict[str, int]:
    """Version by alias; empty where there is no such model. `shared.registry.aliases` knows a faster way."""
    with _registry(f"look up the aliases of {name}") as client:
        return {alias: int(version) for alias, version in _aliases(client, name).items()}


def registered(name: str, number: int) -> Registered | None:
    """A version as MLflow knows it; None: there is none. `version` knows a faster way."""
    with _registry(f"look up {name} version {number}") as client:
        found = _found(lambda: client.get_model_version(name, str(number)))
        if found is None:
            return None
        location = client.get_model_version_download_uri(name, str(number))
        metrics = client.get_run(found.run_id).data.metrics if found.run_id else {}
        return _registered(found, location, metrics, _aliases(client, name))


def set_alias(name: str, alias: str, version: int) -> None:
    """Let an alias stand at a version; called by `shared.registry.aliases`."""
    with _registry(f"set {name}@{alias}") as client:
        client.set_registered_model_alias(name, alias, str(version))


def delete_alias(name: str, alias: str) -> None:
    """Take an alias away; nothing happens where it stands at no version. Called by `shared.registry.aliases`."""
    with _registry(f"delete {name}@{alias}") as client:
        if alias in _aliases(client, name):
            client.delete_registered_model_alias(name, alias)


def try_out(version: ModelVersion) -> None:
    """Load a version and let it predict its input example, as who serves it would.

    Raises:
        RegistryError: the files can't be fetched.
        UnloadableModelError: it can't be loaded, or can't predict it.
    """
    with downloaded(version) as folder:
        from mlflow.models import Model

        system = pyfunc.load(folder)
        try:
            system.scores(Model.load(str(folder)).load_input_example(str(folder)))
        except Exception as err:
            raise UnloadableModelError(f"{version.uri} must predict its input example, but {err!r}") from err


def load_version(version: ModelVersion) -> model.System:
    """The system of a version, from its native files; nothing is unpickled or run.

    Raises:
        RegistryError: the files can't be fetched.
        UnloadableModelError: they hold what Evertune doesn't load.
    """
    with downloaded(version) as folder:
        return pyfunc.load(folder)


def check(version: ModelVersion) -> list[str]:
    """Load a version, and delete the bytecode in its folder, whose names are returned; Python makes it again.

    It may be anybody's: no digest covers it, and MLflow runs it unread.

    Raises:
        RegistryError: the files can't be fetched, or deleted.
        UnloadableModelError: they hold what Evertune doesn't load.
    """
    with downloaded(version) as folder:
        pyfunc.load(folder)
        bytecode = sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"{digests.BYTECODE}/*"))
    if bytecode:
        delete_files(_known(version.name, version.version).location, digests.BYTECODE)
    return bytecode


@contextmanager
def downloaded(version: ModelVersion) -> Iterator[Path]:
    """A version's files, those that were registered, to be loaded from a folder that is gone afterwards.

    Raises:
        RegistryError: they can't be fetched.
        UnloadableModelError: they aren't those on record, or hold what Evertune doesn't load.
    """
    recorded = records.find(version.name, version.version)
    if recorded is None:
        raise UnrecordedModelError(
            f"a version's files must be on record to be loaded, but those of {version.uri} aren't: its registration "
            "was cut short, or it wasn't registered by this version of Evertune; if you know where it comes from, "
            f"`evertune models trust {version.name} {version.version}` records its files as they are now"
        )
    with _fetched(version) as folder:
        if wrong := digests.difference(recorded.digests, digests.of_folder(folder)):
            raise ChangedModelError(
                f"the files of {version.uri} must be those that were registered, but are not ({wrong}); don't load "
                "them: restore them from a backup, or promote another version"
            )
        yield folder


def trust(version: ModelVersion, by: str) -> None:
    """Put the files of a version that has no record on record as they are now, on somebody's word.

    Raises:
        RegistryError: they can't be fetched, or are on record already.
    """
    with _fetched(version) as folder:
        _record(version.name, version.version, folder, {"trusted_by": by})
        logger.warning("model trusted", extra={"model": version.name, "version": version.version, "by": by})


@contextmanager
def _fetched(version: ModelVersion) -> Iterator[Path]:
    """A version's files, whatever they are."""
    location = _known(version.name, version.version).location
    with _explained(f"load {version.uri}"), tempfile.TemporaryDirectory() as tmp:
        if path := _local(location):
            yield Path(shutil.copytree(path, Path(tmp, "files"), symlinks=True))  # links are refused as links
        else:
            yield _downloaded(version, location, tmp)


def _local(location: str) -> Path | None:
    """The folder that a location means on this machine, if it does."""
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(location) if location.startswith("/") else None


def _downloaded(version: ModelVersion, location: str, folder: str) -> Path:
    with _registry(f"load {version.uri}") as client:
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(location, dst_path=folder, tracking_uri=client.tracking_uri))


def _record(name: str, number: int, folder: Path, origin: Mapping[str, Any]) -> None:
    if not records.record(name, number, digests.of_folder(folder), origin):
        raise RegistryError(
            f"the files of a version must be put on record once, but those of {name} version {number} are already; "
            "where they were changed, restore them; where MLflow counts anew since its registry was emptied, give it "
            "an empty database in EVERTUNE_DATABASE_URL too"
        )


@contextmanager
def _registry(what: str) -> Iterator[MlflowClient]:
    """A client of MLflow, its tables there, its logs, warnings and telemetry off; its errors become RegistryErrors.

    What is set stays so for the process: other threads have clients too.
    """
    for variable, value in _MLFLOW.items():
        os.environ.setdefault(variable, value)
    uri = services.prepare_mlflow(lambda uri: _client(uri).search_experiments(max_results=1))
    reachable.check_once(uri)
    from mlflow.exceptions import MlflowException

    with _explained(what):
        try:
            yield _client(uri)
        except MlflowException as err:
            raise RegistryError(f"can't {what}: {_public(err)}") from None


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"mlflow|shared\.registry")
    return MlflowClient(uri, uri)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """What files and models raise, as errors that say what was tried."""
    try:
        yield
    except model.ModelError as err:
        raise UnloadableModelError(f"can't {what}: {err}") from err
    except OSError as err:
        raise RegistryError(f"can't {what}: {_public(err)}") from None


def _public(err: Exception) -> str:
    """What an error says, without the password that a server's address may hold."""
    return re.sub(r"//[^@\s]*@", "//", str(err))


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Version by alias; empty where there is no such model."""
    found = _found(lambda: client.get_registered_model(name))
    return dict(found.aliases) if found else {}


def _found(look: Callable[[], Any]) -> Any:
    """What MLflow finds; None: there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return look()
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _metrics(client: MlflowClient, name: str) -> dict[str, dict[str, float]]:
    """Metrics by run, of all runs of a registered model."""
    from mlflow.utils import get_results_from_paginated_fn

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return {}
    runs = get_results_from_paginated_fn(
        lambda n, token: client.search_runs([experiment.experiment_id], max_results=n, page_token=token), PAGE
    )
    return {run.info.run_id: run.data.metrics for run in runs}


def _known(name: str, number: int) -> Registered:
    found = store.ask(lambda way: way.registered(name, number))
    if found is None:
        raise RegistryError(f"can't look up {name} version {number}: the registry has no such version")
    return found


def _registered(found: Any, location: str, metrics: Mapping[str, float], aliases: Mapping[str, str]) -> Registered:
    """Our value of MLflow's."""
    here = [alias for alias, number in aliases.items() if int(number) == int(found.version)]
    return Registered(found.creation_timestamp, location, found.tags, here, metrics)


def _of(name: str, number: int, found: Registered) -> ModelVersion:
    return ModelVersion(
        name=name,
        version=number,
        created_at=datetime.fromtimestamp(found.created_ms / 1000, UTC),
        aliases=tuple(sorted(found.aliases)),
        lineage=from_tags(found.tags),
        metrics=found.metrics,
    )


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment of a registered model, made where it isn't there yet."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    is_server = client.tracking_uri.startswith("http")
    location = None if is_server else (settings().home.absolute() / "mlflow" / name).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)  # another process was faster


def _close_abandoned_runs(client: MlflowClient, experiment: str, use_case: str) -> None:
    """End the runs of registrations that died. One that is still at work says itself that it has finished."""
    ours = f"attributes.status = 'RUNNING' AND tags.`{PREFIX}use_case` = '{use_case}'"
    for run in client.search_runs([experiment], ours):
        client.set_terminated(run.info.run_id, "KILLED")


def _ensure_registered_model(client: MlflowClient, name: str, use_case: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags=to_tags({"use_case": use_case}))
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log(
    client: MlflowClient, run_id: str, model_id: str, metrics: Mapping[str, float], params: Mapping[str, Any]
) -> None:
    from mlflow.entities import LoggedModelOutput, Metric, Param

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, float(value), now, 0, model_id=model_id) for key, value in metrics.items()],
        params=[Param(key, value) for key, value in _flat(params)],
    )
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested parameters as dotted keys that MLflow takes, their values as text of at most 6000 characters."""
    for key, value in params.items():
        path = prefix + re.sub(r"[^\w\-. :/]", "_", str(key))
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        else:
            yield path, str(value)[:6000]


def _describe(lineage: Mapping[str, str]) -> str:
    study, trial = lineage.get("study"), lineage.get("trial")
    source = f" from trial {trial} of the study {study}" if study and trial else ""
    return f"Made by Evertune{source}, on dataset version {lineage.get('dataset', 'unknown')[:12]}."
