"""The SQL of `PostgresStorage`, on Optuna's tables.

`writes` is what a trial was told, as JSON: `params` [name, value, distribution], `steps` [step, value], `user` and
`system` [key, JSON], `values` [objective, value]. Floats travel as text, so that none is rounded or refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

# Plans that follow the indexes whatever the tables' statistics say, made once.
SESSION = """
SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false)
"""

# What Evertune adds to Optuna's tables: to find a study's newest trials and its unfinished ones without the rest.
INDEXES = """
CREATE INDEX IF NOT EXISTS evertune_trials_number ON trials (study_id, number);
CREATE INDEX IF NOT EXISTS evertune_trials_unfinished ON trials (study_id) WHERE state IN ('RUNNING', 'WAITING');
"""

# ---- studies

CREATE_STUDY = """
WITH study AS (INSERT INTO studies (study_name) VALUES (%(name)s) RETURNING study_id),
given AS (
    INSERT INTO study_directions (study_id, direction, objective)
    SELECT study_id, direction::studydirection, nr - 1
    FROM study, unnest(%(directions)s::text[]) WITH ORDINALITY AS given (direction, nr))
SELECT study_id FROM study
"""

STUDIES = """
SELECT study_id, study_name,
       ARRAY(SELECT direction::text FROM study_directions d WHERE d.study_id = s.study_id ORDER BY objective),
       (SELECT json_object_agg(key, value_json) FROM study_user_attributes a WHERE a.study_id = s.study_id)::text,
       (SELECT json_object_agg(key, value_json) FROM study_system_attributes a WHERE a.study_id = s.study_id)::text
