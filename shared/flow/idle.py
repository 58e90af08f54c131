"""A run that has nothing to do, or nothing any more. Apart from the rest, since it is to cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metaflow import current

from shared.errors import ResultTaken


def idle_card(reason: str) -> list[Any]:
    """The card's components: the headline, and why."""
    from metaflow.cards import Markdown

    return [Markdown(f"# Nothing to do\n{reason[:1].upper()}{reason[1:]}.")]


@contextmanager
def unless_taken(flow: Any) -> Iterator[None]:
    """A step's work on its study's result. Where another run has that, the flow is idle from here on."""
    try:
        yield
    except ResultTaken as taken:
        flow.idle = str(taken)
        current.run.add_tags(["idle", *([f"result:{taken.run}"] if taken.run else [])])
        print(flow.idle)
