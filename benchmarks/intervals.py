"""`python -m benchmarks.intervals USE_CASE`: when its newest chain's flows ran, and their trials and fits, as JSON."""

import json
import sys
from collections.abc import Iterator
from datetime import datetime

from shared.events.chain import newest_chain
from shared.storage import PostgresStorage
from shared.storage.ledger import Ledger, LedgerEntry

Times = tuple[str, str]


def main(use_case: str) -> dict[str, tuple[Times, list[Times]]]:
    """Begin and end of each flow that ran, then of each of its trials, and of its retraining."""
    chain = newest_chain(use_case)
    assert chain, "run it first"
    tuned = {entry.run: entry for entry in Ledger().entries(use_case)}
    return {
        name: (
            (flow.started_at.isoformat(), flow.finished_at.isoformat()),
            [*busy(tuned[flow.run])] if flow.run in tuned else [],
        )
        for name, flow in chain.flows.items()
        if flow.started_at and flow.finished_at
    }


def busy(entry: LedgerEntry) -> Iterator[Times]:
    """The trials of a study, and its retraining if there was one."""
    if entry.outcome["retrained"]:
        yield tuple(entry.outcome["retrained"])
    storage = PostgresStorage()
    for trial in storage.get_all_trials(storage.get_study_id_from_name(entry.study), deepcopy=False):
        if trial.datetime_start and trial.datetime_complete:
            yield local(trial.datetime_start), local(trial.datetime_complete)


def local(time: datetime) -> str:
    return time.astimezone().isoformat()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
