"""The ledger, the objectives' sources, the promotion log and the slots."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE evertune.dataset_versions (
    use_case    text NOT NULL,
    fingerprint text NOT NULL,
    ref         jsonb NOT NULL,
    run         text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (use_case, fingerprint)
);
COMMENT ON TABLE evertune.dataset_versions IS 'What DataPrepFlow has prepared; recorded_at orders the versions.';

CREATE TABLE evertune.studies (
    name        text PRIMARY KEY,
    use_case    text NOT NULL,
    variant     text NOT NULL,
    fingerprint text NOT NULL,
    state       text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'claimed', 'done', 'failed')),
    run         text,
    outcome     jsonb NOT NULL DEFAULT '{}',
    note        text NOT NULL DEFAULT '',
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON evertune.studies (use_case, fingerprint);
COMMENT ON TABLE evertune.studies IS 'The ledger: which study is due, claimed, done or failed, and by which run.';

CREATE TABLE evertune.objective_sources (
    hash     text PRIMARY KEY,
    source   text NOT NULL,
    saved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE evertune.objective_sources IS 'Objective files by the SHA-256 of their text.';

CREATE TABLE evertune.promotion_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    use_case   text NOT NULL,
    version    integer NOT NULL,
    previous   integer,
    promoted   boolean NOT NULL,
    reason     text NOT NULL,
    figures    jsonb NOT NULL,
    actor      text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON evertune.promotion_log (use_case);
COMMENT ON TABLE evertune.promotion_log IS 'Every decision of the gate, promoted or not; append-only.';

CREATE FUNCTION evertune.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only: % is refused; add a row that says what changed',
        TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP;
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON evertune.promotion_log
    EXECUTE FUNCTION evertune.refuse_change();

CREATE TABLE evertune.slots (
    id          uuid PRIMARY KEY,
    study       text NOT NULL,
    worker      text NOT NULL,
    trial_id    integer UNIQUE,
    reserved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON evertune.slots (study);
COMMENT ON TABLE evertune.slots IS 'Places in the budgets of studies that running trials hold.';
"""


def upgrade() -> None:
    op.execute(TABLES)