FROM studies s
"""
STUDY_BY_ID = STUDIES + "WHERE study_id = %s"
STUDY_BY_NAME = STUDIES + "WHERE study_name = %s"
# Where no trial was made yet: it is taken for one's own, if creating it was interrupted.
EMPTY_STUDY = """
SELECT study_id FROM studies s
WHERE study_name = %s AND NOT EXISTS (SELECT FROM trials t WHERE t.study_id = s.study_id)
"""
ALL_STUDIES = STUDIES + "ORDER BY study_id"

SET_STUDY_ATTRIBUTE = """
INSERT INTO study_{kind}_attributes (study_id, key, value_json)
SELECT study_id, %(key)s, %(value)s FROM studies WHERE study_id = %(study_id)s
ON CONFLICT (study_id, key) DO UPDATE SET value_json = EXCLUDED.value_json
"""

_OF_TRIALS = "params values intermediate_values user_attributes system_attributes heartbeats"
# In an order that no foreign key refuses, when no trial can be made any more and none is being told something.
DELETE_STUDY = (
    "SELECT FROM studies WHERE study_id = %(study_id)s FOR UPDATE",
    "SELECT FROM trials WHERE study_id = %(study_id)s FOR UPDATE",
    *(
        f"DELETE FROM trial_{table} WHERE trial_id IN (SELECT trial_id FROM trials WHERE study_id = %(study_id)s)"
        for table in _OF_TRIALS.split()
    ),
    "DELETE FROM trials WHERE study_id = %(study_id)s",
    "DELETE FROM evertune.leases WHERE study_id = %(study_id)s",
    "DELETE FROM study_directions WHERE study_id = %(study_id)s",
    "DELETE FROM study_user_attributes WHERE study_id = %(study_id)s",
    "DELETE FROM study_system_attributes WHERE study_id = %(study_id)s",
    "DELETE FROM studies WHERE study_id = %(study_id)s",
)

# ---- reading trials

# `content` is JSON: params, values, intermediate values, user attributes, system attributes.
_TRIAL = """
SELECT t.trial_id, t.number, t.state::text, t.datetime_start, t.datetime_complete, json_build_array(
    (SELECT json_agg(json_build_array(param_name, param_value::text, distribution_json) ORDER BY param_id)
     FROM trial_params p WHERE p.trial_id = t.trial_id),
    (SELECT json_agg(CASE value_type WHEN 'INF_POS' THEN 'inf' WHEN 'INF_NEG' THEN '-inf' ELSE value::text END
                     ORDER BY objective)
     FROM trial_values v WHERE v.trial_id = t.trial_id),
    (SELECT json_agg(json_build_array(step, CASE intermediate_value_type WHEN 'INF_POS' THEN 'inf'
                     WHEN 'INF_NEG' THEN '-inf' WHEN 'NAN' THEN 'nan' ELSE intermediate_value::text END))
     FROM trial_intermediate_values v WHERE v.trial_id = t.trial_id),
    (SELECT json_object_agg(key, value_json) FROM trial_user_attributes a WHERE a.trial_id = t.trial_id),
    (SELECT json_object_agg(key, value_json) FROM trial_system_attributes a WHERE a.trial_id = t.trial_id)
)::text, t.study_id
FROM trials t
"""
TRIAL = _TRIAL + "WHERE t.trial_id = %s"

# The study itself, as a row without a number; the trials from a number on; and older ones that were not finished.
NEWS = f"""
SELECT study_id, NULL::int, NULL, NULL::timestamp, NULL::timestamp, NULL, study_id FROM studies
WHERE study_id = %(study_id)s
UNION ALL {_TRIAL} WHERE t.study_id = %(study_id)s AND t.number >= %(number)s
UNION ALL {_TRIAL} WHERE t.trial_id = ANY(%(unfinished)s::int[]) AND t.number < %(number)s
"""

# Whether a study has a trial that waits to be run; no row where there is no such study.
ANY_WAITING = """
SELECT EXISTS (SELECT FROM trials t WHERE t.study_id = s.study_id AND state = 'WAITING') FROM studies s
WHERE s.study_id = %s
"""

TRIAL_ID = "SELECT trial_id FROM trials WHERE study_id = %s AND number = %s"

# ---- writing trials. `writable` are the trials that may still be written to.

_CONTENT = {
    "params": """
    INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT trial_id, item ->> 0, (item ->> 1)::float8, item ->> 2
    FROM writable, json_array_elements(%(writes)s::json -> 'params') WITH ORDINALITY AS w (item, nr) ORDER BY nr
    ON CONFLICT (trial_id, param_name)
    DO UPDATE SET param_value = EXCLUDED.param_value, distribution_json = EXCLUDED.distribution_json""",
    "values": """
    INSERT INTO trial_values (trial_id, objective, value, value_type)
    SELECT trial_id, (item ->> 0)::int, CASE WHEN value NOT IN ('inf', '-inf') THEN value END,
           (CASE value WHEN 'inf' THEN 'INF_POS' WHEN '-inf' THEN 'INF_NEG' ELSE 'FINITE' END)::trialvaluetype
    FROM writable, json_array_elements(%(writes)s::json -> 'values') AS w (item), float8(item ->> 1) AS value
    ON CONFLICT (trial_id, objective) DO UPDATE SET value = EXCLUDED.value, value_type = EXCLUDED.value_type""",
    "steps": """
    INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
    SELECT trial_id, (item ->> 0)::int, CASE WHEN value NOT IN ('inf', '-inf', 'nan') THEN value END,
           (CASE value WHEN 'inf' THEN 'INF_POS' WHEN '-inf' THEN 'INF_NEG' WHEN 'nan' THEN 'NAN'
            ELSE 'FINITE' END)::trialintermediatevaluetype
    FROM writable, json_array_elements(%(writes)s::json -> 'steps') AS w (item), float8(item ->> 1) AS value
    ON CONFLICT (trial_id, step) DO UPDATE
    SET intermediate_value = EXCLUDED.intermediate_value, intermediate_value_type = EXCLUDED.intermediate_value_type""",
    **{
        kind: f"""
    INSERT INTO trial_{kind}_attributes (trial_id, key, value_json)
    SELECT trial_id, item ->> 0, item ->> 1
    FROM writable, json_array_elements(%(writes)s::json -> '{kind}') AS w (item)
    ON CONFLICT (trial_id, key) DO UPDATE SET value_json = EXCLUDED.value_json"""
        for kind in ("user", "system")
    },
}

# One worker at a time numbers the trials of a study. What waits for the lock must be a statement of its own: the next
# one then sees the trials that were made meanwhile.
LOCK_STUDY = "SELECT study_id FROM studies WHERE study_id = %(study_id)s FOR NO KEY UPDATE"


# Whether a study's budget has room for one more: `known` of its trials had finished when the ones from `number` on, and
# the `unfinished` before, were still to be read.
_ROOM = """%(budget)s > %(known)s + (
    SELECT count(*) FROM (
        SELECT trial_id, state FROM trials WHERE study_id = %(study_id)s AND number >= %(number)s
        UNION ALL
        SELECT trial_id, state FROM trials WHERE trial_id = ANY(%(unfinished)s::int[]) AND number < %(number)s) t
    WHERE state IN ('COMPLETE', 'PRUNED')
       OR (state = 'RUNNING' AND EXISTS (SELECT FROM evertune.leases l WHERE l.trial_id = t.trial_id)))"""

_LEASE = """,
leased AS (
    INSERT INTO evertune.leases (trial_id, study_id, worker, owner, expires)
    SELECT trial_id, %(study_id)s, %(worker)s, %(owner)s, clock_timestamp() + make_interval(secs => %(lease_s)s)
    FROM writable)"""

_END_LEASE = """,
ended AS (DELETE FROM evertune.leases l USING writable WHERE l.trial_id = writable.trial_id)"""


@lru_cache(maxsize=64)
def create_trial(kinds: Iterable[str], *, leased: bool) -> str:
    """A new trial, with what its template has; returns its id and number. leased: only where the budget has room."""
    room, lease = (f"WHERE {_ROOM}", _LEASE) if leased else ("", "")
    return f"""
