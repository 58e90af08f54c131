"""The model server, asked over HTTP: each test's server is a uvicorn of its own on a real registry."""

from __future__ import annotations

import io
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
import uvicorn
from jsonschema import Draft202012Validator
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from deployments.model_server.app import create
from deployments.model_server.heads import HEAD_BYTES, ShortHeads
from deployments.model_server.limits import Limits, check_host
from deployments.model_server.live import LiveModel, Served
from deployments.model_server.rows import NUMBER, Columns
from shared.domain import ModelVersion
from shared.errors import ConfigError
from shared.model import Member, Signature, System

X = load_iris(as_frame=True).data
LABELS = ("setosa", "versicolor", "virginica")
NAMES = list(X.columns)
ROWS = X.iloc[::40].to_numpy().tolist()
MODEL = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, load_iris().target)
IRIS = System(Signature(tuple(NAMES), (4,), LABELS), [Member("one", MODEL)])
SIZES = System(Signature(tuple(NAMES), (4,)), [Member("one", Ridge().fit(X, X.iloc[:, 0] * 2))])
BODY = json.dumps({"rows": ROWS}).encode()
EXPECTED = IRIS.predict(X.iloc[::40]).tolist()


def live(name: str = "iris", system: System | None = IRIS) -> LiveModel:
    """A model whose registry has one version, or none."""

    def load(_: str, number: int) -> Served:
        version = ModelVersion(name=name, version=number, lineage={"dataset": "0123456789ab"})
        return Served(version, system, Columns(dict.fromkeys(NAMES, NUMBER)), X[:2])

    return LiveModel(name, lambda _: 7 if system else None, load, lambda _: None)


@contextmanager
def serving(*models: LiveModel, tokens: tuple[str, ...] = (), limits: Limits | None = None) -> Iterator[str]:
    with listening(create(models, tokens, limits)) as url:
        while any(m.trouble == "the registry hasn't been asked yet" for m in models):
            time.sleep(0.01)
        yield url


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of an app, in a thread."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, http=ShortHeads, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def iris() -> Iterator[str]:
    with serving(live()) as url:
        yield url


@pytest.fixture(scope="module")
def two() -> Iterator[str]:
    with serving(live(), live("empty", None)) as url:
        yield url


def post(url: str, body: Any, content_type: str = "application/json", **headers: str) -> requests.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(url, content, headers={"Content-Type": content_type, **headers}, timeout=30)


def arrow(frame: pd.DataFrame) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pandas(frame, preserve_index=False)
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def test_labels_and_probabilities_are_the_same_by_json_csv_and_arrow(iris):
    rows = X.iloc[::40]
    for body, content_type in (
        ({"columns": NAMES, "rows": ROWS}, "application/json; charset=utf-8"),
        (rows.to_dict("records"), "application/json"),
        (rows.to_csv(index=False).encode(), "text/csv"),
        (arrow(rows[NAMES[::-1]]), "application/vnd.apache.arrow.stream"),
    ):
        assert post(f"{iris}/predict", body, content_type).json() == {"version": 7, "predictions": EXPECTED}
        answer = post(f"{iris}/iris/predict_proba", body, content_type).json()
        assert (answer["version"], answer["classes"]) == (7, list(LABELS))
        np.testing.assert_array_equal(answer["probabilities"], IRIS.predict_proba(rows))


