"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

UseCaseName = Annotated[str, typer.Argument(help="Name of configs/<use_case>.toml.", metavar="USE_CASE")]
OptionalUseCase = Annotated[
    str | None, typer.Argument(help="Name of configs/<use_case>.toml.", metavar="[USE_CASE]", show_default=False)
]
ModelName = Annotated[str, typer.Argument(help="A registered model: digits, digits-classical.", metavar="MODEL")]
Version = Annotated[str, typer.Argument(help="A number or an alias.")]
OptionalVersion = Annotated[
    str | None, typer.Argument(help="A number or an alias; by default the champion, or the newest.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the config: classical.n_trials=10", metavar="KEY=VALUE"),
]
