"""Run by alembic with the URL that `shared.storage.schema` hands over. The version table is in our own schema."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from shared.storage.database import sqlalchemy_url


def run() -> None:
    engine = create_engine(sqlalchemy_url(context.config.attributes["url"]), poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS evertune"))
        context.configure(connection=connection, version_table_schema="evertune")
        context.run_migrations()


run()