def test_what_mlflows_server_reads_is_answered_as_it_does(iris):
    records = X.iloc[::40].to_dict("records")
    for body in (
        {"dataframe_split": {"index": [5, 6, 7, 8], "columns": NAMES, "data": ROWS}},
        {"dataframe_split": {"columns": [*NAMES, "more"], "data": [[*row, "x"] for row in ROWS]}},
        {"dataframe_records": [{**record, "more": 1} for record in records]},
        {"instances": records},
        {"instances": ROWS},
        {"inputs": X.iloc[::40].to_dict("list")},
        {"inputs": ROWS, "params": {"output": "label"}},
    ):
        assert post(f"{iris}/invocations", body).json() == {"predictions": EXPECTED}
    csv = X.iloc[::40].assign(more="x").to_csv(index=False).encode()
    assert post(f"{iris}/invocations", csv, "text/csv").json() == {"predictions": EXPECTED}
    proba = post(f"{iris}/invocations", {"inputs": ROWS, "params": {"output": "proba"}}).json()["predictions"]
    np.testing.assert_array_equal(pd.DataFrame(proba)[list(LABELS)], IRIS.predict_proba(X.iloc[::40]))
    refused = post(f"{iris}/invocations", {"instances": [[1, 2, 3, "x"]]})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "BAD_REQUEST")
    assert "row 0, column 'petal width (cm)' must be a number" in refused.json()["message"]
    assert [requests.get(f"{iris}/{path}").status_code for path in ("ping", "health")] == [200, 200]
    assert requests.get(f"{iris}/version").text == mlflow.__version__


MLFLOW_REFUSED = [
    [],
    {},
    {"instances": ROWS, "inputs": ROWS},
    {"instances": 3},
    {"dataframe_split": {"columns": NAMES}},
    {"dataframe_split": {"columns": [*NAMES, "more"], "data": [[1]]}},
    {"dataframe_split": {"columns": [[], {}, 3, None], "data": ROWS}},
    {"inputs": {name: [1] * i for i, name in enumerate(NAMES)}},
    {"dataframe_records": [{}, 3]},
    {"instances": ROWS, "params": {"output": ["proba"]}},
]


@pytest.mark.parametrize("body", MLFLOW_REFUSED, ids=json.dumps)
def test_no_body_of_mlflows_forms_is_a_fault_of_the_server(iris, body):
    assert post(f"{iris}/invocations", body).status_code == 400


def test_rows_that_do_not_fit_are_refused_by_row_column_and_rule(iris):
    for body, content_type, status, said in (
        ({"rows": [[1, 2, 3, "x"]]}, "application/json", 422, "row 0, column 'petal width (cm)' must be a number"),
        ({"rows": [[1, 2, 3, None]]}, "application/json", 422, "NaN. (row 0, column 'petal width (cm)'"),
        (b"a,b\n1,2\n", "text/csv", 422, "the header must name the 4 columns of the model, but missing"),
        (b"1", "text/plain", 415, "the body must be application/json, text/csv"),
    ):
        answer = post(f"{iris}/predict", body, content_type)
        assert (answer.status_code, said in answer.json()["detail"]) == (status, True)


def test_the_model_says_where_it_comes_from_and_its_example_is_taken(iris):
    card = requests.get(f"{iris}/iris/model").json()
    assert (card["version"], card["uri"], card["classes"]) == (7, "models:/iris/7", list(LABELS))
    assert card["lineage"] == {"dataset": "0123456789ab"}
    assert card["columns"] == dict.fromkeys(NAMES, "a number")
    assert post(f"{iris}/predict", card["example"]).json()["predictions"] == IRIS.predict(X[:2]).tolist()


def test_openapi_has_examples_that_are_answered(iris):
    paths = requests.get(f"{iris}/openapi.json").json()["paths"]
    assert {"/predict", "/iris/predict", "/iris/invocations", "/readyz", "/metrics"} <= paths.keys()
    for path in ("/predict", "/iris/predict_proba", "/invocations"):
        example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert post(f"{iris}{path}", example).status_code == 200


