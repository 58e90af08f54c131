"""`PostgresStorage` keeps Optuna's own contract of a storage."""

from collections.abc import Iterator

import pytest
from optuna.testing.pytest_storages import StorageTestCase

from shared.storage import PostgresStorage

pytestmark = pytest.mark.usefixtures("database")


class TestPostgresStorage(StorageTestCase):
    @pytest.fixture
    def storage(self) -> Iterator[PostgresStorage]:
        storage = PostgresStorage()
        yield storage
        storage.close()
