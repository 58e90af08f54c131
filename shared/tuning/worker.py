"""The loop of a worker: ask for a trial where the budget has room, evaluate it, tell; until the budget is full."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

from shared.domain import Direction, StudySpec
from shared.errors import ServiceError, StudyFailed
from shared.tuning.objective import check_value
from shared.tuning.stopping import INTERRUPTED, WARM_START, Stopping
from shared.tuning.study import open_study

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

    from shared.storage import PostgresStorage
    from shared.storage.leases import Leases

logger = logging.getLogger(__name__)

Evaluate = Callable[["optuna.Trial"], float | Sequence[float]]

# A worker that waits for the others' last trials looks again after the first, then after twice as long, up to the last.
POLL_S = (0.02, 1.0)
# How often a worker looks for trials whose worker died.
LOOK_S = 2.0
ERROR_CHARACTERS = 2000


@dataclass(frozen=True)
class WorkerStats:
    """What a worker did. trials: those that it ended; stopped: why, if the budget wasn't the reason."""

    worker: int
    trials: int
    wall_s: float
    cpu_s: float
    evaluate_s: float
    last_error: str = ""
    stopped: str = ""


def run_worker(
    spec: StudySpec,
    evaluate: Evaluate,
    *,
    worker: int = 0,
    owner: str = "",
    elapsed_s: float = 0.0,
) -> WorkerStats:
    """Run trials of a study in this process until as many as its budget have finished, over all workers.

    A trial that raises is FAIL, with the end of its traceback as user attribute `error`; its configuration is run once
    more, and so is that of a trial whose worker died or stood still for longer than a lease. The study stops early for
    the reasons of `stopping`, between two trials: none is cut off. `timeout_s` counts from `elapsed_s` before the call.

    worker: its number, for random numbers of its own. owner: by which an attempt at a task knows what an earlier
    attempt left running.

    Raises:
        ServiceError: the database was lost.
        KeyboardInterrupt, SystemExit: as they came (SIGTERM is SystemExit); the running trial is told FAIL before.
    """
    from optuna.exceptions import StorageInternalError

    from shared.storage.postgres import GoneError, PostgresStorage

    storage = PostgresStorage()
    try:
        with sigterm_exits():
            study, started = open_study(spec, storage, worker), time.perf_counter() - elapsed_s
            return _Worker(spec, evaluate, worker, study, storage, owner, started).run()
    except StorageInternalError as err:
        raise ServiceError(
            f"study {spec.name} needs a database that keeps its trials, but this one refuses ({err.__cause__ or err}); "
            "what has finished is kept"
        ) from err
    except GoneError as err:
        raise StudyFailed(
            f"study {spec.name} was deleted while it was tuned, by hand or by another run with `--force`; run the flow "
            "again"
        ) from err
    finally:
        storage.close()


