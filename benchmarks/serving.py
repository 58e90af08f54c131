"""Single rows over HTTP: Evertune's server and `mlflow models serve`, on the same models, under the same load."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox

CONNECTIONS, SECONDS, WARM_S = 8, 10.0, 2.0

# Registers two models of the digits, and prints the median milliseconds of one prediction and a row.
MODELS = """
import json
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier
from shared.model import Member, Signature, System, save
from shared.registry import aliases, client
from shared.training.latency import median_ms
from shared.training.threads import limit

limit(1)
X, y = load_digits(return_X_y=True, as_frame=True)
signature = Signature(tuple(X.columns), (64,), tuple(range(10)))
linear = Member("linear", make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)).fit(X, y))
trees = Member("trees", XGBClassifier(n_estimators=50, n_jobs=1).fit(X, y))
took = {}
for name, system in {
    "plain": System(signature, [linear]),
    "blend": System(signature, [linear, trees], [0.5, 0.5]),
}.items():
    facts = {"use_case": name, "metrics": {}, "params": {}, "lineage": {}}
    client.register(name, save(system), example=X[:2], predictions=system.predict(X[:2]), **facts)
    aliases.point(name, "champion", 1)
    took[name] = median_ms(system.predict, [X[:1]] * 300)
print(json.dumps({"took": took, "columns": list(X.columns), "row": X[:1].to_numpy().tolist()}))
"""
NAMES = ("plain", "blend")


def measure() -> Table:
    """Requests per second and the slowest hundredth over 8 connections; the median over one, without a queue."""
    with sandbox() as box:
        facts = json.loads(_output(box, sys.executable, "-c", MODELS))
        rows: list[Sequence[str | float]] = []
        for name in NAMES:
            rows.append((name, "in process", 1000 / facts["took"][name], facts["took"][name], "", "", ""))
            rows.append((name, "evertune serve", *_evertune(box, name, facts)))
            rows.append((name, "mlflow models serve", *_mlflow(box, name, facts)))
    return Table(
        "serving",
        f"Single rows of the digits, {CONNECTIONS} connections for {SECONDS:g} s",
        ["model", "server", "per second", "median ms", "p99 ms", "ready after s", "MB"],
        rows,
        [
            "plain: a scaled LogisticRegression; blend: it and 50 rounds of XGBoost. The median is of one connection.",
            "The client shares the cores with the server.",
        ],
    )


def _evertune(box: Sandbox, name: str, facts: Mapping[str, object]) -> Sequence[float]:
    port = _free_port()
    command = [sys.executable, "-m", "deployments.model_server", name, "--port", str(port)]
    with _serving(box, command, f"http://127.0.0.1:{port}/readyz") as (process, ready_s):
        body = {"columns": facts["columns"], "rows": facts["row"]}
        return [*_load(f"http://127.0.0.1:{port}/predict", body), ready_s, _mb(process)]


def _mlflow(box: Sandbox, name: str, facts: Mapping[str, object]) -> Sequence[float]:
    port = _free_port()
    ask = "from shared.storage.services import mlflow_tracking_uri; print(mlflow_tracking_uri())"
    uri = _output(box, sys.executable, "-c", ask).strip()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{name}@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts `uvicorn` by its name
    env = {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "PATH": path}
    with _serving(box, command, f"http://127.0.0.1:{port}/ping", env) as (process, ready_s):
        body = {"dataframe_split": {"columns": facts["columns"], "data": facts["row"]}}
        return [*_load(f"http://127.0.0.1:{port}/invocations", body), ready_s, _mb(process)]


def _load(url: str, body: object) -> Sequence[float]:
    """Requests per second, median and p99 in ms."""

    def run(connections: int, seconds: float) -> Mapping[str, float]:
        command = [sys.executable, "-m", "benchmarks.serving_load", url, str(connections), str(seconds)]
        done = subprocess.run(command, cwd=ROOT, input=json.dumps(body).encode(), capture_output=True, check=True)
        found: Mapping[str, float] = json.loads(done.stdout)
        return found

    run(CONNECTIONS, WARM_S)
    alone, together = run(1, WARM_S), run(CONNECTIONS, SECONDS)
    if together["failed"]:
        raise RuntimeError(f"{together['failed']:g} requests to {url} failed")
    return together["per_s"], alone["p50_ms"], together["p99_ms"]


@contextmanager
def _serving(
    box: Sandbox, command: Sequence[str], ready: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The server, and the seconds until it was ready."""
    begun = time.perf_counter()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, env=box.env | dict(env or {}), stdout=quiet, stderr=quiet)
    try:
        while not _answers(ready):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} has ended")
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


def _mb(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of the server and its children."""
    return sum(member.memory_info().rss for member in _family(process)) / 2**20


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The process and its children, while it runs."""
    if process.poll() is not None:
        return []
    first = psutil.Process(process.pid)
    return [*first.children(recursive=True), first]


def _output(box: Sandbox, *command: str) -> str:
    return subprocess.run(command, cwd=ROOT, env=box.env, capture_output=True, text=True, check=True).stdout


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