def described(url: str, path: str) -> Draft202012Validator:
    """OpenAPI's schema of a prediction."""
    responses = requests.get(f"{url}/openapi.json").json()["paths"][path]["post"]["responses"]
    return Draft202012Validator(responses["200"]["content"]["application/json"]["schema"])


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_openapi_describes_the_answers_of_what_is_live():
    with serving(live(), live("sizes", SIZES), live("empty", None)) as url:
        for path, params in (
            ("/iris/predict", {}),
            ("/iris/predict_proba", {}),
            ("/iris/invocations", {}),
            ("/iris/invocations", {"params": {"output": "proba"}}),
            ("/sizes/predict", {}),
            ("/sizes/invocations", {}),
        ):
            body = {"inputs": ROWS} | params if path.endswith("invocations") else {"rows": ROWS}
            described(url, path).validate(post(url + path, body).json())
        assert described(url, "/empty/predict").schema == {}
        paths = requests.get(f"{url}/openapi.json").json()["paths"]
        assert "200" not in paths["/sizes/predict_proba"]["post"]["responses"]
        too_large = post(f"{url}/sizes/predict", {"rows": [[1e308] * 4]}).json()
        assert too_large["predictions"] == [None]
        described(url, "/sizes/predict").validate(too_large)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/predict", {"version": 7, "predictions": ["rose"]}),
        ("/predict", {"version": "7", "predictions": ["setosa"]}),
        ("/predict", {"predictions": ["setosa"]}),
        ("/predict_proba", {"version": 7, "classes": LABELS, "probabilities": [[0.5, 0.5]]}),
        ("/predict_proba", {"version": 7, "classes": LABELS[::-1], "probabilities": [[0.5, 0.5, 0]]}),
        ("/invocations", {"predictions": ["rose"]}),
        ("/invocations", {"predictions": [{"setosa": 1.0}]}),
    ],
    ids=str,
)
def test_openapi_describes_no_answer_that_another_model_would_give(iris, path, answer):
    assert not described(iris, path).is_valid(json.loads(json.dumps(answer)))


def test_openapi_tells_the_statuses_of_rows_that_break_a_rule(iris):
    paths = requests.get(f"{iris}/openapi.json").json()["paths"]
    for path, body in (("/predict", {"rows": 3}), ("/predict_proba", {"rows": 3}), ("/invocations", {"inputs": 3})):
        told = paths[path]["post"]["responses"].keys() & {"400", "422"}
        assert told == {str(post(iris + path, body).status_code)}


def test_metrics_count_requests_by_path_and_status_and_tell_the_version(iris):
    post(f"{iris}/predict", {"rows": "x"})
    requests.get(f"{iris}/no/such/{'x' * 50}")
    said = requests.get(f"{iris}/metrics").text
    for line in (
        'evertune_requests_total{path="/predict",status="422"}',
        'evertune_requests_total{path="other",status="404"}',
        'evertune_request_seconds_count{path="/predict"}',
        'evertune_model_version{use_case="iris"} 7.0',
        'evertune_model_swaps_total{use_case="iris"} 0.0',
        'evertune_model_trouble{use_case="iris"} 0.0',
    ):
        assert line in said


def test_several_use_cases_have_paths_of_their_own_and_one_without_a_version_is_not_ready():
    with serving(live(), live("sizes", SIZES), live("empty", None)) as url:
        assert post(f"{url}/iris/predict", {"rows": ROWS}).json()["predictions"] == EXPECTED
        values = post(f"{url}/sizes/predict", {"rows": ROWS}).json()["predictions"]
        np.testing.assert_array_equal(values, SIZES.predict(X.iloc[::40]))
        refused = post(f"{url}/sizes/predict_proba", {"rows": ROWS})
        assert (refused.status_code, "a regression has no class probabilities" in refused.text) == (422, True)
        away = post(f"{url}/empty/predict", {"rows": ROWS})
        assert (away.status_code, "empty has no champion" in away.text) == (503, True)
        ready = requests.get(f"{url}/readyz")
        assert (ready.status_code, ready.json()["models"]["iris"]) == (503, {"version": 7, "trouble": ""})
        assert ready.json()["models"]["empty"]["trouble"].startswith("empty has no champion")
        assert requests.get(f"{url}/healthz").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/predict",
        "/none/predict",
        "/iris/../empty/predict",
        "/../iris/predict",
        "/..%2firis/predict",
        "/%2e%2e/iris/predict",
        "/iris%2fpredict/..",
        "/iris/../../etc/passwd",
        "//iris/predict",
        "/iris%00/predict",
        "/iris@challenger/predict",
        "/models:/iris/1/predict",
    ],
)
def test_no_path_leads_to_another_use_case_or_out_of_it(two, path):
    connection = HTTPConnection(two.removeprefix("http://"), timeout=10)
    connection.request("POST", path, json.dumps({"rows": ROWS}), {"Content-Type": "application/json"})
    assert connection.getresponse().status == 404


