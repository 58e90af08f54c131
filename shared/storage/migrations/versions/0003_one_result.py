"""One result per study: the claim on it, and when it was asked for, found, and when its rows were last seen."""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
ALTER TABLE evertune.studies RENAME COLUMN updated_at TO asked_at;
ALTER TABLE evertune.studies
    ADD COLUMN finished_at timestamptz,
    ADD COLUMN recorded    boolean NOT NULL DEFAULT false,
    ADD COLUMN holder      text,
    ADD COLUMN token       bigint NOT NULL DEFAULT 0,
    ADD COLUMN expires     timestamptz;
UPDATE evertune.studies SET finished_at = asked_at, recorded = true WHERE state = 'done';
COMMENT ON COLUMN evertune.studies.recorded IS
    'The outcome is that of the budget asked for; where the state is not done, the registry has still to follow it.';
COMMENT ON COLUMN evertune.studies.token IS 'Of the last claim on the result. It grows, and fences off earlier ones.';

CREATE SEQUENCE evertune.claim_tokens;

ALTER TABLE evertune.dataset_versions ADD COLUMN seen_at timestamptz NOT NULL DEFAULT clock_timestamp();
UPDATE evertune.dataset_versions SET seen_at = recorded_at;
COMMENT ON COLUMN evertune.dataset_versions.seen_at IS 'When the source was last found to hold these rows.';
"""


def upgrade() -> None:
    op.execute(TABLES)
