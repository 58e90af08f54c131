"""Where commands print."""

from __future__ import annotations

from rich.console import Console

WIDTH_OF_PIPES = 160  # wide enough for every table, so that none is cut


def stdout() -> Console:
    """The console of a command's output: as wide as the terminal, or wide enough for all where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_OF_PIPES)


def stderr() -> Console:
    """The console for what went wrong."""
    return Console(stderr=True)
