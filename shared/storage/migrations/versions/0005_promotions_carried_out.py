"""What kind of promotion each is, and whether it was carried out: it is logged first, then the alias moves."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
ALTER TABLE evertune.promotion_log
    ADD COLUMN kind text NOT NULL DEFAULT 'gate' CHECK (kind IN ('gate', 'hand', 'rollback', 'found'));
ALTER TABLE evertune.promotion_log DISABLE TRIGGER append_only;
UPDATE evertune.promotion_log SET kind = 'found' WHERE actor = 'unknown';
ALTER TABLE evertune.promotion_log ENABLE TRIGGER append_only;
COMMENT ON TABLE evertune.promotion_log IS
    'Every decision of the gate, promoted or not, and every promotion of other kinds; append-only.';
COMMENT ON COLUMN evertune.promotion_log.kind IS
    'Of the gate, by hand, a rollback, or found in the registry, where somebody has moved the alias.';

CREATE TABLE evertune.promotion_outcomes (
    promotion  bigint PRIMARY KEY REFERENCES evertune.promotion_log (id),
    outcome    text NOT NULL CHECK (outcome IN ('moved', 'overtaken')),
    settled_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE evertune.promotion_outcomes IS
    'What became of each promotion: the alias was moved, or somebody has moved it elsewhere meanwhile. Append-only; '
    'a promotion without a row was interrupted, and is carried out by whoever moves the aliases next.';
INSERT INTO evertune.promotion_outcomes (promotion, outcome, settled_at)
    SELECT id, 'moved', decided_at FROM evertune.promotion_log WHERE promoted;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON evertune.promotion_outcomes
    EXECUTE FUNCTION evertune.refuse_change();
"""


def upgrade() -> None:
    op.execute(TABLES)
