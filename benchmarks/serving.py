"""Predictions over HTTP: Evertune's server beside `mlflow models serve` and the model alone, on the same rows."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev
from tempfile import TemporaryFile
from urllib.error import URLError
from urllib.request import urlopen

import pandas as pd
import psutil
import pyarrow as pa

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox

CONNECTIONS, ROUNDS, ROUND_S, WARM_S = 8, 5, 3.0, 2.0
PAIRS, PAIR_S = 15, 0.5  # of what differs by a millisecond: less than the machine does from one second to the next
PAUSE_S = 0.001  # about what a client takes from an answer to its next request
MANY, MANY_S = 10_000, 1.5  # rows of a large request, and how long it is asked
SWAPPING_S, SWAPS = 60.0, 5
READY_WITHIN_S = 120.0
ARROW = "application/vnd.apache.arrow.stream"

# Registers two champions of the digits, and prints their columns. The network's weights are random: they cost the same.
MODELS = """
import json, runpy
from optuna.trial import FixedTrial
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from shared.model import Member, Signature, System, save
from shared.registry import aliases, client

X, y = load_digits(return_X_y=True, as_frame=True)
X.columns = [f"pixel_{i}" for i in range(64)]
signature = Signature(tuple(X.columns), (1, 8, 8), tuple(range(10)))
linear = Member("linear", make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)).fit(X, y))
classical = runpy.run_path("flows/classical_hpo/objectives/digits.py")["build"]
deep = runpy.run_path("flows/deep_hpo/objectives/digits.py")["build"]
svm = classical(FixedTrial({"family": "svm", "svm_C": 5.0, "svm_gamma": 1e-3})).fit(X, y)
net = deep(FixedTrial({"architecture": "cnn", "cnn_channels": 24, "dropout": 0.2})).eval()
for name, system in {
    "plain": System(signature, [linear]),
    "digits": System(signature, [Member("classical", svm), Member("deep", net)], [0.5, 0.5]),
}.items():
    facts = {"use_case": name, "metrics": {}, "params": {}, "lineage": {}}
    for _ in range(SWAPS + 1):
        client.register(name, save(system), example=X[:2], predictions=system.predict(X[:2]), **facts)
    aliases.point(name, "champion", 1)
print(json.dumps(list(X.columns)))
"""
NAMES = ("plain", "digits")

Rounds = Sequence[Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Server:
    """url: what is asked; ready_s: from its start to its readiness."""

    url: str
    process: subprocess.Popen[bytes]
    ready_s: float

    @property
    def mb(self) -> float:
        """Resident memory, its children's too."""
        return sum(member.memory_info().rss for member in _family(self.process)) / 2**20


def measure() -> Table:
    """Rounds in which one after the other is asked, so that what else the machine does hits all."""
    with sandbox() as box:
        columns = register(box, 0)
        rows = [row for name in NAMES for row in _measured(box, name, columns)]
    return Table(
        "serving",
        f"Single rows of the digits over HTTP: {CONNECTIONS} connections, medians of {ROUNDS} rounds",
        ["model", "measure", "evertune serve", "compared with", "", "ratio", "goal"],
        rows,
        [
            "plain: a scaled LogisticRegression; digits: a calibrated SVM and a convolutional network, half and half.",
            "in process: `predict` of one row, again and again; paced: with a pause of 1 ms between, as requests have.",
            f"One connection and in process: medians of {PAIRS} pairs, and their standard error.",
            "The clients share the cores with the servers.",
        ],
    )


def measure_swaps() -> Table:
    """Versions swapped under load."""
    with sandbox() as box:
        columns = register(box, SWAPS)
        found = {name: _swapped(box, name, columns) for name in NAMES}
    return Table(
        "swapping",
        f"{SWAPS} swaps under 70 % of the load that the server can answer, for {SWAPPING_S:g} s",
        ["model", "swaps", "failed", "per second", "p99 ms before", "p99 ms during", "ratio", "worst", "goal"],
        [
            (
                name, f["swaps"], f["failed"], f["per_s"], f["p99_before_ms"], f["p99_during_ms"], f["ratio"],
                f["worst"], "ratio ≤ 3, none failed",
            )
            for name, f in found.items()
        ],
        ["during: due between the move of the alias and the first answer of its version; before: in as long a time."],
    )  # fmt: skip