@dataclass
class _Worker:
    spec: StudySpec
    evaluate: Evaluate
    worker: int
    study: optuna.Study
    storage: PostgresStorage
    owner: str
    started: float
    trials: int = 0
    evaluate_s: float = 0.0
    last_error: str = ""
    stopping: Stopping = field(init=False)
    looked: float = -math.inf

    def __post_init__(self) -> None:
        self.stopping = Stopping(self.spec)

    def run(self) -> WorkerStats:
        from shared.storage.leases import Leases

        began_s = cpu_s()
        self.study._thread_local.in_optimize_loop = True  # a sampler or an objective may call `study.stop()`
        enqueue_warm_starts(self.study, self.spec, self.storage)
        with Leases(self.storage, self.study._study_id, self.spec.n_trials, self.owner) as leases:
            stopped = self._loop(leases)
        return WorkerStats(
            self.worker,
            self.trials,
            time.perf_counter() - self.started,
            cpu_s() - began_s,
            self.evaluate_s,
            self.last_error,
            stopped,
        )

    def _loop(self, leases: Leases) -> str:
        from shared.storage.postgres import NoRoomError

        pause = POLL_S[0]
        while not (stopped := self._reason_to_stop()):
            self._give_back(leases)
            try:
                trial = self.study.ask()
            except NoRoomError:
                if leases.is_full():
                    break
                time.sleep(pause)
                pause = min(2 * pause, POLL_S[1])
            else:
                self._run_trial(trial)
                pause = POLL_S[0]
        return stopped

    def _give_back(self, leases: Leases) -> None:
        if time.perf_counter() - self.looked < LOOK_S:
            return
        self.looked = time.perf_counter()
        give_back(self.study, leases)

    def _reason_to_stop(self) -> str:
        if self.study._stop_flag:
            return "stopped by its sampler or objective"
        return self.stopping.reason(self.study.get_trials(deepcopy=False), time.perf_counter() - self.started)

    def _run_trial(self, trial: optuna.Trial) -> None:
        try:
            state, values = self._evaluate(trial)
        except Exception as err:  # noqa: BLE001  # whatever an objective raises costs one trial
            self.last_error = _tail(err)
            fail(self.study, trial._trial_id, "raised", self.last_error)
        except BaseException as err:
            with suppress(Exception):  # what can't be told now is given back when the lease is over
                fail(self.study, trial._trial_id, INTERRUPTED, repr(err))
            raise
        else:
            self._tell(trial, state, values)
        self.trials += 1
        logger.debug("trial ended", extra={"study": self.spec.name, "trial": trial.number, "worker": self.worker})

    def _tell(self, trial: optuna.Trial, state: TrialState, values: tuple[float, ...] | None) -> None:
        """Tell how a trial ended; if this worker was taken for dead, the trial has ended before, and that counts."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            self.study.tell(trial, values, state)
        except (UpdateFinishedTrialError, ValueError):
            if self.storage.get_trial(trial._trial_id).state != TrialState.FAIL:
                raise
            warn_of_late(self.study, trial.number)

    def _evaluate(self, trial: optuna.Trial) -> tuple[TrialState, tuple[float, ...] | None]:
        from optuna import TrialPruned
        from optuna.trial import TrialState

        started = time.perf_counter()
        try:
            return TrialState.COMPLETE, check_value(self.evaluate(trial), len(self.spec.directions))
        except TrialPruned:
            return TrialState.PRUNED, None
        finally:
            self.evaluate_s += time.perf_counter() - started


def give_back(study: optuna.Study, leases: Leases) -> None:
    """Fail the trials whose worker died, and enqueue their configurations once more."""
    for trial_id in leases.give_back():
        enqueue_again(study, study._storage.get_trial(trial_id))


def give_back_abandoned(spec: StudySpec, storage: PostgresStorage) -> None:
    """`give_back`, by a step that comes after all workers: what died last left nobody to find it.

    Waits until the leases are over, two of their periods at most: another run may be at the study, too.
    """
    import optuna

    from shared.storage.leases import Leases

    study = optuna.load_study(storage=storage, study_name=spec.name)
    leases = Leases(storage, study._study_id, spec.n_trials)
    deadline = time.monotonic() + 2 * leases.lease_s
    give_back(study, leases)
    while leases.any_running() and time.monotonic() < deadline:
        time.sleep(POLL_S[1])
        give_back(study, leases)


def enqueue_warm_starts(study: optuna.Study, spec: StudySpec, storage: PostgresStorage) -> None:
    """Let the warm starts be the next trials, as many as the budget has room for, each once per study.

    Whichever worker comes first enqueues them all, before any worker asks for a trial.
    """
    if not spec.warm_starts and not spec.earlier:
        return
    from shared.tuning.transfer import TransferSampler

    with storage.exclusive(study._study_id):
        for params in spec.warm_starts[: spec.n_trials]:
            study.enqueue_trial(dict(params), skip_if_exists=True)
        if isinstance(study.sampler, TransferSampler):
            study.sampler.enqueue(study)


def fail(study: optuna.Study, trial_id: int, cause: str, error: str) -> None:
    """Tell that a running trial failed, and enqueue its configuration once more; nothing where it has ended."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    storage = study._storage
    try:
        storage.set_trial_user_attr(trial_id, "cause", cause)
        storage.set_trial_user_attr(trial_id, "error", error)
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        warn_of_late(study, storage.get_trial(trial_id).number)
        return
    enqueue_again(study, storage.get_trial(trial_id))


def warn_of_late(study: optuna.Study, number: int) -> None:
    """Log that a worker came back to a trial that had been given back: what it says is refused."""
    logger.warning("trial ended too late", extra={"study": study.study_name, "trial": number})


def enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Let the configuration of a failed trial be run once more, unless it was a second run itself."""
    logger.warning(
        "trial failed",
        extra={"study": study.study_name, "trial": trial.number, "cause": trial.user_attrs.get("cause")},
    )
    params = trial.system_attrs.get("fixed_params", {}) | trial.params
    start = {key: trial.user_attrs[key] for key in (WARM_START,) if key in trial.user_attrs}
    if (params or start) and "rerun_of" not in trial.user_attrs:
        study.enqueue_trial(params, user_attrs={"rerun_of": trial.number, **start})


def tune_in_memory(
    evaluate: Evaluate,
    n_trials: int = 3,
    directions: Sequence[Direction] = ("maximize",),
    seed: int = 0,
    metrics: Sequence[str] = (),
    guard: str | None = None,
) -> optuna.Study:
    """Try an objective out: the same loop without a database, in which a trial that raises stops."""
    import optuna

    from shared.tuning.guarded import guarded

    sampler = optuna.samplers.TPESampler(seed=seed)
    study = guarded(optuna.create_study(directions=list(directions), sampler=sampler), metrics, guard)
    study.optimize(lambda trial: check_value(evaluate(trial), len(directions)), n_trials=n_trials)
    return study


def _tail(error: Exception) -> str:
    """The end of a traceback: where it was raised, and what."""
    return "".join(traceback.format_exception(error, limit=-3)).strip()[-ERROR_CHARACTERS:]


def cpu_s() -> float:
    """CPU seconds of this process and its ended children so far."""
    return sum(os.times()[:4])


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """SIGTERM raises SystemExit, so that a running trial can be told FAIL."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def exit_(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, exit_)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
