"""What a model version is made of: the digests of its files, and its lineage. Kept here, not beside the files."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
CREATE TABLE evertune.model_records (
    model       text NOT NULL,
    version     integer NOT NULL,
    digests     jsonb NOT NULL,
    lineage     jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (model, version)
);
COMMENT ON TABLE evertune.model_records IS
    'SHA-256 of each file of a model version, and where it comes from; append-only, also where the version is deleted.';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON evertune.model_records
    EXECUTE FUNCTION evertune.refuse_change();
"""


def upgrade() -> None:
    op.execute(TABLES)