WITH writable AS (
    INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
    SELECT coalesce((SELECT max(number) + 1 FROM trials WHERE study_id = %(study_id)s), 0), %(study_id)s,
           %(state)s::text::trialstate, %(start)s::timestamp, %(complete)s::timestamp
    {room}
    RETURNING trial_id, number){_contents(kinds)}{lease}
SELECT trial_id, number FROM writable"""


# A trial that was made before the connection was lost, told by the microsecond of its start.
CREATED = "SELECT trial_id, number FROM trials WHERE study_id = %(study_id)s AND datetime_start = %(start)s::timestamp"


@lru_cache(maxsize=64)
def write_trial(kinds: Iterable[str], *, durable: bool, again: bool = False) -> str:
    """Write to an unfinished trial; returns its state, none where there is no such trial.

    again: it was sent before, and is kept only where that was lost, so that no later word is taken back.
    """
    later = "" if durable else "FROM (SELECT set_config('synchronous_commit', 'off', true)) AS later"
    return f"""
WITH found AS (SELECT trial_id, state FROM trials WHERE trial_id = %(trial_id)s FOR SHARE),
writable AS (SELECT trial_id FROM found WHERE state IN ('RUNNING', 'WAITING')){_contents(kinds, again=again)}
SELECT (SELECT state::text FROM found) {later}"""


@lru_cache(maxsize=64)
def tell_trial(kinds: Iterable[str], *, leased: bool, runs: bool) -> str:
    """Write to an unfinished trial and change its state; returns its state before, whether it was changed, and whether
    it had been changed by this very statement before.

    A trial becomes RUNNING (`runs`) only from WAITING. leased: only where the budget has room.
    """
    room = f"AND {_ROOM}" if leased and runs else ""
    lease = (_LEASE if runs else _END_LEASE) if leased else ""
    return f"""
WITH given AS (SELECT %(state)s::text::trialstate AS state, %(at)s::timestamp AS at),
found AS (
    SELECT trial_id, state, datetime_start, datetime_complete
    FROM trials WHERE trial_id = %(trial_id)s FOR NO KEY UPDATE),
writable AS (
    SELECT trial_id FROM found, given
    WHERE (found.state = 'WAITING' OR (found.state = 'RUNNING' AND given.state <> 'RUNNING')) {room}
){_contents(kinds)}{lease},
told AS (
    UPDATE trials t
    SET state = given.state,
        datetime_start = CASE WHEN given.state = 'RUNNING' THEN at ELSE t.datetime_start END,
        datetime_complete = CASE WHEN given.state NOT IN ('RUNNING', 'WAITING') THEN at ELSE t.datetime_complete END
    FROM writable, given WHERE t.trial_id = writable.trial_id)
SELECT found.state::text, EXISTS (SELECT FROM writable), found.state = given.state
       AND at = CASE WHEN given.state = 'RUNNING' THEN datetime_start ELSE datetime_complete END
FROM found, given"""


def _contents(kinds: Iterable[str], *, again: bool = False) -> str:
    texts = ((kind, _CONTENT[kind].partition("ON CONFLICT")[0] if again else _CONTENT[kind]) for kind in kinds)
    return "".join(f",\nwritten_{kind} AS ({text} {'ON CONFLICT DO NOTHING' if again else ''})" for kind, text in texts)


# ---- locks of a session

ENTER = "SELECT pg_advisory_lock(hashtextextended('evertune.study/' || %s::int, 0))"
LEAVE = "SELECT pg_advisory_unlock(hashtextextended('evertune.study/' || %s::int, 0))"

# ---- heartbeats

HEARTBEAT = """
INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (%s, current_timestamp)
ON CONFLICT (trial_id) DO UPDATE SET heartbeat = EXCLUDED.heartbeat
"""

STALE = """
SELECT trial_id FROM trials JOIN trial_heartbeats USING (trial_id)
WHERE study_id = %s AND state = 'RUNNING' AND heartbeat < current_timestamp - make_interval(secs => %s)
"""
