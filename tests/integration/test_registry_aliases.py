"""The ways to versions and aliases: MLflow's tables, its server, and its client, which are the same registry."""

from __future__ import annotations

import math
import re
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import ModuleType
from urllib.parse import quote

import psycopg
import pytest
from mlflow import MlflowClient
from mlflow.server import app, handlers
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore
from werkzeug.serving import make_server

from shared.errors import RegistryError, ServiceError
from shared.registry import aliases, client, rest
from shared.settings import settings
from shared.storage import mlflow_tables
from shared.storage.database import sqlalchemy_url
from tests import on_record
from tests.conftest import Server

NAME, PASSWORD = "iris", "secret:p@ss"
LET_IN = (f"Basic {b64encode(f'ann:{PASSWORD}'.encode()).decode()}", f"Bearer {PASSWORD}")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def mlflow(home) -> MlflowClient:
    """`iris` has versions 1 and 2."""
    del home
    return on_record.register_versions(NAME, 2)


@pytest.fixture
def mlflow_server(mlflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of MLflow's own server on that registry, which asks for a user and a password."""
    monkeypatch.setattr(handlers, "_model_registry_store", SqlAlchemyStore(mlflow.tracking_uri))
    monkeypatch.setattr(handlers, "_tracking_store", TrackingStore(mlflow.tracking_uri, "/nowhere"))

    def asking(environ, start_response):
        if environ.get("HTTP_AUTHORIZATION") in LET_IN:
            return app(environ, start_response)
        start_response("401 Unauthorized", [("WWW-Authenticate", "Basic")])
        return [b"who are you?"]

    found = make_server("127.0.0.1", 0, asking, threaded=True)
    Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


def point_at(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    settings.cache_clear()


def use_aliases(way: ModuleType, mlflow: MlflowClient) -> None:
    """What each way must be able to do, seen by MLflow itself."""
    assert way.aliases("nothing") == way.aliases(NAME) == {}
    way.set_alias(NAME, "champion", 1)
    way.set_alias(NAME, "champion", 2)
    way.set_alias(NAME, "previous", 1)
    assert mlflow.get_registered_model(NAME).aliases == {"champion": 2, "previous": 1}
    assert way.aliases(NAME) == {"champion": 2, "previous": 1}
    for name in (NAME, NAME, "nothing"):
        way.delete_alias(name, "previous")
    assert mlflow.get_registered_model(NAME).aliases == {"champion": 2}
    mlflow.delete_model_version(NAME, "1")
    assert [way.registered(NAME, version) is not None for version in (1, 2, 3)] == [False, True, False]
    for version in (1, 3):
        with pytest.raises(RegistryError, match=r"can't set iris@champion"):
            way.set_alias(NAME, "champion", version)
    mlflow.delete_model_version(NAME, "2")
    assert way.aliases(NAME) == {}


def test_mlflow_sees_what_is_written_into_its_tables_and_the_other_way_round(mlflow):
    use_aliases(mlflow_tables, mlflow)


def test_mlflows_client_can_do_the_same(mlflow):
    use_aliases(client, mlflow)


@pytest.mark.parametrize("by", ["variables", "a token", "the address"])
def test_mlflows_server_can_do_the_same_for_who_is_let_in(mlflow, mlflow_server: str, by: str, monkeypatch):
    with monkeypatch.context() as patch:
        point_at(mlflow_server, patch)
        with pytest.raises(ServiceError, match="answers 401"):
            rest.aliases(NAME)
        with pytest.raises(RegistryError, match="can't look up the aliases of iris"):
            aliases.of(NAME)  # MLflow's client, which may know another way, doesn't either
        if by == "the address":
            point_at(mlflow_server.replace("//", f"//ann:{quote(PASSWORD, safe='')}@"), patch)
        elif by == "a token":
            patch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
        else:
            patch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
            patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        use_aliases(rest, mlflow)


@pytest.fixture
def login_page() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Address of a server that sends everybody on to a page of its own, and who asked there: method, credentials."""
    asked: list[tuple[str, str | None]] = []

    def sending_on(environ, start_response):
        if environ["PATH_INFO"] != "/login":
            start_response("302 Found", [("Location", "/login")])
            return [b""]
        asked.append((environ["REQUEST_METHOD"], environ.get("HTTP_AUTHORIZATION")))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    found = make_server("127.0.0.1", 0, sending_on, threaded=True)
    Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}", asked
    found.shutdown()
    found.server_close()


def test_a_server_that_sends_us_elsewhere_has_set_nothing_and_nobody_there_is_told_the_credentials(
    login_page, monkeypatch: pytest.MonkeyPatch
):
    address, asked = login_page
    point_at(address, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
    for ask in (lambda: rest.set_alias(NAME, "champion", 1), lambda: rest.aliases(NAME)):
        with pytest.raises(ServiceError, match="answers 302"):
            ask()
    assert asked == []
    with pytest.raises(RegistryError, match="can't set iris@champion"):
        aliases.point(NAME, "champion", 1)  # MLflow's client follows no more than we do
    assert not any(credentials for _, credentials in asked)


def test_the_revision_of_the_installed_mlflow_is_known():
    """Else look what has become of `SqlAlchemyStore`'s methods on aliases, and add the new one to `KNOWN`."""
    versions = Path(find_spec("mlflow").submodule_search_locations[0], "store/db_migrations/versions")
    found = [path.read_text() for path in versions.glob("*.py")]
    revisions = {match for text in found for match in re.findall(r'^revision = "(\w+)"', text, re.MULTILINE)}
    parents = {match for text in found for match in re.findall(r'^down_revision = "(\w+)"', text, re.MULTILINE)}
    assert len(revisions) > 50
    assert revisions - parents <= set(mlflow_tables.KNOWN)


@pytest.mark.usefixtures("mlflow")
def test_tables_of_an_unknown_revision_are_left_to_mlflow(monkeypatch):
    monkeypatch.setattr(mlflow_tables, "KNOWN", ("of the past",))
    with pytest.raises(ServiceError, match="ask MLflow itself"):
        mlflow_tables.aliases(NAME)
    aliases.point(NAME, "champion", 2)
    assert (aliases.of(NAME), aliases.champion(NAME)) == ({"champion": 2}, 2)
    assert aliases.has_version(NAME, 2)


def test_what_is_live_is_known_where_mlflow_has_no_tables_yet_or_none_to_read(
    server: Server, evertune_template: str, monkeypatch
):
    with server.fresh(evertune_template) as url:
        point_at(sqlalchemy_url(url), monkeypatch)
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE public.alembic_version")
        assert aliases.champion("digits") is None
    point_at("postgresql://ann:hidden@127.0.0.1:1/mlflow", monkeypatch)
    with pytest.raises(ServiceError, match="can't be had by SQL"):
        mlflow_tables.aliases("digits")
    with pytest.raises(ServiceError, match="MLflow must be reachable") as refused:
        aliases.champion("digits")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("address", ["postgresql://127.0.0.1:1/mlflow", "http://127.0.0.1:1"])
def test_who_is_away_is_not_asked_by_mlflows_client_too_which_would_have_to_be_imported(address: str, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    code = (
        "import sys; from shared.registry import aliases; from shared.errors import ServiceError\n"
        "try: aliases.champion('iris')\n"
        "except ServiceError as err: print('mlflow' in sys.modules, err)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False MLflow must be reachable, but 127.0.0.1:1 isn't")


@pytest.fixture
def tracking(server: Server, evertune_template: str) -> Iterator[str]:
    """Address of an empty schema of a database of its own, which its options say."""
    with server.fresh(evertune_template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA tracking")
        yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3Dtracking"


def test_a_registry_of_an_external_database_is_read_in_the_schema_that_its_address_says(tracking, monkeypatch):
    point_at(sqlalchemy_url(tracking), monkeypatch)
    with pytest.raises(ServiceError, match="has no tables of MLflow"):
        mlflow_tables.aliases(NAME)  # only of the embedded registry it is known that they are nowhere else
    use_aliases(mlflow_tables, on_record.register_versions(NAME, 2))


@pytest.mark.parametrize(
    "said",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"a":',
        b"SSH-2.0 hello\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]",
        b'HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{"registered_model":null}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n{"registered_model":{"aliases":[{"a":1}]}}',
    ],
    ids=["cut off in the middle", "no HTTP", "another object", "no object", "nothing", "half of an alias"],
)
def test_what_does_not_answer_as_mlflows_server_has_not_answered(said: bytes, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)

        Thread(target=answer, daemon=True).start()
        monkeypatch.setattr(
            rest.services, "mlflow_tracking_uri", lambda: f"http://127.0.0.1:{listener.getsockname()[1]}"
        )
        with pytest.raises(ServiceError, match="doesn't answer as one"):
            rest.aliases(NAME)


def test_each_way_says_the_same_of_a_version(mlflow, mlflow_server: str, monkeypatch):
    run = mlflow.create_run(mlflow.create_experiment("e"))
    for key, value in (("loss", -0.25), ("loss", 0.5), ("nothing", math.nan), ("all", math.inf)):
        mlflow.log_metric(run.info.run_id, key, value)
    mlflow.create_model_version(NAME, "file:///some/where", run.info.run_id, tags={"evertune.dataset": "ab", "x": "y"})
    for alias, version in (("champion", 3), ("previous", 2), ("challenger", 3)):
        client.set_alias(NAME, alias, version)
    by_tables = mlflow_tables.registered(NAME, 3)
    with monkeypatch.context() as patch:
        point_at(mlflow_server, patch)
        patch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
        by_server, absent = rest.registered(NAME, 3), rest.registered(NAME, 4)
    settings.cache_clear()
    assert repr(by_tables) == repr(by_server) == repr(client.registered(NAME, 3)), "compared as text, for the NaN"
    assert absent is mlflow_tables.registered(NAME, 4) is client.registered(NAME, 4) is None
    assert (by_tables.location, sorted(by_tables.aliases)) == ("file:///some/where", ["challenger", "champion"])
    assert (by_tables.tags["evertune.dataset"], by_tables.metrics["loss"], len(by_tables.metrics)) == ("ab", 0.5, 3)
    assert client.version(NAME, 3).lineage == {"dataset": "ab"}
    with pytest.raises(RegistryError, match="version 4: the registry has no such version"):
        client.version(NAME, 4)


@pytest.mark.parametrize("way", ["tables", "server"])
def test_aliases_are_read_and_moved_without_importing_mlflow(way: str, mlflow_server: str, monkeypatch):
    if way == "server":
        point_at(mlflow_server, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
    code = (
        "import sys; from shared.registry import promotion; from shared.domain import PromotionDecision as Decision\n"
        "for version, seen in ((1, None), (2, 1)):\n"
        "    promotion.promote('iris', version, Decision(promote=True, reason='yes'), seen=seen, actor='ann')\n"
        "promotion.rollback('iris', actor='ann')\n"
        "print(sorted({'mlflow', 'sqlalchemy', 'pandas', 'sklearn', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert aliases.of(NAME) == {"champion": 1}
