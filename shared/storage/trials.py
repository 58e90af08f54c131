"""Optuna's trials, from and to the rows of its tables, and what a process remembers of a study's."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

Row = tuple[Any, ...]

UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)


class Writes:
    """What a trial is told, by kind and key: the last word on each."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[Any, list[Any]]] = {}

    @classmethod
    def of(cls, trial: FrozenTrial) -> Writes:
        """Everything that a template has."""
        writes = cls()
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            writes.param(name, distribution.to_internal_repr(value), distribution)
        for step, value in trial.intermediate_values.items():
            writes.step(step, value)
        for key, value in trial.user_attrs.items():
            writes.attribute("user", key, value)
        for key, value in trial.system_attrs.items():
            writes.attribute("system", key, value)
        if trial.values is not None:
            writes.values(trial.values)
        return writes

    def param(self, name: str, internal_value: float, distribution: BaseDistribution) -> None:
        self._put("params", name, repr(float(internal_value)), distribution_to_json(distribution))

    def step(self, step: int, value: float) -> None:
        self._put("steps", step, repr(float(value)))

    def attribute(self, kind: str, key: str, value: Any) -> None:
        self._put(kind, key, json.dumps(value))

    def values(self, values: Sequence[float]) -> None:
        for objective, value in enumerate(values):
            self._put("values", objective, repr(float(value)))

    def update(self, later: Writes) -> None:
        """Add what was told later."""
        for kind, rows in later._rows.items():
            self._rows.setdefault(kind, {}).update(rows)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which kinds there are, in an order that is always the same."""
        return tuple(sorted(self._rows))

    def dumps(self) -> str:
        return json.dumps({kind: list(rows.values()) for kind, rows in self._rows.items()})

    def __bool__(self) -> bool:
        return bool(self._rows)

    def _put(self, kind: str, key: Any, *rest: Any) -> None:
        self._rows.setdefault(kind, {})[key] = [key, *rest]


class StudyTrials:
    """The trials of a study as they were last read, by number. Finished ones don't change any more."""

    def __init__(self) -> None:
        self.distributions: dict[str, BaseDistribution] = {}
        self.n_finished = 0  # COMPLETE or PRUNED
        self._trials: list[FrozenTrial] = []
        self._at: dict[int, int] = {}
        self._unfinished: set[int] = set()

    @property
    def next_number(self) -> int:
        """Of the first trial that wasn't read yet."""
        return self._trials[-1].number + 1 if self._trials else 0

    @property
    def news(self) -> dict[str, Any]:
        """What a statement wants to know that reads or counts what may have changed."""
        return {"known": self.n_finished, "number": self.next_number, "unfinished": list(self._unfinished)}

    def update(self, rows: Iterable[Row]) -> None:
        """Take in trials that were read again, or for the first time."""
        for row in sorted(rows, key=lambda row: row[1]):
            self._put(frozen_trial(row))

    def replace(self, trial: FrozenTrial) -> None:
        """A trial has changed. One that was never read is left to be read in its turn."""
        if trial._trial_id in self._at:
            self._put(trial)

    def _put(self, trial: FrozenTrial) -> None:
        if trial._trial_id in self._at and trial._trial_id not in self._unfinished:
            return
        at = self._at.setdefault(trial._trial_id, len(self._trials))
        self._trials[at : at + 1] = [trial]
        for name, distribution in trial.distributions.items():
            self.distributions.setdefault(name, distribution)
        if not trial.state.is_finished():
            self._unfinished.add(trial._trial_id)
            return
        self._unfinished.discard(trial._trial_id)
        self.n_finished += trial.state != TrialState.FAIL

    def in_states(self, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """The trials in some of the states, by number."""
        if states is None:
            return list(self._trials)
        if not any(state in states for state in TrialState if state.is_finished()):
            unfinished = sorted(self._at[trial_id] for trial_id in self._unfinished)
            return [self._trials[at] for at in unfinished if self._trials[at].state in states]
        return [trial for trial in self._trials if trial.state in states]


def frozen_trial(row: Row) -> FrozenTrial:
    """A trial from its row in `statements.TRIAL`."""
    trial_id, number, state, start, complete, content, _ = row
    params, values, steps, user, system = json.loads(content)
    given: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for name, value, distribution_json in params or ():
        distribution = distributions[name] = _distribution(distribution_json)
        given[name] = distribution.to_external_repr(float(value))
    return FrozenTrial(
        number=number,
        state=TrialState[state],
        value=None,
        values=[float(value) for value in values] if values else None,
        datetime_start=_local(start),
        datetime_complete=_local(complete),
        params=given,
        distributions=distributions,
        user_attrs=attributes(user),
        system_attrs=attributes(system),
        intermediate_values={step: float(value) for step, value in steps or ()},
        trial_id=trial_id,
    )


def attributes(found: dict[str, str] | None) -> dict[str, Any]:
    """Attributes by key, from the JSON of each."""
    return {key: json.loads(value) for key, value in (found or {}).items()}


def utc(time: datetime | None) -> datetime | None:
    """As Optuna's tables keep times, from the naive local ones that its trials have."""
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None)


def _local(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)
