"""`evertune serve` as a process: it predicts, follows the alias, and ends in order."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import requests
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.model import Member, Signature, System, save
from shared.registry import aliases, client

ROOT = Path(__file__).parents[2]


def promote(system: System, rows: Any) -> int:
    facts = {"use_case": "digits", "metrics": {}, "params": {}, "lineage": {"dataset": "0123456789ab"}}
    version = client.register("digits", save(system), example=rows[:2], predictions=system.predict(rows[:2]), **facts)
    aliases.point("digits", aliases.CHAMPION, version.version)
    return version.version


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_the_pages_commands(address: str, folder: Path) -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    (commands,) = [block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "curl" in block]
    script = "set -euo pipefail\n" + commands.replace("http://127.0.0.1:8000", address)
    subprocess.run(["bash", "-c", script], cwd=folder, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def serve(*arguments: str, output: Path, cwd: Path = ROOT, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "shared.cli", "serve", *arguments]
    with output.open("wb") as log:
        process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(true: Callable[[], bool], within_s: float = 180) -> None:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if true():
                return
        except requests.RequestException:
            pass
        time.sleep(0.05)
    raise AssertionError(f"it didn't come about in {within_s} s")


@pytest.mark.usefixtures("home")
def test_the_champion_is_served_and_followed_and_the_server_ends_in_order(tmp_path: Path) -> None:
    rows, digits = load_digits(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)).fit(rows, digits)
    system = System(Signature(tuple(rows.columns), (64,), tuple(range(10))), [Member("one", model)])
    promote(system, rows)
    port, output, body = free_port(), tmp_path / "output", {"rows": rows[:5].to_numpy().tolist()}
    address = f"http://127.0.0.1:{port}"

    def answer() -> Any:
        return requests.post(f"{address}/predict", json=body, timeout=10).json()

    with serve("digits", "--port", str(port), output=output) as process:
        until(lambda: requests.get(f"{address}/readyz").status_code == 200)
        assert answer() == {"version": 1, "predictions": system.predict(rows[:5]).tolist()}
        assert Path(f"/proc/{process.pid}/maps").read_text().count("libtorch") == 0
        if shutil.which("curl"):  # a slim image has none
            run_the_pages_commands(address, tmp_path)
        promote(system, rows)
        until(lambda: answer()["version"] == 2)
        aliases.point("digits", aliases.CHAMPION, 1)
        until(lambda: answer()["version"] == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    lines = [line for line in output.read_text().splitlines() if line.startswith("model is live")]
    assert lines == [f"model is live model='digits' version={version}" for version in (1, 2, 1)]


@pytest.mark.usefixtures("home")
def test_a_gigabyte_is_refused_early_and_costs_no_memory(tmp_path: Path) -> None:
    port = free_port()
    with serve("digits", "--port", str(port), output=tmp_path / "output", EVERTUNE_SERVE_TOKENS="one") as process:
        until(lambda: requests.get(f"http://127.0.0.1:{port}/healthz").ok)
        known = "Authorization: Bearer one\r\n"
        chunked, declared = "Transfer-Encoding: chunked\r\n\r\n", f"Content-Length: {2**30}\r\n\r\n"
        before = psutil.Process(process.pid).memory_info().rss
        for head, status in (
            (known + chunked, 413),
            (known + declared, 413),
            (chunked, 401),
            (declared, 401),
            ("X: ", 400),
        ):
            said, sent = a_gigabyte(
                port, head, chunk=b"100000\r\n" + b" " * 2**20 + b"\r\n" if "chunk" in head else None
            )
            assert (said.split()[1], sent < 100 * 2**20) == (str(status).encode(), True), head
        assert psutil.Process(process.pid).memory_info().rss - before < 50 * 2**20
        assert requests.get(f"http://127.0.0.1:{port}/healthz").ok


def most_memory(process: subprocess.Popen[bytes]) -> int:
    """Kilobytes that a process had at most."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


@pytest.mark.usefixtures("home")
def test_many_large_bodies_of_json_at_once_take_hardly_more_memory_than_one(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": [0.0, 1.0]})
    promote(System(Signature(("a",), (1,)), [Member("one", LinearRegression().fit(rows, [0.0, 1.0]))]), rows)
    n, port = 300_000, free_port()
    body = b"[" + b",".join([b'{"a":1}'] * n) + b"]"

    def predicted(_: int) -> int:
        return len(requests.post(f"http://127.0.0.1:{port}/predict", body).json()["predictions"])

    with serve("digits", "--port", str(port), output=tmp_path / "output", EVERTUNE_CORES="8") as process:
        until(lambda: requests.get(f"http://127.0.0.1:{port}/readyz").ok)
        before = most_memory(process)
        assert predicted(0) == n
        one = most_memory(process) - before
        with ThreadPoolExecutor(8) as clients:
            assert [*clients.map(predicted, range(8))] == [n] * 8
        assert most_memory(process) - before < 2 * one


def a_gigabyte(port: int, head: str, chunk: bytes | None = None) -> tuple[bytes, int]:
    """What is answered to a request with a gigabyte after its head, and the bytes that it took to hear that."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"POST /digits/predict HTTP/1.1\r\nHost: here\r\n{head}".encode())
        sent = 0
        try:
            while sent < 2**30:
                connection.sendall(chunk or b" " * 2**20)
                sent += 2**20
        except OSError:
            pass
        return connection.recv(1000), sent


def test_what_can_not_be_served_is_refused_before_an_address_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in (
            (("digits", "--host", "0.0.0.0"), "EVERTUNE_SERVE_TOKENS isn't set"),
            (("digit",), "did you mean 'digits'?"),
            (("../../configs/digits",), "there is no such config"),
            (
                ("digits", "--port", str(port)),
                f"is free, but http://127.0.0.1:{port} isn't one (Address already in use)",
            ),
        ):
            with serve(*arguments, output=tmp_path / "output", EVERTUNE_SERVE_TOKENS=" , ") as process:
                assert process.wait(60) == 1
            told = (tmp_path / "output").read_text()
            assert (said in told, "/docs" in told) == (True, False)
