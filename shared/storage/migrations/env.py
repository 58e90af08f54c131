"""Run by alembic, over a connection that `shared.storage.schema` hands over. The version table is in our own schema."""

from alembic import context
from psycopg import Connection
from sqlalchemy import create_engine, pool, text


def connect() -> Connection:
    connection: Connection = context.config.attributes["connect"]()
    connection.autocommit = False
    return connection


def run() -> None:
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS evertune"))
        context.configure(connection=connection, version_table_schema="evertune")
        context.run_migrations()


run()