def test_requests_that_wait_are_answered_together_and_each_for_itself(iris):
    bad, text = {"rows": [[1, 2, 3, None]]}, {"rows": [["x"] * 4]}
    bodies = [{"rows": [row]} for row in ROWS] + [bad, {"rows": ROWS}, text, {"columns": NAMES[::-1], "rows": ROWS}]
    expected = [(200, [label]) for label in EXPECTED] + [(422, None), (200, EXPECTED), (422, None)]
    expected.append((200, IRIS.predict(pd.DataFrame(ROWS, columns=NAMES[::-1])).tolist()))
    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(lambda body: post(f"{iris}/predict", body), bodies * 20))
    assert [(answer.status_code, answer.json().get("predictions")) for answer in found] == expected * 20


def test_who_asks_a_model_does_not_wait_for_another_one():
    begun, may_end = threading.Event(), threading.Event()

    def held(rows: pd.DataFrame) -> pd.DataFrame:
        begun.set()
        assert may_end.wait(60)
        return rows

    may_end.set()
    slow = make_pipeline(FunctionTransformer(held), Ridge()).fit(X, X.iloc[:, 0])
    begun.clear(), may_end.clear()
    with (
        serving(live(), live("slow", System(SIZES.signature, [Member("one", slow)]))) as url,
        ThreadPoolExecutor(1) as client,
    ):
        waits = client.submit(post, f"{url}/slow/predict", {"rows": ROWS})
        assert begun.wait(60)
        assert post(f"{url}/iris/predict", {"rows": ROWS}).status_code == 200
        assert not waits.done()
        may_end.set()
        assert waits.result().status_code == 200


def test_under_load_versions_are_swapped_without_a_failed_request():
    newest = itertools.count(1)
    numbered = live()
    numbered._find = lambda _: next(newest)
    stop, answers = threading.Event(), []

    def ask(url: str) -> None:
        with requests.Session() as session:
            while not stop.is_set():
                answer = session.post(f"{url}/predict", json={"rows": ROWS}, timeout=30)
                answers.append((answer.status_code, answer.json()))

    with serving(numbered) as url:
        clients = [threading.Thread(target=ask, args=(url,)) for _ in range(4)]
        for client in clients:
            client.start()
        for _ in range(10):
            time.sleep(0.1)
            numbered.look()
        stop.set()
        for client in clients:
            client.join()
    assert {(status, *answer["predictions"]) for status, answer in answers} == {(200, *EXPECTED)}
    assert len({answer["version"] for _, answer in answers}) >= 5
    assert numbered.swaps >= 10


