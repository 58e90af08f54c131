"""What the gate is told, and what follows from its decision.

Both models are loaded from the registry. The holdout is read here, and by `compare`, which decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.config import PromotionConfig, UseCase
from shared.domain import Dataset, ModelVersion, PromotionDecision
from shared.errors import (
    ChangedModelError,
    DataError,
    ObjectiveError,
    RegistryError,
    UnloadableModelError,
    UnrecordedModelError,
)
from shared.flow import hpo
from shared.flow.plan import Plan
from shared.storage import turns
from shared.storage.ledger import Ledger

if TYPE_CHECKING:
    import numpy as np

    from shared.model import System
    from shared.registry.constraints import Slice
    from shared.registry.gate import Contender
    from shared.registry.spending import Turn

logger = logging.getLogger(__name__)

SIZE = "size_mb"  # metric of a registered version
ROUNDS = 3


@dataclass(frozen=True)
class Gated:
    """The registered system, the champion that it met, and the decision."""

    version: ModelVersion
    champion: ModelVersion | None
    decision: PromotionDecision


def gated(plan: Plan, outcome: Mapping[str, Any], run: str) -> Gated:
    """The gate's decision on the version of an outcome, made and carried out if it wasn't before."""
    from shared.registry import aliases, client, promotion

    name, number = outcome["model"], outcome["version"]
    version, latency_ms = hpo.publish(outcome), outcome["top"][0]["values"][1]
    assert version is not None
    decided = promotion.settle(name, number, lambda champion: decide(plan, version, champion, latency_ms), actor=run)
    figures = {key: float(value) for key, value in decided.figures.items()}
    client.add_metrics(version, {f"gate.{key}": value for key, value in figures.items()})
    previous = decided.previous
    met = client.version(name, previous) if previous and aliases.has_version(name, previous) else None  # else pruned
    decision = PromotionDecision(promote=decided.took_place, reason=decided.reason, figures=figures)
    return Gated(client.version(name, number), met, decision)


def decide(plan: Plan, version: ModelVersion, champion: ModelVersion | None, latency_ms: float) -> PromotionDecision:
    """The gate's decision on the holdout.

    latency_ms: the pick's as the search measured it, which decided whether it is feasible.
    """
    from shared.data.store import load_dataset
    from shared.registry import gate
    from shared.training.measure import measure

    rules, metric = plan.use_case.promotion, plan.use_case.tuning.metric
    if rules is None:
        return PromotionDecision(promote=False, reason=f"configs/{plan.use_case.name}.toml has no table [promotion]")
    holdout = load_dataset(plan.data, "holdout")
    rows, unfair = fair_rows(plan, champion, holdout) if champion else (holdout, "")
    some = f" (on the {len(rows.y)} of {len(holdout.y)} holdout rows that are new to the champion)"
    challenger, met = contenders(metric, version, champion, rows, timed=rules.mode == "non_inferiority")
    bout = gate.Bout(
        measure(metric, rows.ref.table),
        rows.y,
        challenger,
        None if isinstance(met, str) else met,
        absent=met if isinstance(met, str) else "",
        unfair=unfair,
        groups=groups(plan.use_case, rows),
        slices=list(slices(rules, rows)),
        latency_ms=latency_ms,
        latency_budget_ms=plan.use_case.system.latency_budget_ms if plan.use_case.system else None,
        metric=metric if len(rows.y) == len(holdout.y) else metric + some,
    )
    return gate.decide(bout, rules, lambda: take_turn(plan, version, holdout, rules, bout.n_groups))


def contenders(
    metric: str, version: ModelVersion, champion: ModelVersion | None, rows: Dataset, *, timed: bool = False
) -> tuple[Contender, Contender | str]:
    """Both models as the gate sees them, or why there is no champion to be compared with.

    timed: their latencies are measured, in turn.

    Raises:
        ObjectiveError: the metric isn't defined for what the challenger predicts.
        RegistryError: the registry can't be reached; that must not cost the champion its place.
    """
    from shared.registry import client
    from shared.registry.gate import Contender

    system = client.load_version(version)
    predictions = predicted(metric, system, rows)
    alone = Contender(predictions, size_mb=version.metrics.get(SIZE))
    if champion is None:
        return alone, "there is no champion yet"
    old = predicted_by(metric, champion, rows)
    if isinstance(old, str):
        return alone, f"the champion has no score on these rows ({old})"
    rival, expected = old
    new_ms, old_ms = beside_each_other(system, rival, rows) if timed else (None, None)
    return (
        Contender(predictions, new_ms, version.metrics.get(SIZE)),
        Contender(expected, old_ms, champion.metrics.get(SIZE)),
    )


def predicted(metric: str, system: System, rows: Dataset) -> np.ndarray:
    """A system's predictions for rows.

    Raises:
        DataError: it was made for another target, or other columns.
        ObjectiveError: the metric isn't defined for them.
    """
    from shared.training import scoring

    if system.signature.classes != rows.ref.table.classes:
        raise DataError(f"a system of the classes {system.signature.classes} has no score on {rows.ref.table.classes}")
    try:
        aligned = system.signature.align(rows.X)
    except ValueError as err:
        raise DataError(f"a system has no score on rows of other columns: {err}") from err
    predictions = system.scores(aligned)
    scoring.score(metric, rows.ref.table, rows.y, predictions)
    return predictions


def predicted_by(metric: str, version: ModelVersion, rows: Dataset) -> tuple[System, np.ndarray] | str:
    """A version's system and its predictions; or why it has no score on these rows, for good.

    What may pass, or is for a person to mend, must not cost a champion its place.

    Raises:
        RegistryError: the registry can't be reached, its files can't be read now, or it fails to predict.
        UnrecordedModelError, ChangedModelError: nobody trusts its files yet, or they aren't those that were registered.
    """
    from shared.registry import client

    try:
        system = client.load_version(version)
        return system, predicted(metric, system, rows)
    except (UnrecordedModelError, ChangedModelError):
        raise
    except (DataError, ObjectiveError, UnloadableModelError) as err:
        logger.warning("a version has no score", extra={"model": version.uri, "reason": str(err)})
        return _why(err)
    except (KeyError, TypeError, ValueError) as err:
        raise RegistryError(
            f"{version.uri} must predict rows of its own columns, but {err!r}; mend the rows, or what predicts "
            "them; to serve another version all the same, promote it by hand (`evertune models promote`)"
        ) from err


def _why(err: DataError | ObjectiveError | UnloadableModelError) -> str:
    """In short, for the promotion log: what is said of files and values is only in the run's log."""
    match err:
        case DataError():
            return "it was made for other classes or columns"
        case ObjectiveError():
            return "the metric isn't defined for what it predicts"
    return "it is of a format that isn't loaded any more"


