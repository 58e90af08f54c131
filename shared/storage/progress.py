"""How far studies are, in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.errors import UndefinedTable
from psycopg.rows import class_row

from shared.storage import database
from shared.storage.refusal import explained


@dataclass(frozen=True)
class Progress:
    """Trials of a study by state, its budget, and the best value of its first direction so far."""

    study: str
    budget: int
    complete: int
    pruned: int
    failed: int
    running: int
    best: float | None

    @property
    def finished(self) -> int:
        """Trials that count against the budget."""
        return self.complete + self.pruned


# The budget is what `open_study` keeps as the user attribute `evertune`.
PROGRESS = """
SELECT s.study_name AS study,
       coalesce(max((about.value_json::jsonb ->> 'n_trials')::int), 0) AS budget,
       count(*) FILTER (WHERE t.state = 'COMPLETE') AS complete,
       count(*) FILTER (WHERE t.state = 'PRUNED') AS pruned,
       count(*) FILTER (WHERE t.state = 'FAIL') AS failed,
       count(*) FILTER (WHERE t.state = 'RUNNING') AS running,
       CASE d.direction WHEN 'MAXIMIZE' THEN max(v.value) ELSE min(v.value) END AS best
FROM studies s
JOIN study_directions d ON d.study_id = s.study_id AND d.objective = 0
LEFT JOIN study_user_attributes about ON about.study_id = s.study_id AND about.key = 'evertune'
LEFT JOIN trials t ON t.study_id = s.study_id
LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0 AND t.state = 'COMPLETE'
WHERE s.study_name = ANY(%s)
GROUP BY s.study_name, d.direction
"""


def progress(study_names: Sequence[str]) -> dict[str, Progress]:
    """Progress by study name; a study that has no trial yet may be missing.

    Raises:
        ServiceError: the database can't be reached, or refuses.
    """
    with (
        database.connect() as connection,
        explained(connection),
        connection.cursor(row_factory=class_row(Progress)) as cursor,
    ):
        try:
            return {row.study: row for row in cursor.execute(PROGRESS, [list(study_names)])}
        except UndefinedTable:  # Optuna makes its tables with the first study
            return {}
