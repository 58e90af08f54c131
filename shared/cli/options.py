"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

UseCaseName = Annotated[str, typer.Argument(help="Name of configs/<use_case>.toml.", metavar="USE_CASE")]
OptionalUseCase = Annotated[
    str | None, typer.Argument(help="Name of configs/<use_case>.toml.", metavar="[USE_CASE]", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the config: classical.n_trials=10", metavar="KEY=VALUE"),
]
