"""Which version a command means, and a person's word for what it does to it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from shared.errors import RegistryError

if TYPE_CHECKING:
    from shared.domain import ModelVersion


def find_version(model: str, given: str | None) -> ModelVersion:
    """The version of a number or an alias; without one the champion, or the newest.

    Raises:
        RegistryError: there is none.
    """
    from shared.registry import aliases, client

    return client.version(model, _default_version(model) if given is None else aliases.version_of(model, given))


def _default_version(model: str) -> int:
    """The champion, or the newest version.

    Raises:
        RegistryError: there is no such model.
    """
    from shared.registry import aliases, client

    if (champion := aliases.champion(model)) is not None:
        return champion
    versions: list[ModelVersion] = client.versions(model)
    if not versions:
        raise RegistryError(f"a model is shown once it is registered, but {model!r} isn't; `evertune models list`")
    return versions[0].version


def ask(question: str, yes: bool) -> None:
    """Let a person agree, unless they have.

    Raises:
        RegistryError: nobody can be asked.
        typer.Abort: they don't.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise RegistryError(f"a person must agree, but there is no terminal to ask: {question}; say so by --yes")
    typer.confirm(question, abort=True)
