"""How a study ended: its best trial, or the Pareto front and the pick from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shared.domain import StudySpec, Transfer, TrialSummary, TuningResult
from shared.errors import StudyFailed
from shared.tuning.stopping import FINISHED
from shared.tuning.study import open_study

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from shared.tuning.worker import WorkerStats

Choose = Callable[[Sequence[TrialSummary]], TrialSummary]
TOP = 10


def select(
    spec: StudySpec, storage: BaseStorage | None = None, stats: Sequence[WorkerStats] = (), pick: Choose | None = None
) -> TuningResult:
    """The result of a study. stats: what the workers returned. pick: chooses among all complete trials.

    Without a pick the best is the feasible trial with the best value in the first direction.

    Raises:
        StudyFailed: no trial is complete.
    """
    study = open_study(spec, storage)
    trials = study.get_trials(deepcopy=False)
    complete = summarize(study)
    if not complete:
        raise StudyFailed(_explain_failure(spec, trials))
    ranked = rank(complete, spec)
    front = tuple(summary(trial) for trial in study.best_trials) if len(spec.directions) > 1 else ()
    feasible = rank([summary(trial) for trial in study.best_trials], spec)
    best = pick(complete) if pick else (feasible or ranked)[0]
    return TuningResult(
        study=spec.name,
        best=best,
        top=distinct([best, *ranked])[:TOP],
        front=front,
        counts=Counter(trial.state.name for trial in trials),
        wall_s=max((s.wall_s for s in stats), default=0.0),
        cpu_s=sum(s.cpu_s for s in stats),
        note=note(spec, trials, stats, meets_constraints=bool(feasible)),
        transfers=_transfers(spec, study),
    )


def _transfers(spec: StudySpec, study: optuna.Study) -> tuple[Transfer, ...]:
    if not spec.earlier:
        return ()
    from shared.tuning.earlier import transfers

    return transfers(spec, study._storage, study.get_trials(deepcopy=False))


def summarize(study: optuna.Study) -> list[TrialSummary]:
    """The complete trials, in the order of their numbers."""
    return [summary(trial) for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def summary(trial: FrozenTrial) -> TrialSummary:
    return TrialSummary(
        number=trial.number,
        values=tuple(trial.values),
        params=dict(trial.params),
        user_attrs=dict(trial.user_attrs),
        duration_s=trial.duration.total_seconds() if trial.duration else 0.0,
    )


def rank(trials: Sequence[TrialSummary], spec: StudySpec) -> list[TrialSummary]:
    """Best first, by the first value; of equal ones the earlier."""
    sign = -1 if spec.directions[0] == "maximize" else 1
    return sorted(trials, key=lambda trial: (sign * trial.values[0], trial.number))


def distinct(trials: Sequence[TrialSummary]) -> tuple[TrialSummary, ...]:
    """The first trial of each configuration."""
    first: dict[str, TrialSummary] = {}
    for trial in trials:
        first.setdefault(json.dumps(dict(trial.params), sort_keys=True, default=repr), trial)
    return tuple(first.values())


def note(
    spec: StudySpec, trials: Sequence[FrozenTrial], stats: Sequence[WorkerStats], *, meets_constraints: bool = True
) -> str:
    """What a reader of the result must know: why the budget wasn't reached, or that no trial is feasible."""
    finished = sum(trial.state.name in FINISHED for trial in trials)
    reasons = dict.fromkeys(s.stopped for s in stats if s.stopped) if finished < spec.n_trials else {}
    notes = [f"{reason}, with {finished} of {spec.n_trials} trials" for reason in reasons]
    if not meets_constraints:
        notes.append("no trial meets the constraints")
    return "; ".join(notes)


def _explain_failure(spec: StudySpec, trials: Sequence[FrozenTrial]) -> str:
    counts = Counter(trial.state.name for trial in trials)
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    pruned = f" and {counts['PRUNED']} were pruned" if counts["PRUNED"] else ""
    last = f"; the last error:\n{_quoted(failed[-1].user_attrs.get('error', 'not recorded'))}\n" if failed else "; "
    remedy = (
        "mend the objective, try it by itself (`python <objective file>`), and run the flow again"
        if failed
        else "raise the budget `n_trials` or the timeout, or choose another pruner"
    )
    return f"study {spec.name} must have a complete trial, but {counts['FAIL']} trials failed{pruned}{last}{remedy}"


def _quoted(error: str) -> str:
    """A trial's traceback inside the message of another error: no line of it, read in a log, begins an error."""
    return "\n".join(f"| {line}".rstrip() for line in error.splitlines())
