"""Python processes that start in no time: forks of one that has imported the environment's packages, but not Evertune.

`python` is `CLIENT`: it hands its arguments, environment, folder and open files to the server, and ends as the fork
does. A fork is in its client's process group, unless that is another session's, and is killed when its client is gone.
With options of Python other than -u, -c and -m, the client becomes the real Python.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

# None may read a test's environment when it is imported, as `metaflow` and `kubernetes` do.
PACKAGES = (
    "boto3", "requests", "psycopg", "sqlalchemy", "alembic", "pydantic_settings", "typer", "rich",
    "yaml", "altair", "pandas", "pyarrow.fs", "pyarrow.parquet", "scipy.stats", "sklearn.datasets", "sklearn.ensemble",
    "sklearn.linear_model", "xgboost", "optuna", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store", "skops.io", "torch._dynamo", "torch.export", "torchvision",
)  # fmt: skip
MAX_FILES = 250  # that are open in a client, all with lower numbers
CLIENT = """#!{python} -IS
import json, os, socket, sys

arguments = sys.argv[2:] if sys.argv[1] == "-u" else sys.argv[1:]
if arguments[0].startswith("-") and arguments[0] not in ("-c", "-m"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
files = [int(file) for file in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{{file}}")]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b"."], files)
said = json.dumps([arguments, dict(os.environ), os.getcwd(), os.getpgid(0), files, sys.argv[0]])
server.sendall(said.encode() + b"\\n")
os._exit(int(server.recv(4) or b"1"))
"""


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """A folder for the PATH, in which `python` is a client."""
    address, client = folder / "forks", folder / "bin" / "python"
    client.parent.mkdir()
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with socket.socket(socket.AF_UNIX) as listener:  # clients wait while it imports, and learn at once that it is gone
        listener.bind(str(address))
        listener.listen(128)
        command = [sys.executable, __file__, str(listener.fileno())]
        server = subprocess.Popen(command, env=clean, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
    try:
        yield client.parent
    finally:
        server.communicate()


def serve(listener: socket.socket) -> list[str]:
    """Fork for each client until stdin ends, as with its parent; returns in the fork, with its arguments."""
    del sys.path[0]  # where this file is
    for name in PACKAGES:
        import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return forked(client)
        client.close()


def forked(client: socket.socket) -> list[str]:
    """Fork once more: this process waits for that one, and tells the client how it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(client, 1, MAX_FILES)
    arguments, environment, folder, group, numbers, python = json.loads(client.makefile().readline())
    os.setpgid(0, 0)
    with suppress(PermissionError):  # that of another session
        os.setpgid(0, group)
    if worker := os.fork():
        wait_for(worker, client)
    client.close()
    apart = [fcntl.fcntl(file, fcntl.F_DUPFD, MAX_FILES) for file in files]
    os.closerange(0, MAX_FILES)
    for file, number in zip(apart, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable, sys.orig_argv = python, [python, *arguments]
    sys.stdout.reconfigure(line_buffering=True)
    import_module("numpy.random").seed()  # as in a process of its own
    return list(arguments)


def wait_for(worker: int, client: socket.socket) -> NoReturn:
    """Tell the client how a worker has ended, or end the worker when the client is gone."""
    ended = os.pidfd_open(worker)
    if ended not in select.select([ended, client], [], [])[0]:
        is_leader = os.getpgid(0) == os.getpid()
        os.killpg(0, signal.SIGKILL) if is_leader else os.kill(worker, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with suppress(BrokenPipeError):
        client.sendall(str(status if status >= 0 else 128 - status).encode())
    os._exit(0)


def run(arguments: list[str]) -> None:
    """What Python does with its command line."""
    kind, *sys.argv = arguments if arguments[0] in ("-c", "-m") else ["", *arguments]
    first = str(Path.cwd() if kind else Path(sys.argv[0]).resolve().parent)
    sys.path[:0] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.modules.pop("sitecustomize", None)
    with suppress(ModuleNotFoundError):
        import_module("sitecustomize")
    if kind == "-c":
        code, sys.argv[0] = sys.argv[0], "-c"
        exec(code, {"__name__": "__main__"})
    elif kind == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


def status_of(arguments: list[str]) -> int:
    """Run it to its end; the exit status."""
    try:
        run(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return int(end.code is not None) if isinstance(end.code, str | None) else int(end.code)
    except BaseException:  # noqa: BLE001  # as Python itself does
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    status = status_of(serve(socket.socket(fileno=int(sys.argv[1]))))
    # An interpreter's end, less the second that it takes to clear all that was imported.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)
