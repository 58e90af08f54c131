"""`evertune models lineage|reproduce|trust`: what a model was made of, made once more, and which files are believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.options import ModelName, OptionalVersion, Version
from shared.cli.versions import ask, find_version
from shared.errors import ConfigError

if TYPE_CHECKING:
    from shared.flow.reproduce import Reproduction

MOST_CHANGES = 20


def lineage(
    model: Annotated[
        str | None, typer.Argument(help="A registered model.", metavar="MODEL", show_default=False)
    ] = None,
    version: OptionalVersion = None,
    dataset: Annotated[
        str | None, typer.Option(help="The beginning of a fingerprint: all that was made of it.")
    ] = None,
) -> None:
    """What a version was made of: runs, study, trial, data, code; or what was made of a dataset version."""
    from shared.cli.console import stdout
    from shared.flow import ancestry
    from shared.registry.tree import drawn

    if (model is None) == (dataset is None):
        raise ConfigError("lineage is that of a model or of a dataset version; name a MODEL, or give --dataset")
    if dataset is not None:
        branches = ancestry.of_dataset(dataset)
    else:
        assert model is not None
        found = find_version(model, version)
        branches = [ancestry.of_version(ancestry.record_of(found.name, found.version))]
    for branch in branches:
        stdout().print(drawn(branch))


def reproduce(model: ModelName, version: OptionalVersion = None) -> None:
    """Train a version once more from its lineage, and compare the predictions. Exit status 1: they differ."""
    from shared.flow import reproduce as reproducing

    found = reproducing.reproduce(find_version(model, version))
    for line in told(found):
        typer.echo(line)
    raise typer.Exit(int(not found.is_same))


def trust(
    model: ModelName,
    version: Version,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Put the files of a version that has no record on record as they are now, and who said so."""
    from shared.flow.environment import user_name
    from shared.registry import client

    found, by = find_version(model, version), user_name()
    typer.secho(
        f"warning: the files of {found.name} version {found.version} are taken for what they are now, and nobody has "
        "checked who wrote them",
        fg=typer.colors.YELLOW,
    )
    ask(f"let them be loaded, on the word of {by}?", yes)
    client.trust(found, by)
    typer.echo(f"{found.name} version {found.version} is on record, trusted by {by}; its files can't change any more")


def told(found: Reproduction) -> list[str]:
    """What came out, a line each."""
    name, within = f"{found.model} version {found.version}", f", within {found.tolerance:g}" if found.tolerance else ""
    if found.is_same:
        return [f"{name}: the same predictions for all {found.rows} rows of the holdout{within}"]
    changes = list(found.changes[:MOST_CHANGES])
    more = len(found.changes) - len(changes)
    return [
        f"{name}: other predictions for {found.differing} of {found.rows} rows of the holdout{within}; the largest "
        f"difference is {found.largest:.3g}",
        *(
            changes
            or [
                "packages, Python, processor, commit and lock are those of then: a generator of the objective's own, "
                "unseeded, or a GPU, may be what doesn't repeat, or the stored rows were changed"
            ]
        ),
        *([f"and {more} more"] if more > 0 else []),
    ]
