"""Trials per second through Optuna's storages: which one, and up to how many workers."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles

import psutil
import psycopg

from benchmarks.report import Table
from benchmarks.sandbox import ROOT, Sandbox, sandbox

WORKER = (sys.executable, "-m", "benchmarks.storage_worker")
OURS = "PostgresStorage"
STORAGES = ("RDBStorage", "GrpcStorageProxy over RDBStorage", "JournalStorage", OURS, f"GrpcStorageProxy over {OURS}")
WORKERS = (1, 2, 4, 8, 16, 32)
SIZES = (100, 10_000)  # with four workers; else there are a thousand trials in the study
PORT = 13_000
SECONDS = 4.0  # about so long is measured
GUESSED = {"RDBStorage": 20, "JournalStorage": 150, OURS: 350}  # trials per second, to choose how many


def measure(repeat: int) -> Table:
    """Medians of `repeat` runs of each, the storages side by side."""
    cells = [(workers, 1000) for workers in WORKERS] + [(4, size) for size in SIZES]
    with sandbox() as box:
        box.evertune("services", "start")
        runs = {
            (storage, *cell): [run(box, storage, *cell) for _ in range(repeat)]
            for cell in cells
            for storage in STORAGES
        }
    rows = []
    for (storage, workers, size), found in runs.items():
        base = runs["RDBStorage", workers, size]
        ratio = median(mine["trials_s"] / other["trials_s"] for mine, other in zip(found, base, strict=True))
        figures = (median(one[key] for one in found) for key in KEYS)
        rows.append((storage, str(workers), f"{size:,}", *figures, ratio))
    return Table(
        "storage",
        f"Storages on PostgreSQL and beside it: 4 parameters, 5 intermediate values a trial (medians of {repeat})",
        (
            "storage", "workers", "trials before", "trials/s", "ask p50, ms", "ask p99, ms", "database CPU, ms/trial",
            "connections", "memory, MiB", "x RDBStorage",
        ),
        rows,
        notes=(f"{OURS} with its budget and leases on, as the flows use it.",),
    )  # fmt: skip


KEYS = ("trials_s", "p50_ms", "p99_ms", "database_ms", "connections", "memory_mib")


def run(box: Sandbox, storage: str, workers: int, size: int) -> dict[str, float]:
    """One measurement, on a study of its own that has `size` trials."""
    study = f"{storage}/{workers}/{size}/{time.time()}"
    n_trials = max(4, round(GUESSED[storage.rpartition(" ")[2]] * SECONDS / workers))
    with served(box, storage):
        fill(box, storage, study, size)
        crew = [start(box, storage, study, n_trials) for _ in range(workers)]
        for worker in crew:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n", storage
        before = database_cpu_s(box)
        for worker in crew:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        connections = connected(box)
        told = [json.loads(worker.communicate()[0]) for worker in crew]
        used = database_cpu_s(box) - before
    asked = sorted(seconds for one in told for seconds in one["asked"])
    done = workers * n_trials
    return {
        "trials_s": done / max(one["seconds"] for one in told),
        "p50_ms": 1000 * median(asked),
        "p99_ms": 1000 * quantiles(asked, n=100)[-1],
        "database_ms": 1000 * used / done,
        "connections": connections,
        "memory_mib": max(one["memory_mib"] for one in told),
    }


def start(box: Sandbox, storage: str, study: str, n_trials: int) -> subprocess.Popen[str]:
    command = (*WORKER, storage, study, str(n_trials), str(PORT))
    return subprocess.Popen(
        command, cwd=ROOT, env=box.env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip


@contextmanager
def served(box: Sandbox, storage: str) -> Iterator[None]:
    """The gRPC server, where the storage needs one."""
    if not storage.startswith("Grpc"):
        yield
        return
    server = start(box, storage, "serve", 0)
    try:
        time.sleep(3)
        yield
    finally:
        server.kill()
        server.wait()


def fill(box: Sandbox, storage: str, study: str, size: int) -> None:
    """A study of `size` finished trials, made by the quickest way to where the storage keeps them."""
    quickest = storage if storage == "JournalStorage" else OURS
    filler = start(box, quickest, study, size - 1)
    filler.communicate("go\n")


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
