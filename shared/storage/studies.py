"""Studies as a whole."""

from __future__ import annotations

import logging

from shared.storage import database
from shared.storage.postgres import PostgresStorage

logger = logging.getLogger(__name__)

# A study's places in its budget go with its trials.
FORGET_SLOTS = "DELETE FROM evertune.slots WHERE study = %s"


def delete_study(name: str) -> None:
    """Delete a study's trials and what holds its budget; nothing happens where there is no such study."""
    storage = PostgresStorage()
    try:
        storage.delete_study(storage.get_study_id_from_name(name))
    except KeyError:
        logger.info("no study to delete", extra={"study": name})
    with database.connect() as connection:
        connection.execute(FORGET_SLOTS, [name])
