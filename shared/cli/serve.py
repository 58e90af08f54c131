"""`evertune serve`: the model server of `deployments/` on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    use_case: Annotated[
        list[str], typer.Argument(help="Names of configs/<use_case>.toml.", metavar="USE_CASE…", show_default=False)
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine need EVERTUNE_SERVE_TOKENS.")
    ] = "127.0.0.1",
) -> None:
    """Predict by the champions over HTTP, and follow them while they move on, until Ctrl-C."""
    import os
    import sys

    from shared.config import load_use_case
    from shared.settings import project_root

    names = [load_use_case(name).name for name in use_case]
    os.chdir(project_root())
    command = [sys.executable, "-m", "deployments.model_server", *names, "--host", host, "--port", str(port)]
    os.execv(sys.executable, command)