def beside_each_other(one: System, other: System, rows: Dataset) -> tuple[float, float]:
    """Milliseconds a row of two systems, measured in turn; the best of three, since a busy machine only adds."""
    from shared.training.latency import latency_ms

    rounds = [(latency_ms(one, rows.X), latency_ms(other, rows.X)) for _ in range(ROUNDS)]
    return min(ms for ms, _ in rounds), min(ms for _, ms in rounds)


def groups(use_case: UseCase, rows: Dataset) -> np.ndarray | None:
    """Which rows belong together, if the config says so.

    Raises:
        DataError: a row belongs to none; the config may be newer than the dataset version.
    """
    from shared.data.validate import check_groups

    rules = use_case.promotion
    if rules is None or rules.group is None:
        return None
    check_groups(use_case, rows.X)
    return rows.X[rules.group].to_numpy()


def slices(rules: PromotionConfig, rows: Dataset) -> Iterator[Slice]:
    """The slices that the config names a column of."""
    from shared.data import slices
    from shared.registry.constraints import Slice

    for column, tolerance in rules.slices.items():
        for label, mask in slices.slices(rows.X[column]).items():
            yield Slice(column, label, mask, tolerance)


def take_turn(plan: Plan, version: ModelVersion, holdout: Dataset, rules: PromotionConfig, n_groups: int) -> Turn:
    """This gate's own turn at the holdout, spent from now on; one whose level is out of reach isn't taken.

    n_groups: of the rows that the gate looks at.
    """
    from shared.registry.gate import is_out_of_reach

    name = plan.use_case.name
    while True:
        last = turns.last(name)
        mine = _turn(name, version, holdout, rules, last)
        place = last.place + 1 if last else 1
        if is_out_of_reach(mine, n_groups) or turns.take(name, turns.Taken(place, version.version, mine.figures)):
            return mine


def _turn(name: str, version: ModelVersion, holdout: Dataset, rules: PromotionConfig, last: turns.Taken | None) -> Turn:
    """The turn after the last one. The series is a new one where enough of the rows have come since it began."""
    from shared.registry import spending

    if last is None or new_share(name, last.figures, holdout) >= rules.renew:
        return spending.first_turn(version.version, len(holdout.y), rules.alpha)
    log = [promotion.figures for promotion in Ledger().promotions(name)]
    return spending.next_turn(spending.with_decision(last.figures, log), rules.alpha)


def new_share(name: str, last: Mapping[str, Any], holdout: Dataset) -> float:
    """Holdout rows that weren't there when the series of gates began, as a share of those that were.

    last: figures of the last turn of the series. Where its first rows can't be read any more, those count by which the
    holdout has grown.
    """
    from shared.data.fair import new_rows
    from shared.data.store import load_dataset

    began = {e.outcome.get("version"): e.fingerprint for e in Ledger().entries(name) if e.variant == "system"}
    refs = {ref.fingerprint: ref for ref in Ledger().datasets(name)}
    try:
        new = new_rows(holdout, load_dataset(refs[began[int(last["series"])]], "holdout"))
    except (KeyError, DataError):
        new = len(holdout.y) - int(last["series_rows"])
    return new / float(last["series_rows"])


def fair_rows(plan: Plan, champion: ModelVersion, holdout: Dataset) -> tuple[Dataset, str]:
    """The holdout rows that the champion wasn't trained on; else all of them, and why they are no fair comparison."""
    from shared.data.fair import can_decide, new_to_champion
    from shared.data.store import load_dataset

    fingerprint = champion.lineage.get("dataset", "")
    if fingerprint == plan.data.fingerprint:
        return holdout, ""
    known = {ref.fingerprint: ref for ref in Ledger().datasets(plan.use_case.name)}
    try:
        trained_on = load_dataset(known[fingerprint])
    except (KeyError, DataError):
        return holdout, f"the rows that it was trained on (dataset version {fingerprint[:12]}) can't be read any more"
    rows = new_to_champion(holdout, load_dataset(plan.data), trained_on)
    if len(rows.y) == len(holdout.y) or can_decide(rows, plan.use_case.tuning.metric):
        return rows, ""
    return holdout, (
        f"the split has changed since, and only {len(rows.y)} of {len(holdout.y)} holdout rows are new to it, too few"
    )
