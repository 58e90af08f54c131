"""Looks at a running chain: how many trials its studies have, and tells a display."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from shared.events.chain import Chain, utc_now

if TYPE_CHECKING:
    from shared.events.runner import ChainRunner
    from shared.storage.progress import Progress

logger = logging.getLogger(__name__)

PERIOD_S = 1.0
SETTLED_S = 3.0  # a flow that passes through ends about then: not worth a look at the database


class Display(Protocol):
    """Shows a chain to somebody. Called from any thread."""

    def changed(self, chain: Chain) -> None:
        """Something happened to a flow."""

    def progressed(self, progress: Mapping[str, Progress]) -> None:
        """So far are the studies, by the name of the flow that tunes them."""


async def run_and_watch(runner: ChainRunner, display: Display) -> Chain:
    """Run the chain to its end while the display follows its studies."""
    watching = asyncio.create_task(_watch(runner, display))
    try:
        return await runner.run()
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _watch(runner: ChainRunner, display: Display) -> None:
    while True:
        await asyncio.sleep(PERIOD_S)
        if is_worth_a_look(runner.chain, utc_now()):
            display.progressed(await asyncio.to_thread(look, runner.chain))


def is_worth_a_look(chain: Chain, now: datetime) -> bool:
    """Whether a flow has been running for long enough to have trials."""
    return any((chain.flows[name].elapsed_s(now) or 0) > SETTLED_S for name in chain.names("running"))


def look(chain: Chain) -> dict[str, Progress]:
    """Progress by flow; nothing where it can't be told, since a chain runs as well unwatched."""
    try:
        return study_progress(chain)
    except Exception:
        logger.debug("progress unknown", exc_info=True)
        return {}


def study_progress(chain: Chain) -> dict[str, Progress]:
    """Progress by flow, of the studies that the chain's running flows have claimed.

    Raises:
        ServiceError: the database can't be reached.
    """
    from shared.storage.ledger import Ledger
    from shared.storage.progress import progress

    flows = {chain.flows[name].run: name for name in chain.names("running")}
    claimed = [e for e in Ledger().entries(chain.use_case) if e.state == "claimed" and e.run in flows]
    found = progress([entry.study for entry in claimed]) if claimed else {}
    return {flows[entry.run]: found[entry.study] for entry in claimed if entry.study in found}
