"""Whether MLflow is found to be there, or not, before anything is tuned."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from shared.errors import ServiceError
from shared.registry import reachable


class Answer(BaseHTTPRequestHandler):
    """Answers `/<status>/health` with that status."""

    def do_GET(self) -> None:
        _, status, health = self.path.split("/")
        assert health == "health"
        self.send_response(int(status))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server."""
    with HTTPServer(("127.0.0.1", 0), Answer) as found:
        Thread(target=found.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{found.server_port}"
        found.shutdown()


@pytest.mark.parametrize(
    "uri",
    [
        "http://{}/200",
        "http://me:hidden@{}/200/",
        "http://{}/401",  # logging in is MLflow's own
        "http://{}/404",  # a service that speaks MLflow's language, without this page
        "https://{}/200",  # so are certificates
        "file:///tmp/mlruns",
        "databricks",
    ],
)
def test_what_answers_or_isnt_looked_at_is_taken_to_be_there(server: str, uri: str) -> None:
    reachable.check(uri.format(server))


@pytest.mark.parametrize("uri", ["http://me:hidden@127.0.0.1:1/ml", "postgresql+psycopg://me:hidden@127.0.0.1:1/ml"])
def test_what_doesnt_answer_is_named_without_its_password(uri: str) -> None:
    with pytest.raises(ServiceError) as caught:
        reachable.check(uri)

    assert str(caught.value) == (
        "MLflow must be reachable, but 127.0.0.1:1 isn't (Connection refused); "
        "check MLFLOW_TRACKING_URI, or unset it to use the embedded registry"
    )


def test_a_gateway_without_its_server_is_not_there(server: str) -> None:
    with pytest.raises(ServiceError, match=rf"but {server} isn't \(HTTP Error 503: Service Unavailable\); check"):
        reachable.check(f"http://{server}/503")
