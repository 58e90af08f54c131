"""`evertune prune`: delete what nobody needs any more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from shared.cli.options import OptionalUseCase


def prune(
    use_case: OptionalUseCase = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
) -> None:
    """Delete old studies, datasets, model versions, runs and logs that nothing needs, as [retention] says."""
    from shared.cli.console import stdout
    from shared.cli.show import show_surplus
    from shared.config import load_use_case, use_cases
    from shared.events.chain import refuse_a_second_chain
    from shared.events.prune import find_surplus
    from shared.events.prune import prune as delete_surplus

    console, now = stdout(), datetime.now(UTC)
    for name in [use_case] if use_case else use_cases():
        config = load_use_case(name)
        if not dry_run:
            refuse_a_second_chain(name)
        found = find_surplus(config, now) if dry_run else delete_surplus(config, now)
        show_surplus(console, name, found, dry_run=dry_run)
