"""The `evertune` command."""


def main() -> None:
    """Entry point. Imported here, so that importing the package costs nothing."""
    from shared.cli.app import app

    app(prog_name="evertune")
