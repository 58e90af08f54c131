"""`python -m benchmarks.storage_worker STORAGE STUDY TRIALS [PORT]`: one worker of the storage benchmark.

Says `ready`, waits for a line, runs its trials (4 parameters, 5 intermediate values, RandomSampler), and prints its
seconds, those of each `ask`, and its greatest memory in MiB, as JSON. In place of a study, `serve` serves by gRPC.
"""

import json
import resource
import sys
import time
import warnings

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend

from shared.settings import settings
from shared.storage import PostgresStorage
from shared.storage.database import sqlalchemy_url
from shared.storage.leases import Leases
from shared.storage.services import database_url

N_PARAMETERS, N_STEPS = 4, 5


def open_storage(kind: str, port: int) -> BaseStorage:
    if kind.startswith("GrpcStorageProxy"):
        return GrpcStorageProxy(host="localhost", port=port)
    return open_backend(kind)


def open_backend(kind: str) -> BaseStorage:
    match kind.removeprefix("GrpcStorageProxy over "):
        case "RDBStorage":
            return RDBStorage(sqlalchemy_url(database_url()), engine_kwargs={"pool_size": 1})
        case "JournalStorage":
            return JournalStorage(JournalFileBackend(str(settings().home / "journal.log")))
        case _:
            return PostgresStorage()


def run_trial(study: optuna.Study) -> float:
    """One trial; returns the seconds of `ask`."""
    begin = time.perf_counter()
    trial = study.ask()
    asked = time.perf_counter() - begin
    value = sum(trial.suggest_float(f"x{i}", 0, 1) for i in range(N_PARAMETERS))
    for step in range(N_STEPS):
        trial.report(value / (step + 1), step)
    study.tell(trial, value)
    return asked


def main(kind: str, study_name: str, n_trials: str, port: str = "0") -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    if study_name == "serve":
        return run_grpc_proxy_server(open_backend(kind), host="localhost", port=int(port))
    study = optuna.create_study(
        study_name=study_name,
        storage=open_storage(kind, int(port)),
        sampler=optuna.samplers.RandomSampler(),
        load_if_exists=True,
    )
    if isinstance(study._storage, PostgresStorage):  # as in the flows: within a budget, under leases
        Leases(study._storage, study._study_id, budget=10**9).__enter__()
    run_trial(study)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    asked = [run_trial(study) for _ in range(int(n_trials))]
    seconds = time.perf_counter() - begin
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "asked": asked, "memory_mib": memory_mib}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
