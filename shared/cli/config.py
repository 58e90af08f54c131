"""`evertune config`: the use cases of this project, and what their configs come to."""

from __future__ import annotations

import typer

from shared.cli.options import Overrides, UseCaseName

app = typer.Typer(help="The use cases and their configs.", no_args_is_help=True)


@app.command()
def check(use_case: UseCaseName = "digits", overrides: Overrides = None) -> None:
    """Check a config and the objectives that it names, and print it with all defaults and overrides."""
    from shared.cli.console import stdout
    from shared.config import load_use_case
    from shared.events.due import check_members
    from shared.events.graph import read_graph
    from shared.settings import project_root

    config = load_use_case(use_case, overrides or ())
    check_members(config, read_graph(project_root()))
    stdout().print_json(config.model_dump_json(exclude_none=True))


@app.command("list")
def list_use_cases() -> None:
    """The use cases of this project: name, title, variants. Those whose config breaks a rule are told at the end."""
    from rich.table import Table

    from shared.cli.console import stdout
    from shared.config import load_use_case, use_cases
    from shared.errors import ConfigError

    broken: list[str] = []
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("use case", "title", "variants", "metric", "source"):
        table.add_column(column)
    for name in use_cases():
        try:
            config = load_use_case(name)
        except ConfigError as err:
            broken.append(str(err))
        else:
            table.add_row(name, config.title, ", ".join(config.members), config.tuning.metric, config.data.source)
    stdout().print(table)
    if broken:
        raise ConfigError("\n".join(broken))


@app.command()
def metrics() -> None:
    """The metrics that a config may name: scikit-learn's scorers, greater is better."""
    from shared.config import CLASSIFICATION_METRICS, REGRESSION_METRICS

    for task, names in (("classification", CLASSIFICATION_METRICS), ("regression", REGRESSION_METRICS)):
        typer.secho(task, bold=True)
        for name in names:
            typer.echo(f"  {name}")
