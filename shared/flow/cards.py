"""The cards of the HPO and system flows: facts first, then pictures, then the table. A flow adds one in one line:

    current.card.extend(study_card(trials, spec, result, model, lineage=tree))

Meant for `@card(type="blank")`. A card builds in half a CPU second, most of which is importing altair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pprint import pformat
from typing import TYPE_CHECKING, Any

from shared.domain import ModelVersion, PromotionDecision, StudySpec, TrialSummary, TuningResult
from shared.flow.charts import study as charts
from shared.flow.charts import system, transfer
from shared.flow.charts.slices import slices
from shared.flow.charts.theme import Spec, figure, seconds
from shared.flow.charts.trials import MIN_TRIALS_FOR_IMPORTANCE, Goal, importances, ranked
from shared.tuning.stopping import FINISHED

LETTERS = 110  # in a line of the card

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from shared.registry.tree import Branch


def study_card(
    trials: Sequence[FrozenTrial],
    spec: StudySpec,
    result: TuningResult | None,
    model: ModelVersion | None = None,
    *,
    metrics: Sequence[str] = (),
    lineage: Branch | None = None,
) -> list[Any]:
    """The card of an HPO flow: a list of Metaflow card components.

    trials: all of the study. result: None where no trial is complete. model: the registered version, if any.
    metrics: a name per direction (default: `value`). lineage: of the registered version.
    """
    goals = _goals(spec, metrics)
    reported = next((goal for goal in goals if goal.reported), goals[0])
    body = _charts(charts.history(trials, goal) for goal in goals)
    if len(goals) > 1:
        body += _charts([system.pareto(trials, goals[0], goals[1], pick=result.best.number if result else None)])
    return [
        *_facts(spec, result, goals[0], trials, model),
        *_note(result),
        *_transfer(result, trials, goals[0]),
        *body,
        *_space(trials, goals[0]),
        *_charts([charts.curves(trials, reported, spec.steps.title() or "Step"), charts.durations(trials)]),
        *_table(trials, goals[0]),
        *_best_params(result, goals[0]),
        *_lineage(lineage),
    ]


def system_card(
    trials: Sequence[FrozenTrial],
    spec: StudySpec,
    result: TuningResult | None,
    model: ModelVersion | None = None,
    decision: PromotionDecision | None = None,
    *,
    metric: str = "value",
    latency_budget_ms: float | None = None,
    champion: ModelVersion | None = None,
    lineage: Branch | None = None,
) -> list[Any]:
    """The card of `SystemTuneFlow`: a list of Metaflow card components.

    A trial's values are the metric, greater is better, and the latency in ms per row. champion: the version that the
    challenger met, if there was one. lineage: of the registered version.
    """
    goal, cost = Goal(metric), Goal("latency", "minimize", 1, "ms per row")
    pick = result.best if result else None
    pareto = system.pareto(trials, goal, cost, budget=latency_budget_ms, pick=pick.number if pick else None)
    return [
        *_facts(spec, result, goal, trials, model),
        *_decision(decision, metric, model, champion),
        *_note(result),
        *_charts([pareto]),
        *(_blend(pick, latency_budget_ms) if pick else []),
        *_charts([charts.history(trials, goal)]),
        *_space(trials, goal),
        *_charts([charts.durations(trials)]),
        *_table(trials, goal, cost),
        *_lineage(lineage),
    ]


def _goals(spec: StudySpec, names: Sequence[str]) -> list[Goal]:
    one = len(spec.directions) == 1
    default = ["value"] if one else [f"value {i}" for i in range(len(spec.directions))]
    named = names if len(names) == len(spec.directions) else default
    return [
        Goal(name, direction, i, reported=one or name == spec.guard)
        for i, (name, direction) in enumerate(zip(named, spec.directions, strict=True))
    ]


def _facts(
    spec: StudySpec, result: TuningResult | None, goal: Goal, trials: Sequence[FrozenTrial], model: ModelVersion | None
) -> list[Any]:
    """The headline, a row of boxes, and a line of what it was done on."""
    from metaflow.cards import Markdown, Table, ValueBox

    counts = dict(result.counts) if result else Counter(t.state.name for t in trials)
    boxes = [
        ValueBox(title=f"Best {goal.metric}", value=_best(result), subtitle=_trial(result)),
        ValueBox(title="Trials finished", value=_budget(counts, spec), subtitle=_states(counts)),
        ValueBox(title="Wall time", value=_wall(result), subtitle=f"{seconds(result.cpu_s) if result else '?'} of CPU"),
        ValueBox(title="Model version", value=_version(model), subtitle=_named(model)),
    ]
    headline = f"# {spec.use_case}, {spec.variant}: {goal.metric} {_best(result)}"
    return [Markdown(headline), Table([boxes]), Markdown(_identity(spec))]


def _best(result: TuningResult | None) -> str:
    return figure(result.best.values[0]) if result else "none"


def _trial(result: TuningResult | None) -> str:
    return f"trial {result.best.number}" if result else "no trial is complete"


def _budget(counts: Mapping[str, int], spec: StudySpec) -> str:
    return f"{counts.get('COMPLETE', 0) + counts.get('PRUNED', 0)} of {spec.n_trials}"


def _states(counts: Mapping[str, int]) -> str:
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
    return ", ".join(f"{counts[state]} {name}" for state, name in names.items() if counts.get(state)) or "none started"


def _wall(result: TuningResult | None) -> str:
    return seconds(result.wall_s) if result else "?"


def _version(model: ModelVersion | None) -> str:
    return f"v{model.version}" if model else "none"


def _named(model: ModelVersion | None) -> str:
    return ", ".join((model.name, *model.aliases)) if model else "not registered"


def _identity(spec: StudySpec) -> str:
    return (
        f"Study `{spec.name}` on dataset version `{spec.fingerprint[:12]}`; "
        f"sampler {spec.sampler.name}, pruner {spec.pruner.name}, seed {spec.seed}."
    )


def _note(result: TuningResult | None) -> list[Any]:
    from metaflow.cards import Markdown

    return [Markdown(f"**Note.** {_sentence(result.note)}")] if result and result.note else []


def _transfer(result: TuningResult | None, trials: Sequence[FrozenTrial], goal: Goal) -> list[Any]:
    """Where the study started from, and what that brought."""
    from metaflow.cards import Markdown, Table

    if result is None or not result.transfers:
        return []
    lines = [transfer.gain(trials, goal), *transfer.mappings(trials)]
    return [
        Markdown("## What came from earlier studies"),
        Table(transfer.source_rows(result.transfers, trials), headers=transfer.HEADERS),
        *(Markdown(line) for line in lines if line),
    ]


def _charts(made: Iterable[Spec | None]) -> list[Any]:
    from metaflow.cards import VegaChart

    return [VegaChart(spec) for spec in made if spec is not None]


def _space(trials: Sequence[FrozenTrial], goal: Goal) -> list[Any]:
    """What mattered, and where the good values are; or the sentence why that can't be said yet."""
    from metaflow.cards import Markdown

    shares = importances(trials, goal)
    bars, panels = charts.importance(shares), slices(trials, goal, list(shares))
    if bars is not None:
        return _charts([bars, panels])
    n = len(ranked(trials, goal, FINISHED))
    why = (
        f"Which parameters matter can be said from {MIN_TRIALS_FOR_IMPORTANCE} finished trials on; there are {n}."
        if n < MIN_TRIALS_FOR_IMPORTANCE
        else "No parameter explains a difference between the trials."
    )
    return [Markdown(why), *_charts([panels])]


