"""`python -m benchmarks.storage_worker STORAGE STUDY SIZE WORKERS SECONDS PORT`: one run of the storage benchmark.

The workers are forked when all is imported and the study has SIZE trials. Says `ready`, waits for a line, lets them run
trials (4 parameters, 5 intermediate values, RandomSampler), prints what each did as JSON, and waits for the end of its
input. `serve` in place of a study serves by gRPC.
"""

import json
import multiprocessing
import resource
import sys
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend

from benchmarks.engine_worker import N_PARAMETERS, N_STEPS, suggest_and_report
from shared.settings import settings
from shared.storage import PostgresStorage
from shared.storage.database import sqlalchemy_url
from shared.storage.leases import Leases
from shared.storage.services import database_url


def open_storage(kind: str, study: str, port: int) -> BaseStorage:
    if kind.startswith("GrpcStorageProxy"):
        return GrpcStorageProxy(host="localhost", port=port)
    if kind == "JournalStorage":
        return JournalStorage(JournalFileBackend(str(journal(study))))
    return open_backend(kind)


def open_backend(kind: str) -> BaseStorage:
    if kind.endswith("RDBStorage"):
        return RDBStorage(sqlalchemy_url(database_url()), engine_kwargs={"pool_size": 1})
    return PostgresStorage()


def journal(study: str) -> Path:
    """A file for each study, since all of a file is read."""
    return settings().home / f"{study}.journal"


def fill(kind: str, study_name: str, size: int) -> None:
    """A study of so many finished trials, made by the quickest way to where the storage keeps them."""
    storage = open_storage("JournalStorage" if kind == "JournalStorage" else "", study_name, 0)
    study = optuna.create_study(study_name=study_name, storage=storage)
    parameters = {f"x{i}": 0.5 for i in range(N_PARAMETERS)}
    done = optuna.trial.create_trial(
        params=parameters,
        distributions=dict.fromkeys(parameters, optuna.distributions.FloatDistribution(0, 1)),
        intermediate_values={step: 2 / (step + 1) for step in range(N_STEPS)},
        value=2.0,
    )
    study.add_trials([done] * size)
    if isinstance(storage, PostgresStorage):
        storage.close()


def run_trial(study: optuna.Study) -> float:
    """One trial; returns the seconds of `ask`."""
    begin = time.perf_counter()
    trial = study.ask()
    asked = time.perf_counter() - begin
    study.tell(trial, suggest_and_report(trial))
    return asked


def work(kind: str, study_name: str, seconds: float, port: int, line: Connection) -> None:
    """One worker. Sends `None` when it is ready, and what it did; each time it waits for an answer."""
    storage = open_storage(kind, study_name, port)
    study = optuna.load_study(study_name=study_name, storage=storage, sampler=optuna.samplers.RandomSampler())
    if isinstance(storage, PostgresStorage):  # as in the flows: within a budget, under leases
        Leases(storage, study._study_id, budget=10**9).__enter__()
    run_trial(study)
    line.send(None)
    line.recv()
    asked, begin = [], time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds or not asked:
        asked.append(run_trial(study))
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line.send({"seconds": elapsed, "asked": asked, "memory_mib": memory_mib})
    line.recv()


def main(kind: str, study: str, size: str, workers: str, seconds: str, port: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    if study == "serve":
        return run_grpc_proxy_server(open_backend(kind), host="localhost", port=int(port))
    fill(kind, study, int(size))
    fork = multiprocessing.get_context("fork")
    lines = []
    for _ in range(int(workers)):
        mine, its = fork.Pipe()
        fork.Process(target=work, args=(kind, study, float(seconds), int(port), its), daemon=True).start()
        its.close()
        lines.append(mine)
    for line in lines:
        line.recv()
    print("ready", flush=True)
    sys.stdin.readline()
    for line in lines:
        line.send("go")
    print(json.dumps([line.recv() for line in lines]), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
