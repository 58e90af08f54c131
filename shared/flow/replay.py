"""A trial of a study, run once more: with its parameters, its objective, its rows and its random numbers."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.config import UseCase
from shared.domain import StudySpec
from shared.errors import EvertuneError, FlowError
from shared.flow import hpo, system
from shared.flow.plan import OWN_VALUE, Plan
from shared.storage.ledger import Ledger, LedgerEntry

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.trial import FrozenTrial

PRECISION = 1e-9  # relative; another number of threads changes the last digits
ENDED = ("done", "failed")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. values: one per direction. reports: by step. error: the traceback of one that failed."""

    state: str
    values: Sequence[float] = ()
    reports: Mapping[int, float] = field(default_factory=dict)
    error: str = ""

    @property
    def reason(self) -> str:
        return self.error.rpartition("\n")[2]


@dataclass(frozen=True)
class Replay:
    """A recorded trial beside its replay. names: of the values; of a system's, the latency is measured anew."""

    study: str
    number: int
    params: Mapping[str, Any]
    names: Sequence[str]
    recorded: Outcome
    replayed: Outcome

    @property
    def timed(self) -> bool:
        """Whether one of the values is a latency."""
        return system.LATENCY in self.names

    @property
    def difference(self) -> str:
        """In what the replay differs, in words; empty where it is the same."""
        return difference(self.recorded, self.replayed, [name for name in self.names if name != system.LATENCY])


def difference(recorded: Outcome, replayed: Outcome, names: Sequence[str]) -> str:
    """The first thing in which two outcomes differ, in words; empty where they are the same.

    names: of the values that can be repeated, which come first. Reports are compared as far as both have them.
    """
    for step in sorted(recorded.reports.keys() & replayed.reports.keys()):
        if not _equal(recorded.reports[step], replayed.reports[step]):
            return f"step {step} reported {recorded.reports[step]!r}, and now {replayed.reports[step]!r}"
    if recorded.state != replayed.state:
        return f"the trial ended {recorded.state}, and now {replayed.state}"
    for name, before, now in zip(names, recorded.values, replayed.values, strict=False):
        if not _equal(before, now):
            return f"{name} was {before!r}, and is {now!r} now"
    if recorded.reason != replayed.reason:
        return f"it failed by {recorded.reason!r}, and now by {replayed.reason!r}"
    return ""


def replay(
    use_case: UseCase, variant: str | None = None, number: int | None = None, study: str | None = None
) -> Replay:
    """Run a trial once more. By default, the best one of the newest study; of one without, the last.

    Raises:
        FlowError: there is no such study or trial.
        DataError: its rows or its objective's source are gone.
        ObjectiveError: its objective can't be imported any more.
    """
    entry = find_study(Ledger().entries(use_case.name), use_case.name, variant, study)
    spec, trials = read_study(entry)
    trial = find_trial(entry, trials, number)
    plan = plan_of(entry, spec, use_case)
    return Replay(
        entry.study,
        trial.number,
        trial.params,
        [plan.metric, system.LATENCY] if plan.variant == "system" else _names(plan),
        recorded(trial),
        run(trial, plan),
    )


def find_study(entries: Sequence[LedgerEntry], use_case: str, variant: str | None, study: str | None) -> LedgerEntry:
    """The study of a name, or the newest that has ended, of the last variant of the chain that has one.

    Raises:
        FlowError: there is none.
    """
    known = [e for e in entries if e.study == study] if study else [e for e in entries if e.state in ENDED]
    found = [e for e in known if variant in (None, e.variant)]
    if not found:
        names = ", ".join(e.study for e in sorted(entries, key=lambda e: e.asked_at, reverse=True)[:10])
        asked = f"no {study!r}" if study else f"none of {variant}" if variant else "none"
        raise FlowError(
            f"a replay needs a study of {use_case!r} that has ended, but there is {asked}; on record, newest first: "
            f"{names or 'none'}. `evertune run {use_case}` tunes one"
        )
    return max(found, key=lambda e: (e.variant, e.asked_at))  # classical, deep, system


def read_study(entry: LedgerEntry) -> tuple[StudySpec, list[FrozenTrial]]:
    """What the study is about, and its trials in the order of their numbers.

    Raises:
        FlowError: its trials are gone.
    """
    from shared.storage import PostgresStorage

    storage = PostgresStorage()
    try:
        study_id = storage.get_study_id_from_name(entry.study)
        about = storage.get_study_user_attrs(study_id)["evertune"]
        return StudySpec(name=entry.study, **about), storage.get_all_trials(study_id, deepcopy=False)
    except KeyError as err:
        raise FlowError(
            f"a replay needs the trials of {entry.study}, but that study was deleted from the database; "
            f"`evertune run {entry.use_case} --force` tunes it anew"
        ) from err
    finally:
        storage.close()


