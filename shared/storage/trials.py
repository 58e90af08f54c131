"""Optuna's trials, from and to the rows of its tables, and what a process remembers of a study's."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

Row = tuple[Any, ...]

# What Optuna's columns take.
MAX_KEY_CHARACTERS = 512
MAX_STEP = 2**31 - 1

_EPOCH = datetime(1970, 1, 1)


class Writes:
    """What a trial is told, by kind and key: the last word on each.

    Raises:
        StorageInternalError: a name or a step doesn't fit the columns (told here, and not when it is sent).
    """

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
        self._put("params", check_key(name), repr(float(internal_value)), distribution_to_json(distribution))

    def step(self, step: int, value: float) -> None:
        if abs(step) > MAX_STEP:
            raise StorageInternalError(f"a step is between -{MAX_STEP} and {MAX_STEP}, but this one is {step}")
        self._put("steps", step, repr(float(value)))

    def attribute(self, kind: str, key: str, value: Any) -> None:
        self._put(kind, check_key(key), json.dumps(value))

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

    def trial(
        self, trial_id: int, number: int, state: str, start: datetime | None, complete: datetime | None = None
    ) -> FrozenTrial:
        """The trial that was told this and nothing else; times as in the tables."""
        rows: dict[str, list[Any]] = {kind: list(rows.values()) for kind, rows in self._rows.items()}
        values = [value for _, value in rows.get("values", ())]
        user, system = dict(rows.get("user", ())), dict(rows.get("system", ()))
        identity = trial_id, number, state, start, complete
        return _build(*identity, rows.get("params"), values, rows.get("steps"), user, system)

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

    def update(self, rows: Iterable[Row]) -> list[FrozenTrial]:
        """Take in trials that were read again, or for the first time; and return them."""
        trials = [frozen_trial(row) for row in sorted(rows, key=lambda row: row[1])]
        for trial in trials:
            self._put(trial)
        return trials

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
    return _build(*row[:5], *json.loads(row[5]))


def _build(
    trial_id: int,
    number: int,
    state: str,
    start: datetime | None,
    complete: datetime | None,
    params: Sequence[Sequence[str]] | None,
    values: Sequence[str] | None,
    steps: Sequence[tuple[int, str]] | None,
    user: dict[str, str] | None,
    system: dict[str, str] | None,
) -> FrozenTrial:
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


def check_key(key: str) -> str:
    """The name of a parameter or an attribute.

    Raises:
        StorageInternalError: it doesn't fit the columns.
    """
    if len(key) > MAX_KEY_CHARACTERS or "\0" in key or not _is_text(key):
        raise StorageInternalError(
            f"names of parameters and attributes are text of up to {MAX_KEY_CHARACTERS} characters without NUL, "
            f"but this one is {key[:40]!r}, of {len(key)}"
        )
    return key


def utc(time: datetime | None) -> datetime | None:
    """As Optuna's tables keep times, from the naive local ones that its trials have."""
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None)


def _local(time: datetime | None) -> datetime | None:
    return None if time is None else datetime.fromtimestamp((time - _EPOCH).total_seconds())


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
