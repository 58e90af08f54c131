"""`evertune registry`: MLflow's pages on the model registry."""

from __future__ import annotations

from typing import Annotated

import typer


def registry(port: Annotated[int, typer.Option(help="Local port.")] = 5000) -> None:
    """Show the model registry in the browser: MLflow's own pages, until Ctrl-C."""
    import os
    import sys

    from shared.storage.services import mlflow_tracking_uri

    uri = mlflow_tracking_uri()
    if uri.startswith("http"):
        typer.echo("MLFLOW_TRACKING_URI is a server, which has the pages itself: open its address")
        return
    typer.echo(f"http://127.0.0.1:{port} in a few seconds, until Ctrl-C")
    # By the environment: a command line is for every user of the machine to read, and the address may hold a password.
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, command, {**os.environ, **quiet, "MLFLOW_BACKEND_STORE_URI": uri})
