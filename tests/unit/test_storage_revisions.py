"""The constants that spare a process the import of alembic say what alembic would."""

from __future__ import annotations

import tomllib
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from shared.storage import optuna_tables, schema


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_the_known_schema_of_optuna_is_that_of_the_installed_one() -> None:
    from optuna.storages import RDBStorage

    assert RDBStorage("sqlite://").get_head_version() == optuna_tables.OPTUNA_SCHEMA


def test_the_migrations_travel_with_the_wheel() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert schema.MIGRATIONS.relative_to(Path.cwd()).parts[0] in packages
