"""Leases in place of slots: a running trial is its own place in the budget."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
DROP TABLE evertune.slots;

CREATE TABLE evertune.leases (
    trial_id integer PRIMARY KEY,
    study_id integer NOT NULL,
    worker   text NOT NULL,
    owner    text NOT NULL,
    renewed  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires  timestamptz NOT NULL
);
CREATE INDEX ON evertune.leases (study_id);
COMMENT ON TABLE evertune.leases IS 'Dated claims of workers on the trials that they run.';
"""


def upgrade() -> None:
    op.execute(TABLES)