def test_with_tokens_only_probes_are_answered_without_one():
    with serving(live(), tokens=("one", "two")) as url:
        for headers in (
            {},
            {"Authorization": "Bearer three"},
            {"Authorization": "Basic one"},
            {"Authorization": "one"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearerone"},
            {"Authorization": "Bearer ONE"},
        ):
            for path in ("/predict", "/iris/predict", "/invocations", "/nowhere"):
                assert post(url + path, {"rows": ROWS}, **headers).status_code == 401
            for path in ("/model", "/version", "/metrics", "/openapi.json", "/docs"):
                assert requests.get(url + path, headers=headers).status_code == 401
        for given in ("Bearer one", "Bearer two", "bearer one", "BEARER  two"):
            assert post(f"{url}/predict", {"rows": ROWS}, Authorization=given).status_code == 200
        assert [requests.get(url + path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_why_a_version_is_not_live_is_told_to_who_has_a_token():
    with serving(live(), live("empty", None), tokens=("one",)) as url:
        for path in ("readyz", "ping", "health"):
            for headers in ({}, {"Authorization": "Bearer two"}):
                answer = requests.get(f"{url}/{path}", headers=headers)
                models = {"iris": {"version": 7}, "empty": {"version": None}}
                assert (answer.status_code, answer.json()) == (503, {"ready": False, "models": models})
            told = requests.get(f"{url}/{path}", headers={"Authorization": "Bearer one"}).json()["models"]
            assert told["iris"] == {"version": 7, "trouble": ""}
            assert told["empty"]["trouble"].startswith("empty has no champion")


def test_who_can_be_reached_by_others_must_ask_for_a_token():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(host, [])
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        check_host(host, ["one"])
        with pytest.raises(ConfigError, match="EVERTUNE_SERVE_TOKENS isn't set"):
            check_host(host, [])


def test_a_body_that_is_too_long_is_refused_before_it_is_read():
    with serving(live(), limits=Limits(body_bytes=1000)) as url:
        assert post(f"{url}/predict", {"rows": ROWS}).status_code == 200
        assert post(f"{url}/predict", b" " * 1001).status_code == 413
        parts = (b" " * 500 for _ in range(3))  # no Content-Length
        assert requests.post(f"{url}/predict", parts).status_code == 413
        connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Length", str(2**30))
        connection.endheaders(b" ")
        assert connection.getresponse().status == 413


def test_a_head_that_goes_on_and_on_is_cut_off_and_one_before_a_large_body_is_not(iris):
    with socket.create_connection(iris.removeprefix("http://").split(":")) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\nX: " + b"x" * HEAD_BYTES + b"x")
        assert b"400 Bad Request" in connection.recv(1000)
    with requests.Session() as session:
        for _ in range(3):
            body = {"rows": [[0.123456789] * 4] * 20_000}
            assert session.post(f"{iris}/predict", json=body).status_code == 200


@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"0\r\nX: ", b"x"), (b"0\r\n", b"X: y\r\n"), (b"2;x=", b"x")],
    ids=["a trailer", "trailers", "a chunk's extension"],
)
def test_what_goes_on_and_on_behind_the_head_is_cut_off(iris, begin, more):
    with socket.create_connection(iris.removeprefix("http://").split(":"), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n")
        connection.sendall(begin)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(more * (100 * HEAD_BYTES // len(more)))  # more than the buffers between take


def test_a_long_head_does_not_count_with_the_parts_of_a_slow_body(iris):
    rows = json.dumps({"rows": ROWS}).encode()
    connection = HTTPConnection(iris.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/predict")
    for i in range(6):
        connection.putheader(f"X-{i}", "x" * (HEAD_BYTES // 8))
    connection.putheader("Content-Length", str(HEAD_BYTES + len(rows)))
    connection.endheaders()
    for part in (*[b" " * (HEAD_BYTES // 4)] * 4, rows):
        connection.send(part)
    assert connection.getresponse().status == 200


@contextmanager
def half_a_body(url: str) -> Iterator[HTTPConnection]:
    """A request whose body is on its way: all but its last byte, which is `}`."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(BODY)))
    connection.endheaders(BODY[:-1])
    try:
        yield connection
    finally:
        connection.close()


def first(status: int, url: str) -> requests.Response:
    """The first answer of that status, to requests that are sent one after the other until there is one."""
    answers = (post(f"{url}/predict", BODY) for _ in itertools.count())
    return next(answer for answer in answers if answer.status_code == status)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(pending=1), "at most 1 requests are answered at a time"),
        (Limits(pending_bytes=len(BODY) + 1), f"at most {len(BODY) + 1} bytes are answered at a time"),
    ],
    ids=["requests", "bytes"],
)
def test_what_is_too_much_together_is_told_to_come_again(limits: Limits, said: str):
    with serving(live(), limits=limits) as url, half_a_body(url) as slow:
        refused = first(429, url)
        assert said in refused.text
        assert (refused.headers["Retry-After"], refused.headers["Connection"]) == ("1", "close")
        slow.send(BODY[-1:])
        assert slow.getresponse().status == 200
        assert post(f"{url}/predict", BODY).status_code == 200


def test_a_body_that_does_not_come_is_given_up_and_its_connection_closed():
    with serving(live(), limits=Limits(pending=1, body_s=0.1)) as url, half_a_body(url) as slow:
        answer = slow.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (408, "close")
        assert first(200, url).json()["predictions"] == EXPECTED
