"""PostgreSQL: the embedded server, the ledger, leases, and Optuna's storage."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.storage.postgres import PostgresStorage as PostgresStorage


def __getattr__(name: str) -> Any:
    """`PostgresStorage` imports Optuna, so it is imported where it's used."""
    if name == "PostgresStorage":
        from shared.storage.postgres import PostgresStorage

        return PostgresStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