def find_trial(entry: LedgerEntry, trials: Sequence[FrozenTrial], number: int | None) -> FrozenTrial:
    """The trial of a number, or the best one; of a study that has none, the last.

    Raises:
        FlowError: there is no such trial, or it hasn't ended.
    """
    ended = [trial.number for trial in trials if trial.state.is_finished()]
    if number is None:
        number = entry.outcome.get("trial", max(ended, default=None))
    if number not in ended:
        raise FlowError(
            f"--trial must be the number of a trial that has ended, but is {number}; {entry.study} has "
            f"{f'{ended[0]} to {ended[-1]}' if ended else 'none'}"
        )
    return trials[number]


def plan_of(entry: LedgerEntry, spec: StudySpec, use_case: UseCase) -> Plan:
    """The plan that the study was tuned by.

    Raises:
        FlowError: (a system's) the config or the upstream studies have changed since.
        DataError: the dataset version or the objective's source isn't on record any more.
    """
    if entry.variant == "system":
        return _system_plan(entry, use_case)
    from shared.tuning.objective import Objective

    ledger, config = Ledger(), getattr(use_case, entry.variant)
    label = entry.outcome.get("objective") or (config.objective if config else f"the objective of {entry.study}")
    return Plan(
        use_case if entry.outcome.get("scores_itself") else _scored_as(use_case, entry.outcome.get("metric")),
        entry.variant,
        dataset=ledger.dataset(use_case.name, spec.fingerprint),
        spec=spec,
        objective=Objective.from_source(ledger.source(spec.objective_hash), label),
        wanted=config.workers if config else "auto",
    )


def run(trial: FrozenTrial, plan: Plan) -> Outcome:
    """How the trial ends now, with as many threads as a worker has."""
    from shared.training import threads

    threads.limit(threads.share(plan.workers))
    from optuna import TrialPruned

    from shared.tuning.objective import check_value
    from shared.tuning.replayed import ReplayedTrial

    evaluate, again = evaluation(plan), ReplayedTrial(trial, plan.study.directions, plan.study.guard)
    try:
        values = check_value(evaluate(again), len(plan.study.directions))
    except TrialPruned:
        return Outcome("PRUNED", reports=again.reports)
    except Exception as err:  # noqa: BLE001  # that it fails again may be what is to be seen
        return Outcome("FAIL", reports=again.reports, error=readable(err))
    return Outcome("COMPLETE", values, again.reports)


def evaluation(plan: Plan) -> Callable[[Any], Any]:
    """The function that the study optimized; a system's without what the cache remembers of the fits."""
    return system.search(plan, cached=False).evaluate if plan.variant == "system" else hpo.evaluation(plan)


def recorded(trial: FrozenTrial) -> Outcome:
    """How the trial ended then."""
    error = trial.user_attrs.get("error", "") if trial.state.name == "FAIL" else ""
    return Outcome(trial.state.name, tuple(trial.values or ()), trial.intermediate_values, error)


def readable(error: BaseException) -> str:
    """The traceback from the objective's first line on; what Evertune raised with a remedy is its message alone."""
    if isinstance(error, EvertuneError) and error.__cause__ is None:
        return f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    frame, ours = error.__traceback__, Path(__file__).parents[1]
    while frame and frame.tb_next and Path(frame.tb_frame.f_code.co_filename).is_relative_to(ours):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame)).strip()


def _system_plan(entry: LedgerEntry, use_case: UseCase) -> Plan:
    plan = system.due(use_case, entry.fingerprint)
    if plan.spec is None or plan.spec.name != entry.study:
        raise FlowError(
            "a trial of a system is replayed over the upstream studies and the config of then, but since then those of "
            f"{entry.study} have changed; replay a trial of a member: --variant {use_case.members[0]}"
        )
    return replace(plan, idle="")  # it is done, and is to be run once more


def _scored_as(use_case: UseCase, metric: str | None) -> UseCase:
    """The use case with the metric of then."""
    if metric in (None, OWN_VALUE):
        return use_case
    return use_case.model_copy(update={"tuning": use_case.tuning.model_copy(update={"metric": metric})})


def _names(plan: Plan) -> list[str]:
    n_values = len(plan.study.directions)
    if plan.study.metrics:
        return list(plan.study.metrics)
    return [plan.metric] if n_values == 1 else [f"{plan.metric} {i}" for i in range(n_values)]


def _equal(before: float, now: float) -> bool:
    return before == now or math.isclose(before, now, rel_tol=PRECISION) or (math.isnan(before) and math.isnan(now))