def register(box: Sandbox, swaps: int) -> Sequence[str]:
    """The columns of two champions, registered with as many versions after each as it will be swapped for."""
    columns: Sequence[str] = json.loads(box.output(sys.executable, "-c", f"SWAPS = {swaps}\n{MODELS}"))
    return columns


def _measured(box: Sandbox, name: str, columns: Sequence[str]) -> Iterator[Sequence[str | float]]:
    row = pd.DataFrame([[5.0] * len(columns)], columns=list(columns))
    asked = json.dumps({"columns": list(columns), "rows": row.to_numpy().tolist()}).encode()
    asked_mlflow = json.dumps({"dataframe_split": row.to_dict("split")}).encode()
    many = _arrow(pd.concat([row] * MANY, ignore_index=True))
    with ExitStack() as stack:
        alone = stack.enter_context(_alone(box, name))
        ours = stack.enter_context(_evertune(box, name))
        theirs = stack.enter_context(_mlflow(box, name))
        for url, body in ((ours.url, asked), (theirs.url, asked_mlflow)):
            _load(url, body, CONNECTIONS, WARM_S)
        rounds = [
            {
                "alone": _ask(alone, 1), "alone many": _ask(alone, MANY),
                "many": _load(ours.url, many, 1, MANY_S, ARROW),
                "ours": _load(ours.url, asked, CONNECTIONS, ROUND_S),
                "theirs": _load(theirs.url, asked_mlflow, CONNECTIONS, ROUND_S),
            }
            for _ in range(ROUNDS)
        ]  # fmt: skip
        pairs = [
            {"paced": _ask(alone, 1, PAUSE_S), "one": _load(ours.url, asked, 1, PAIR_S), "alone": _ask(alone, 1)}
            for _ in range(PAIRS)
        ]
        yield from _rows(name, rounds, pairs, ours, theirs)


def _rows(name: str, rounds: Rounds, pairs: Rounds, ours: Server, theirs: Server) -> Iterator[Sequence[str | float]]:
    def compared(
        what: str, figure: str, a: str, b: str, other: str, goal: str, rounds: Rounds = rounds
    ) -> Sequence[str | float]:
        found = [(r[a][figure], r[b][figure]) for r in rounds]
        ratio = median([x / y for x, y in found])
        return name, what, median([x for x, _ in found]), other, median([y for _, y in found]), ratio, goal

    yield compared("requests/s", "per_s", "ours", "theirs", "mlflow models serve", "≥ 10")
    yield compared("p99 ms", "p99_ms", "ours", "theirs", "mlflow models serve", "≤ 0.1")
    yield compared("requests/s", "per_s", "ours", "alone", "in process", "≥ 0.6")
    for alone, other in (("paced", "in process, paced"), ("alone", "in process")):
        added = [pair["one"]["p50_ms"] - pair[alone]["p50_ms"] for pair in pairs]
        goal = f"{median(added):+.2f} ± {1.25 * stdev(added) / PAIRS**0.5:.2f} ms, ≤ +1"
        yield compared("median ms, one connection", "p50_ms", "one", alone, other, goal, pairs)
    yield compared(f"ms of {MANY} rows by Arrow", "p50_ms", "many", "alone many", "in process", "≤ 1.3")
    yield (
        name,
        "ready after s",
        ours.ready_s,
        "mlflow models serve",
        theirs.ready_s,
        ours.ready_s / theirs.ready_s,
        "≤ 8 s",
    )
    yield name, "MB", ours.mb, "mlflow models serve", theirs.mb, ours.mb / theirs.mb, "≤ 400 without torch"


