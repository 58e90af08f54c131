"""A worker whose trials may not run for ever: its loop runs in a child process, which is ended when a trial runs over.

The child runs one trial after the other; a new one is started only where one was ended, or died. `python -m
shared.tuning.child FD` is the child: it hears and tells by the file descriptor.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from shared.domain import StudySpec
from shared.errors import StudyFailed
from shared.logs import show_logs
from shared.settings import settings
from shared.tuning.worker import WorkerStats, cpu_s, fail, run_worker, sigterm_exits

if TYPE_CHECKING:
    import optuna

    from shared.tuning.worker import Evaluate

logger = logging.getLogger(__name__)

# How long a child may take to tell that its trial was interrupted.
LEAVE_S = 5.0
# How often the worker looks whether the child still lives.
LOOK_S = 0.5


def run_worker_in_child(
    spec: StudySpec, make: Callable[[], Evaluate], *, worker: int = 0, owner: str = ""
) -> WorkerStats:
    """As `run_worker` runs trials; but one that runs longer than `spec.trial_timeout_s` is ended, and FAIL.

    A trial whose process dies, for want of memory or by a fault in a library, is FAIL too, and the worker goes on.

    make: gives the function to optimize, in the child; it is pickled.

    Raises:
        StudyFailed: a child died before its first trial.
        Exception: what `run_worker` raises.
    """
    started, began_s, trials, error = time.perf_counter(), cpu_s(), 0, ""
    with sigterm_exits():
        while True:
            with _Child(spec, make, worker, owner, elapsed_s=time.perf_counter() - started) as child:
                ended = child.wait()
            trials += child.trials
            if isinstance(ended, WorkerStats):
                break
            error = ended[1]
            if child.trial_id >= 0:
                _fail(spec, owner, child.trial_id, *ended)
    return replace(ended, trials=trials, cpu_s=cpu_s() - began_s, last_error=ended.last_error or error)


class _Child:
    """The process that runs the loop, as the worker sees it."""

    def __init__(
        self, spec: StudySpec, make: Callable[[], Evaluate], worker: int, owner: str, elapsed_s: float
    ) -> None:
        self.trial_id, self.trials = -1, 0
        self._limit_s = spec.trial_timeout_s
        self._line, its = Pipe()
        command = (sys.executable, "-m", "shared.tuning.child", str(its.fileno()))
        env = os.environ | settings().environment() | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(command, env=env, pass_fds=[its.fileno()], process_group=0)
        its.close()
        self._line.send((spec, make, worker, owner, elapsed_s))

    def wait(self) -> WorkerStats | tuple[str, str]:
        """What the worker did; or cause and error of the trial on which its process ended."""
        while True:
            try:
                told = self._hear()
            except EOFError:
                return self._died()
            if told is None:
                return "timed out", f"the trial ran longer than `trial_timeout_s`, {self._limit_s:g} s"
            if isinstance(told, BaseException):
                raise told
            if isinstance(told, WorkerStats):
                return told
            self.trial_id = told
            self.trials += told >= 0

    def _hear(self) -> Any:
        """What the child tells next; None where a trial runs over.

        Raises:
            EOFError: it has died. Processes that a trial left behind may hold its end of the line open.
        """
        deadline = time.monotonic() + self._limit_s if self._limit_s and self.trial_id >= 0 else math.inf
        while not self._line.poll(min(LOOK_S, max(0.0, deadline - time.monotonic()))):
            if self._process.poll() is not None and not self._line.poll():
                raise EOFError
            if time.monotonic() > deadline:
                return None
        return self._line.recv()

    def _died(self) -> tuple[str, str]:
        code = self._process.wait()
        if not self.trials:
            raise StudyFailed(
                f"a worker's process must run until the study ends, but it ended with exit code {code} before its "
                "first trial; see its log above, and run the flow again"
            )
        return "process died", f"the trial's process ended with exit code {code} (-9: killed, often for want of memory)"

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it: at once where its trial ran over, and with time for a last word where this worker is ended."""
        if kind is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and what its trial has started
        self._process.wait()
        self._line.close()  # not before: a child whose worker has gone ends its trial by itself


def _fail(spec: StudySpec, owner: str, trial_id: int, cause: str, error: str) -> None:
    """Tell that the trial on which a child ended has failed; under the worker's own lease, which ends with it."""
    import optuna

    from shared.storage import PostgresStorage
    from shared.storage.leases import Leases

    storage = PostgresStorage()
    try:
        study = optuna.load_study(storage=storage, study_name=spec.name)
        with Leases(storage, study._study_id, spec.n_trials, owner):
            fail(study, trial_id, cause, error)
    finally:
        storage.close()


def main(fd: int) -> None:
    """The child: runs the loop that it is told of, and tells which trial begins (-1: none runs), and how it ended."""
    show_logs()
    line = Connection(fd)
    spec, make, worker, owner, elapsed_s = line.recv()
    threading.Thread(target=_end_with_the_worker, args=(Connection(os.dup(fd)),), daemon=True).start()
    try:
        _tell(line, run_worker(spec, _told(make(), line), worker=worker, owner=owner, elapsed_s=elapsed_s))
    except BaseException as err:  # noqa: BLE001  # raised again by the worker
        _tell(line, _picklable(err))


def _told(evaluate: Evaluate, line: Connection) -> Evaluate:
    def evaluate_and_tell(trial: optuna.Trial) -> object:
        _tell(line, trial._trial_id)
        try:
            return evaluate(trial)
        finally:
            _tell(line, -1)

    return evaluate_and_tell  # type: ignore[return-value]


def _tell(line: Connection, what: object) -> None:
    """Tell the worker, if it is still there."""
    with suppress(BrokenPipeError):
        line.send(what)


def _end_with_the_worker(line: Connection) -> None:
    """Nobody tells a child anything after its first word: when the line closes, the worker has gone."""
    with suppress(EOFError, OSError):
        line.recv()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LEAVE_S)
    os._exit(1)


def _picklable(err: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(err))
    except Exception:  # noqa: BLE001
        return RuntimeError(f"{type(err).__name__}: {err}")
    return err


if __name__ == "__main__":
    main(int(sys.argv[1]))
