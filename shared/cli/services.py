"""`evertune services`: the embedded PostgreSQL, and where everything is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from shared.storage.services import ServiceStatus

app = typer.Typer(help="The services of this machine; they also start by themselves.", no_args_is_help=True)

COLORS = {"running": "green", "stopped": "yellow", "unreachable": "red", "external": "cyan"}


@app.command()
def start() -> None:
    """Start what is embedded."""
    from shared.storage import services

    _show(services.start())


@app.command()
def stop() -> None:
    """Stop what is embedded; what runs elsewhere stays as it is."""
    from shared.storage import services

    _show(services.stop())


@app.command()
def status() -> None:
    """What runs, and where it is."""
    from shared.storage import services

    _show(services.status())


def _show(services: Sequence[ServiceStatus]) -> None:
    for service in services:
        state = typer.style(f"{service.state:<12}", fg=COLORS[service.state])
        typer.echo(f"{service.name:<10}{state}{service.where}")