def _swapped(box: Sandbox, name: str, columns: Sequence[str]) -> Mapping[str, float]:
    body = json.dumps({"columns": list(columns), "rows": [[5.0] * len(columns)]})
    with _evertune(box, name) as server:
        command = [sys.executable, "-m", "benchmarks.serving_swaps", name, server.url, str(SWAPPING_S), str(SWAPS)]
        done = subprocess.run(command, cwd=ROOT, env=box.env, input=body, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found: Mapping[str, float] = json.loads(done.stdout)
    return found


def _arrow(rows: pd.DataFrame) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pandas(rows, preserve_index=False)
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


@contextmanager
def _alone(box: Sandbox, name: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.serving_alone", name]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, env=box.env, stdin=pipe, stdout=pipe, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def _ask(alone: subprocess.Popen[str], n_rows: int, pause_s: float = 0.0) -> Mapping[str, float]:
    assert alone.stdin is not None
    assert alone.stdout is not None
    alone.stdin.write(f"[{n_rows}, {PAIR_S}, {pause_s}]\n")
    alone.stdin.flush()
    took_ms = float(alone.stdout.readline())
    return {"p50_ms": took_ms, "per_s": 1000 / took_ms}


@contextmanager
def _evertune(box: Sandbox, name: str) -> Iterator[Server]:
    port = _free_port()
    command = [sys.executable, "-m", "deployments.model_server", name, "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with serving(box, command, f"{address}/readyz") as (process, ready_s):
        yield Server(f"{address}/predict", process, ready_s)


@contextmanager
def _mlflow(box: Sandbox, name: str) -> Iterator[Server]:
    port = _free_port()
    ask = "from shared.storage.services import mlflow_tracking_uri; print(mlflow_tracking_uri())"
    uri = box.output(sys.executable, "-c", ask).strip()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{name}@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts `uvicorn` by its name
    env = {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "PATH": path}
    address = f"http://127.0.0.1:{port}"
    with serving(box, command, f"{address}/ping", env) as (process, ready_s):
        yield Server(f"{address}/invocations", process, ready_s)


def _load(
    url: str, body: bytes, connections: int, seconds: float, content_type: str = "application/json"
) -> Mapping[str, float]:
    command = [sys.executable, "-m", "benchmarks.serving_load", url, str(connections), str(seconds), content_type]
    done = subprocess.run(command, cwd=ROOT, input=body, capture_output=True, check=True)
    found: Mapping[str, float] = json.loads(done.stdout)
    if found["failed"]:
        raise RuntimeError(f"{found['failed']:g} requests to {url} failed")
    return found


@contextmanager
def serving(
    box: Sandbox,
    command: Sequence[str],
    ready: str,
    env: Mapping[str, str] | None = None,
    within_s: float = READY_WITHIN_S,
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The server, and the seconds until it was ready.

    Raises:
        RuntimeError: it has ended, or takes too long; the message has its last words.
    """
    begun = time.perf_counter()
    with TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=box.env | dict(env or {}), stdout=output, stderr=output)
        try:
            while not _answers(ready):
                if process.poll() is not None or time.perf_counter() - begun > within_s:
                    output.seek(0)
                    state = "still runs" if process.returncode is None else f"has ended with {process.returncode}"
                    said = f"{' '.join(command)} must be ready within {within_s:g} s, but {state}"
                    raise RuntimeError(f"{said}:\n{output.read()[-3000:]}")
                time.sleep(0.05)
            yield process, time.perf_counter() - begun
        finally:
            for member in _family(process):
                member.terminate()
            process.wait()


def _answers(url: str) -> bool:
    try:
        urlopen(url, timeout=5).close()
    except (URLError, OSError):
        return False
    return True


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The process and its children, while it runs."""
    if process.poll() is not None:
        return []
    first = psutil.Process(process.pid)
    return [*first.children(recursive=True), first]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
