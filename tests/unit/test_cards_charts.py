"""The charts as Vega-Lite specifications: valid ones, with the rows that they should have."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from shared.domain import TrialSummary
from shared.flow.charts import study as charts
from shared.flow.charts import system
from shared.flow.charts.slices import slices
from shared.flow.charts.theme import MAX_POINTS, Spec
from shared.flow.charts.trials import Goal, importances

GOAL = Goal("accuracy")
COST = Goal("latency", "minimize", 1, "ms per row")


def objective(trial: optuna.Trial) -> float:
    """A conditional space; trial 3 fails, every fifth is pruned, trial 0 is terrible."""
    family = trial.suggest_categorical("family", ["linear", "forest"])
    if family == "linear":
        value = 0.9 - abs(math.log10(trial.suggest_float("C", 1e-4, 1e2, log=True))) / 20
    else:
        value = 0.7 + trial.suggest_int("depth", 1, 6) / 50
    if trial.number == 3:
        raise RuntimeError
    for step in range(3):
        trial.report(math.nan if trial.number == 6 and step == 1 else value * (step + 1) / 3, step)
        if trial.number % 5 == 4:
            raise optuna.TrialPruned
    return -1e6 if trial.number == 0 else value


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(objective, n_trials=30, catch=(RuntimeError,))
    return made


def spec(made: Spec | None) -> Spec:
    """The specification, after Altair has validated it."""
    import altair as alt

    assert made is not None
    assert alt.Chart.from_dict(made).to_dict()["datasets"] == made["datasets"]
    return made


def test_history_has_every_ended_trial_with_its_state(study: optuna.Study) -> None:
    rows = spec(charts.history(study.trials, GOAL))["datasets"]["trials"]
    assert [row["trial"] for row in rows] == list(range(30))
    assert {rows[3]["state"], rows[4]["state"], rows[5]["state"]} == {"failed", "pruned", "complete"}
    assert rows[3]["value"] is None


def test_history_draws_the_terrible_trial_pale_at_the_edge_with_its_true_value(study: optuna.Study) -> None:
    drawn = spec(charts.history(study.trials, GOAL))
    first = drawn["datasets"]["trials"][0]
    assert first["beyond"]
    assert first["value"] == -1e6
    assert first["shown"] > 0
    assert "far worse" in drawn["title"]["subtitle"][0]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_best_so_far_only_improves_and_ends_at_the_best_value(study: optuna.Study, direction: Any) -> None:
    goal = Goal("value", direction)
    steps = spec(charts.history(study.trials, goal))["datasets"]["best_so_far"]
    losses = [goal.loss(step["value"]) for step in steps]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == min(goal.loss(t.value) for t in study.trials if t.state == TrialState.COMPLETE)
    assert steps[-1]["trial"] == 29


def test_the_legend_has_the_states_that_are_there() -> None:
    trials = [create_trial(state=TrialState.COMPLETE, value=0.5)]
    layers = spec(charts.history(trials, GOAL))["layer"]
    assert [layer["encoding"]["color"]["scale"]["domain"] for layer in layers if "color" in layer["encoding"]] == [
        ["complete"]
    ]


def test_a_study_without_a_complete_trial_still_has_a_history(study: optuna.Study) -> None:
    lost = [t for t in study.trials if t.state != TrialState.COMPLETE]
    drawn = spec(charts.history(lost, GOAL))
    assert drawn["datasets"]["best_so_far"] == []
    assert "No trial is complete" in drawn["title"]["subtitle"][0]


def test_nothing_is_drawn_of_no_trials() -> None:
    assert charts.history([], GOAL) is None
    assert charts.curves([], GOAL) is None
    assert charts.durations([]) is None
    assert slices([], GOAL) is None
    assert system.pareto([], GOAL, COST) is None
    assert charts.importance({}) is None


def test_slices_have_a_panel_per_parameter_logarithmic_where_the_search_was(study: optuna.Study) -> None:
    drawn = spec(slices(study.trials, GOAL, ["C"]))
    panels = {panel["title"]["text"].split(" ")[0]: panel for panel in drawn["concat"]}
    assert set(panels) == {"C", "family", "depth"}
    assert panels["C"]["encoding"]["x"]["scale"]["type"] == "log"
    assert panels["C"]["encoding"]["x"]["scale"]["domain"] == [1e-4, 1e2]
    assert panels["depth"]["encoding"]["x"]["axis"]["values"] == [1, 2, 3, 4, 5, 6]
    assert '["linear", "forest"]' in panels["family"]["encoding"]["x"]["axis"]["labelExpr"]
    assert drawn["concat"][0] == panels["C"]


def test_a_conditional_parameter_is_drawn_for_the_trials_that_have_it(study: optuna.Study) -> None:
    drawn = spec(slices(study.trials, GOAL, ["family", "C", "depth"]))
    rows = drawn["datasets"]["trials"]
    linear = [row for row in rows if "p1" in row]
    assert 0 < len(linear) < len(rows)
    assert all(-0.5 < row["p0"] < 0.5 for row in linear)
    assert all("p2" not in row for row in linear)
    assert drawn["concat"][1]["title"]["text"] == f"C (of {len(linear)} trials)"


def test_exactly_the_best_trial_is_ringed_in_slices(study: optuna.Study) -> None:
    rows = spec(slices(study.trials, GOAL))["datasets"]["trials"]
    assert [row["trial"] for row in rows if row["ring"]] == [study.best_trial.number]


def test_curves_leave_out_what_is_not_finite_and_draw_the_best_trial_last(study: optuna.Study) -> None:
    rows = spec(charts.curves(study.trials, GOAL, "Epoch"))["datasets"]["curves"]
    assert [row["step"] for row in rows if row["trial"] == 6] == [0, 2]
    assert all(math.isfinite(row["value"]) for row in rows)
    assert {row["trial"] for row in rows if row["kind"] == "best trial"} == {study.best_trial.number}
    assert rows[-1]["trial"] == study.best_trial.number


def test_trials_that_reported_once_have_no_curves() -> None:
    assert charts.curves([create_trial(state=TrialState.COMPLETE, value=1, intermediate_values={0: 1.0})], GOAL) is None


def test_times_are_in_seconds_and_logarithmic_where_they_differ_much(study: optuna.Study) -> None:
    drawn = spec(charts.durations(study.trials))
    assert len(drawn["datasets"]["trials"]) == 30
    assert all(row["seconds"] > 0 for row in drawn["datasets"]["trials"])


def test_the_importance_chart_has_a_bar_per_parameter_that_matters(study: optuna.Study) -> None:
    drawn = spec(charts.importance(importances(study.trials, GOAL) | {"nothing": 0.0}))
    assert drawn["title"]["text"] == "What matters most: family"
    assert "nothing" not in {row["parameter"] for row in drawn["datasets"]["parameters"]}


def test_the_best_table_is_ranked_and_lists_parameters(study: optuna.Study) -> None:
    rows = charts.best_table(study.trials, GOAL, limit=3)
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][1] == str(study.best_trial.number)
    assert "family=linear" in rows[0][-1]


def test_thousands_of_trials_are_thinned_out() -> None:
    trials = [
        create_trial(
            state=TrialState.COMPLETE, value=i / 3000, params={"x": i / 3000}, intermediate_values={0: 0.0, 1: 1.0},
            distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
        )
        for i in range(3000)
    ]  # fmt: skip
    for number, trial in enumerate(trials):
        trial.number = number
    made = [charts.history(trials, GOAL), charts.curves(trials, GOAL), slices(trials, GOAL), charts.durations(trials)]
    assert all(chart and all(len(rows) <= MAX_POINTS for rows in chart["datasets"].values()) for chart in made)


def systems() -> list[optuna.trial.FrozenTrial]:
    values = [(0.90, 5.0), (0.80, 2.0), (0.95, 30.0), (0.85, 6.0)]
    trials = [create_trial(state=TrialState.COMPLETE, values=v) for v in values]
    for number, trial in enumerate(trials):
        trial.number = number
    return [*trials, create_trial(state=TrialState.FAIL)]


def test_the_front_is_that_of_the_trials_within_the_budget() -> None:
    drawn = spec(system.pareto(systems(), GOAL, COST, budget=20.0, pick=0))
    kinds = {row["trial"]: row["kind"] for row in drawn["datasets"]["trials"]}
    assert kinds == {0: system.FRONT, 1: system.FRONT, 2: system.OVER, 3: system.BEHIND}
    assert [row["trial"] for row in drawn["datasets"]["front"]] == [1, 0]
    assert [row["trial"] for row in drawn["datasets"]["pick"]] == [0]
    assert drawn["title"]["subtitle"] == ["1 of 4 trials are over the budget of 20 ms per row."]


def test_where_none_keeps_the_budget_the_front_is_that_of_all() -> None:
    drawn = spec(system.pareto(systems(), GOAL, COST, budget=1.0))
    assert [row["trial"] for row in drawn["datasets"]["front"]] == [1, 0, 2]
    assert drawn["datasets"]["pick"] == []


def test_a_budget_far_beyond_every_trial_is_said_and_not_drawn() -> None:
    drawn = spec(system.pareto(systems(), GOAL, COST, budget=1000.0))
    assert not any(layer["mark"]["type"] == "rule" for layer in drawn["layer"])
    assert drawn["title"]["subtitle"] == ["All 4 trials keep the budget of 1000 ms per row."]


@pytest.mark.parametrize(
    ("challenger", "champion", "title"),
    [(0.95, 0.93, "better by 0.02"), (0.91, 0.93, "worse by 0.02"), (0.93, 0.93, "as good as the champion")],
)
def test_the_holdout_chart_says_who_is_better(challenger: float, champion: float, title: str) -> None:
    drawn = spec(system.holdout({"challenger": challenger, "champion": champion}, "accuracy"))
    assert drawn["title"]["text"].endswith(title)


def test_the_holdout_chart_says_how_sure_the_gain_is() -> None:
    tested = {"gain_low": -0.01, "gain_high": 0.05, "p": 0.034, "level": 0.025, "turn": 1.0}
    drawn = spec(system.holdout({"challenger": 0.95, "champion": 0.93, **tested}, "accuracy"))
    assert "between -0.01 and 0.05 in 95 % of draws" in str(drawn["title"]["subtitle"])
    assert "p = 0.034, where gate 1 on this holdout asks for 0.025 at most" in str(drawn["title"]["subtitle"])


def test_without_a_champion_there_is_nothing_to_compare() -> None:
    assert system.holdout({"challenger": 0.9}, "accuracy") is None


def test_the_blend_is_read_from_what_a_system_trial_keeps() -> None:
    from shared.training.space import ATTRIBUTE, MemberChoice, SystemChoice

    members = {
        "classical": MemberChoice(weight=0.75, origin="best", params={"C": 3.14159265}),
        "deep": MemberChoice(weight=0.25, origin="around", params={"width": 64}),
    }
    choice = SystemChoice(members=members, preprocessing="none", calibration="none")
    pick = TrialSummary(number=1, values=(0.9, 2.0), params={}, user_attrs={ATTRIBUTE: choice.model_dump(mode="json")})
    assert system.blend_table(pick) == [
        ["classical", "75%", "upstream best", "C=3.142"],
        ["deep", "25%", "searched around the upstream best", "width=64"],
    ]
