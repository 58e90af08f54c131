"""Trials per second through Optuna's storages: which one, and up to how many workers."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import geometric_mean, median, quantiles
from subprocess import PIPE

import psutil
import psycopg

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox

WORKER = (sys.executable, "-m", "benchmarks.storage_worker")
OURS, RDB = "PostgresStorage", "RDBStorage"
GRPC_RDB, GRPC_OURS = f"GrpcStorageProxy over {RDB}", f"GrpcStorageProxy over {OURS}"
STORAGES = (RDB, GRPC_RDB, "JournalStorage", OURS, GRPC_OURS)
WORKERS = (1, 2, 4, 8, 16, 32)
SIZE = 1000  # trials in the study
SIZES = (100, 10_000)  # and so, with four workers
SECONDS = 3.0  # of each run, from when all workers are ready
CLAIMED = (1, 2, 4, 8)
KEYS = ("trials_s", "p50_ms", "p99_ms", "database_ms", "connections", "memory_mib")

Runs = dict[tuple[str, int, int], list[dict[str, float]]]


def measure(repeat: int) -> Table:
    """Medians of `repeat` runs of each, the storages side by side; of a third as many where nothing is claimed."""
    cells = [(workers, SIZE) for workers in WORKERS] + [(4, size) for size in SIZES]
    with sandbox() as box:
        box.evertune("services", "start")
        runs: Runs = {(storage, *cell): [] for cell in cells for storage in STORAGES}
        for cell in cells:
            for _ in range(repeat if cell[0] in CLAIMED and cell[1] == SIZE else max(1, repeat // 3)):
                for storage in STORAGES:
                    runs[storage, *cell].append(run(box, storage, *cell))
            print(cell, {s: round(median(one["trials_s"] for one in runs[s, *cell]), 1) for s in STORAGES}, flush=True)
    rows = [
        (storage, str(workers), f"{size:,}", *(median(one[key] for one in found) for key in KEYS),
         ratio(runs, storage, RDB, workers, size))
        for (storage, workers, size), found in runs.items()
    ]  # fmt: skip
    return Table(
        "storage",
        f"Storages on PostgreSQL and beside it: 4 parameters, 5 intermediate values a trial (medians of {repeat})",
        (
            "storage", "workers", "trials before", "trials/s", "ask p50, ms", "ask p99, ms", "database CPU, ms/trial",
            "connections", "memory, MiB", "x RDBStorage",
        ),
        rows,
        notes=(
            f"{OURS} with its budget and leases on, as the flows use it.",
            f"Of {max(1, repeat // 3)} above {CLAIMED[-1]} workers and with other sizes.",
            claim(runs, RDB),
            claim(runs, GRPC_RDB),
        ),
    )  # fmt: skip


def ratio(runs: Runs, storage: str, other: str, workers: int, size: int) -> float:
    """Of the medians of trials per second."""
    mine, its = (median(one["trials_s"] for one in runs[s, workers, size]) for s in (storage, other))
    return mine / its


def claim(runs: Runs, other: str) -> str:
    ratios = [ratio(runs, OURS, other, workers, SIZE) for workers in CLAIMED]
    each = ", ".join(f"{r:.3g}" for r in ratios)
    return f"{OURS} over {other} at {CLAIMED} workers: {each}; geometric mean {geometric_mean(ratios):.3g}."


def run(box: Sandbox, storage: str, workers: int, size: int) -> dict[str, float]:
    """One measurement, on a study of its own that has `size` trials."""
    study = f"study-{time.time_ns()}"
    with served(box, storage) as port, crew(box, storage, study, size, workers, SECONDS, port) as (say, hear):
        if hear() != "ready":
            raise RuntimeError(f"the workers of {storage} failed, as they said above")
        with psycopg.connect(url(box)) as connection:
            connection.execute("ANALYZE")
        before = database_cpu_s(box)
        say("go")
        time.sleep(SECONDS / 2)
        connections = connected(box)
        told = json.loads(hear())
        used = database_cpu_s(box) - before
    asked = sorted(seconds for one in told for seconds in one["asked"])
    return {
        "trials_s": sum(len(one["asked"]) / one["seconds"] for one in told),
        "p50_ms": 1000 * median(asked),
        "p99_ms": 1000 * quantiles(asked, n=100)[-1] if len(asked) > 1 else 1000 * asked[0],
        "database_ms": 1000 * used / len(asked),
        "connections": connections,
        "memory_mib": max(one["memory_mib"] for one in told),
    }


@contextmanager
def crew(box: Sandbox, *arguments: object) -> Iterator[tuple[Callable[[str], None], Callable[[], str]]]:
    """The workers, as what tells them a line, and what hears one from them."""
    command = (*WORKER, *map(str, arguments))
    process = subprocess.Popen(command, cwd=ROOT, env=box.env, text=True, bufsize=1, stdin=PIPE, stdout=PIPE)
    assert process.stdin
    assert process.stdout
    tell, lines = process.stdin, process.stdout
    try:
        yield lambda line: print(line, file=tell, flush=True), lambda: lines.readline().strip()
    finally:
        process.communicate()


@contextmanager
def served(box: Sandbox, storage: str) -> Iterator[str]:
    """The port of the gRPC server, where the storage needs one."""
    if not storage.startswith("Grpc"):
        yield "0"
        return
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen((*WORKER, storage, "serve", "0", "0", "0", str(port)), cwd=ROOT, env=box.env)
    try:
        while not listens(port):
            if server.poll() is not None:
                raise RuntimeError(f"the server of {storage} failed, as it said above")
            time.sleep(0.1)
        yield str(port)
    finally:
        server.kill()
        server.wait()


def listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("localhost", port)) == 0


def url(box: Sandbox) -> str:
    found = subprocess.run(
        (sys.executable, "-c", "from shared.storage.services import database_url; print(database_url())"),
        cwd=ROOT, env=box.env, text=True, capture_output=True, check=True,
    )  # fmt: skip
    return found.stdout.strip()


def connected(box: Sandbox) -> float:
    """Connections to the database, without this one."""
    with psycopg.connect(url(box)) as connection:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        row = connection.execute(count).fetchone()
    return float(row[0]) if row else 0.0


def database_cpu_s(box: Sandbox) -> float:
    """CPU seconds of the server's processes so far, those that have ended included."""
    pid = int((box.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    server = psutil.Process(pid)
    times = server.cpu_times()
    used = times.user + times.system + times.children_user + times.children_system
    for child in server.children():
        try:
            used += sum(child.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return used
