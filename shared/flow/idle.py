"""The card of a run that had nothing to do. Apart from the others, since such a run is to cost next to nothing."""

from __future__ import annotations

from typing import Any


def idle_card(reason: str) -> list[Any]:
    """The card's components: the headline, and why."""
    from metaflow.cards import Markdown

    return [Markdown(f"# Nothing to do\n{reason[:1].upper()}{reason[1:]}.")]
