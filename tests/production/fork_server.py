"""Python processes that start in no time: forks of one that has imported the image's packages.

`python` on a pod's PATH is `CLIENT`: it hands its arguments, environment, folder and open files to the server, and
ends as the fork does. A fork is in its client's process group, and so dies with the pod. With options of Python other
than -u, -c and -m, the client becomes the real Python.
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
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

PACKAGES = (
    "boto3", "requests", "psycopg", "sqlalchemy", "pandas", "pyarrow.fs", "pyarrow.parquet", "sklearn.ensemble",
    "sklearn.linear_model", "optuna", "mlflow.pyfunc", "skops.io",
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
server.sendall(json.dumps([arguments, dict(os.environ), os.getcwd(), os.getpgid(0), files, sys.argv[0]]).encode())
server.shutdown(socket.SHUT_WR)
os._exit(int(server.recv(4) or b"1"))
"""


@contextmanager
def serving(folder: Path, site: Path) -> Iterator[Path]:
    """A folder for the PATH, in which `python` is a client. site: a file that each fork runs first."""
    address, client = folder / "forks", folder / "bin" / "python"
    client.parent.mkdir()
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with socket.socket(socket.AF_UNIX) as listener:  # clients wait while it imports, and learn at once that it is gone
        listener.bind(str(address))
        listener.listen(128)
        command = [sys.executable, __file__, str(listener.fileno()), str(site)]
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
    said = json.loads(b"".join(iter(lambda: client.recv(1 << 16), b"")))
    arguments, environment, folder, group, numbers, python = said
    os.setpgid(0, group)
    if worker := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        client.sendall(str(status if status >= 0 else 128 - status).encode())
        os._exit(0)
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


def run(arguments: list[str], site: str) -> None:
    """What Python does with its command line."""
    kind, *sys.argv = arguments if arguments[0] in ("-c", "-m") else ["", *arguments]
    first = str(Path.cwd() if kind else Path(sys.argv[0]).resolve().parent)
    sys.path[:0] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_path(site)
    if kind == "-c":
        code, sys.argv[0] = sys.argv[0], "-c"
        exec(code, {"__name__": "__main__"})
    elif kind == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


def status_of(arguments: list[str], site: str) -> int:
    """Run it to its end; the exit status."""
    try:
        run(arguments, site)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return int(end.code is not None) if isinstance(end.code, str | None) else int(end.code)
    except BaseException:  # noqa: BLE001  # as Python itself does
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    status = status_of(serve(socket.socket(fileno=int(sys.argv[1]))), sys.argv[2])
    # An interpreter's end, less the second that it takes to clear all that was imported.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)
