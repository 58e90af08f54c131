"""`evertune dashboard`: the apps of `deployments/` on this machine, Optuna's dashboard and MLflow's pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared import ports

if TYPE_CHECKING:
    import subprocess

HOST = "127.0.0.1"
POLL_S = 0.2


@dataclass(frozen=True)
class App:
    """A process that serves pages on this machine, and where."""

    shows: str
    port: int
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return ports.url(HOST, self.port)


def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65534, help="Local port; MLflow's pages are on the next one.")] = 8080,
) -> None:
    """Show the studies and the models in the browser: Optuna's dashboard and MLflow's pages, until Ctrl-C."""
    import signal

    from shared.settings import project_root
    from shared.storage import services

    services.database_url()
    registry = services.mlflow_tracking_uri()
    elsewhere = services.status()[1].where if registry.startswith("http") else None
    apps = [_studies(project_root(), port), *([] if elsewhere else [_models(port + 1)])]
    for app in apps:
        ports.check_free(HOST, app.port, f"the {app.shows}")
    for app in apps:
        typer.echo(f"{app.shows:<9}{app.address}")
    if elsewhere:
        typer.echo(f"{'models':<9}{elsewhere}")
    typer.echo("in a few seconds, until Ctrl-C")
    for signum in (signal.SIGINT, signal.SIGTERM):  # SIGINT, too: a shell's background process ignores it
        signal.signal(signum, signal.default_int_handler)
    with _running(apps, project_root()) as processes:
        ended = apps[_first_to_end(processes)]
    typer.secho(f"error: what shows the {ended.shows} has ended; its last words are above", fg="red", err=True)
    raise typer.Exit(1)


def _studies(root: Path, port: int) -> App:
    import sys

    config = root / "deployments" / "optuna_dashboard" / "gunicorn.conf.py"
    command = [sys.executable, "-m", "gunicorn", "--config", str(config)]
    return App("studies", port, [*command, "--bind", f"{HOST}:{port}", "--log-level", "warning"])


def _models(port: int) -> App:
    import sys

    quiet = {
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_UVICORN_OPTS": "--log-level warning",
        "PYTHONWARNINGS": "ignore",
    }
    env = {"MLFLOW_HOST": HOST, "MLFLOW_PORT": str(port), **quiet}
    return App("models", port, [sys.executable, "-m", "deployments.mlflow_server"], env)


@contextmanager
def _running(apps: Sequence[App], root: Path) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """The apps as processes, each ended by its guard when this block ends, or this process, however that is."""
    import os
    import subprocess
    import sys

    from shared.events import guard

    processes: list[subprocess.Popen[bytes]] = []
    try:
        for app in apps:
            command = [sys.executable, "-IS", guard.__file__, *app.command]
            env = {**os.environ, **app.env}
            processes.append(
                subprocess.Popen(
                    command, stdin=-1, stdout=subprocess.DEVNULL, start_new_session=True, cwd=root, env=env
                )
            )
        yield processes
    finally:
        for process in processes:
            assert process.stdin
            process.stdin.close()
        for process in processes:
            process.wait()


def _first_to_end(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    import time

    while True:
        for i, process in enumerate(processes):
            if process.poll() is not None:
                return i
        time.sleep(POLL_S)
