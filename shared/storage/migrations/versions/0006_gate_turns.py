"""Each gate's turn at a holdout, taken before it looks: two gates at once have two, and one that dies has spent its."""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = """
CREATE TABLE evertune.gate_turns (
    use_case text NOT NULL,
    place    integer NOT NULL,
    version  integer NOT NULL,
    figures  jsonb NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (use_case, place)
);
COMMENT ON TABLE evertune.gate_turns IS
    'What each gate on a holdout may spend of alpha, in the order taken, and whose gate it was; append-only.';
INSERT INTO evertune.gate_turns (use_case, place, version, figures, taken_at)
    SELECT use_case, row_number() OVER (PARTITION BY use_case ORDER BY id), version,
        jsonb_build_object('turn', figures -> 'turn', 'series', figures -> 'series',
            'series_rows', figures -> 'series_rows', 'level', figures -> 'level'),
        decided_at
    FROM evertune.promotion_log WHERE figures ? 'level';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON evertune.gate_turns
    EXECUTE FUNCTION evertune.refuse_change();
"""


def upgrade() -> None:
    op.execute(TABLES)
