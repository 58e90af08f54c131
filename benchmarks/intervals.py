"""`python -m benchmarks.intervals USE_CASE`: begin and end of every trial and retraining of its studies, as JSON."""

import json
import sys

from shared.storage import PostgresStorage
from shared.storage.ledger import Ledger


def main(use_case: str) -> list[tuple[str, str]]:
    storage = PostgresStorage()
    intervals = []
    for entry in Ledger().entries(use_case):
        intervals.append(tuple(entry.outcome["retrained"]))
        study = storage.get_study_id_from_name(entry.study)
        intervals += [
            (trial.datetime_start.astimezone().isoformat(), trial.datetime_complete.astimezone().isoformat())
            for trial in storage.get_all_trials(study, deepcopy=False)
            if trial.datetime_start and trial.datetime_complete
        ]
    return intervals


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