def _table(trials: Sequence[FrozenTrial], goal: Goal, cost: Goal | None = None) -> list[Any]:
    from metaflow.cards import Markdown, Table

    body = charts.best_table(trials, goal, cost)
    if not body:
        return [Markdown("No trial is complete, so there is none to list.")]
    headers = ["Rank", "Trial", goal.label, *([cost.label] if cost else []), "Time", "Parameters"]
    return [Markdown("## Best trials"), Table(body, headers=headers)]


def _best_params(result: TuningResult | None, goal: Goal) -> list[Any]:
    from metaflow.cards import Markdown, PythonCode

    if result is None:
        return []
    head = f"# trial {result.best.number}: {goal.metric} {result.best.values[0]:.6g}\n"
    params = pformat(dict(result.best.params), sort_dicts=False, width=88)
    return [Markdown("## Best parameters"), PythonCode(code_string=f"{head}params = {params}")]


def _decision(
    decision: PromotionDecision | None, metric: str, model: ModelVersion | None, champion: ModelVersion | None
) -> list[Any]:
    from metaflow.cards import Markdown

    if decision is None:
        return []
    verdict = "Promoted to champion" if decision.promote else "Not promoted"
    names = (
        f"challenger v{model.version}" if model else "challenger",
        f"champion v{champion.version}" if champion else "champion",
    )
    return [
        Markdown(f"## {verdict}\n{_sentence(decision.reason)}"),
        *_charts([system.holdout(decision.figures, metric, names)]),
    ]


def _blend(pick: TrialSummary, budget_ms: float | None) -> list[Any]:
    from metaflow.cards import Markdown, Table

    body = system.blend_table(pick)
    if not body:
        return []
    choice = pick.user_attrs["system"]
    line = f"Preprocessing: {choice['preprocessing']}. Calibration: {choice['calibration']}."
    return [
        Markdown(f"## The system that was picked\nTrial {pick.number}{_why(pick, budget_ms)}. {line}"),
        Table(body, headers=["Member", "Weight", "Parameters from", "Parameters"]),
    ]


def _lineage(branch: Branch | None) -> list[Any]:
    from metaflow.cards import Markdown

    return [Markdown(f"## What it was made of\n```text\n{_outline(branch)}```")] if branch else []


def _outline(branch: Branch) -> str:
    """The tree as the terminal shows it: the card's Markdown has no nested lists, and drops what is escaped."""
    from rich.console import Console

    from shared.registry.tree import drawn

    text = StringIO()
    Console(file=text, width=LETTERS).print(drawn(branch))
    return text.getvalue()


def _why(pick: TrialSummary, budget_ms: float | None) -> str:
    """Why this trial, as `training.pick` has picked it."""
    if budget_ms is None:
        return ""
    if pick.values[1] <= budget_ms:
        return f", the best within {budget_ms:g} ms per row"
    return f", the fastest, since none is within {budget_ms:g} ms per row"


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")
