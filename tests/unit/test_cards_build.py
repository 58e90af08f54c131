"""Cards build, and render as Metaflow renders them, in every situation that a flow can be in."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest

from shared.domain import ModelVersion, PromotionDecision, StudySpec, Transfer, TrialSummary, TuningResult
from shared.flow.cards import study_card, system_card
from shared.flow.idle import idle_card


def a_spec(n_trials: int = 12, **changes: Any) -> StudySpec:
    defaults: dict[str, Any] = {
        "name": "digits/classical/3f9a1c0d22be/77aa01fe", "use_case": "digits", "variant": "classical",
        "fingerprint": "3f9a1c0d22be7788", "objective_hash": "77aa01fe", "directions": ("maximize",),
        "n_trials": n_trials,
    }  # fmt: skip
    return StudySpec(**{**defaults, **changes})


def a_study(n_trials: int, directions: tuple[str, ...] = ("maximize",)) -> optuna.Study:
    study = optuna.create_study(directions=list(directions), sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> Any:
        x = trial.suggest_float("x", 0, 1)
        if trial.number == 2:
            raise RuntimeError
        return x if len(directions) == 1 else [x, *(1 - x * i for i in range(1, len(directions)))]

    study.optimize(objective, n_trials=n_trials, catch=(RuntimeError,))
    return study


def a_result(study: optuna.Study, spec: StudySpec, note: str = "", **attrs: Any) -> TuningResult:
    trial = study.best_trials[0]
    best = TrialSummary(number=trial.number, values=tuple(trial.values), params=trial.params, user_attrs=attrs)
    return TuningResult(
        study=spec.name, best=best, counts={"COMPLETE": 11, "FAIL": 1}, wall_s=48.3, cpu_s=92.0, note=note
    )


def rendered(card: list[Any]) -> tuple[str, list[dict[str, Any]]]:
    """All of the card as JSON, and its charts. A component that can't be rendered is an error component."""
    parts = [component.render() for component in card]
    text = json.dumps(parts, allow_nan=False)
    assert "Render failed" not in text
    return text, [part["spec"] for part in parts if part["type"] == "vegaChart"]


def test_a_study_card_has_the_facts_first_then_the_charts_then_the_table() -> None:
    study, spec = a_study(12), a_spec()
    model = ModelVersion(name="digits-classical", version=3, aliases=("challenger",))
    result = a_result(study, spec, note="stopped early")
    text, charts = rendered(study_card(study.trials, spec, result, model, metrics=["accuracy"]))
    facts = [f"accuracy {study.best_value:.4g}", "11 of 12", "48.3 s", "v3", "digits-classical, challenger", spec.name]
    facts += ["3f9a1c0d22be", "11 complete, 1 failed", "Stopped early.", f"trial {study.best_trial.number}"]
    assert [fact for fact in facts if fact not in text] == []
    titles = [chart["title"]["text"] for chart in charts]
    assert titles[0] == "accuracy by trial"
    assert "What matters most: x" in titles
    assert text.index("Best trials") > text.index("accuracy by trial") > text.index("11 of 12")


def test_a_study_card_of_one_trial_says_that_importance_needs_more() -> None:
    study, spec = a_study(1), a_spec(1)
    text, charts = rendered(study_card(study.trials, spec, a_result(study, spec)))
    assert "from 10 finished trials on; there are 1." in text
    assert charts[0]["title"]["text"] == "value by trial"
    assert "not registered" in text


def test_a_study_card_without_a_complete_trial_says_so() -> None:
    study = optuna.create_study(direction="maximize")
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    text, charts = rendered(study_card(study.trials, a_spec(), None))
    assert "no trial is complete" in text
    assert "0 of 12" in text
    assert len(charts) == 2


def test_a_study_card_of_no_trial_has_no_empty_chart() -> None:
    _, charts = rendered(study_card([], a_spec(), None))
    assert charts == []


@pytest.mark.parametrize("directions", [("maximize", "minimize"), ("minimize", "minimize", "maximize")])
def test_a_study_of_several_objectives_has_a_history_of_each_and_a_front(directions: tuple[str, ...]) -> None:
    study, spec = a_study(12, directions), a_spec(directions=directions)
    _, charts = rendered(study_card(study.trials, spec, a_result(study, spec)))
    titles = [chart["title"]["text"] for chart in charts]
    assert titles[: len(directions)] == [f"value {i} by trial" for i in range(len(directions))]
    assert "value 0 against value 1: the front, and the pick" in titles


def a_warm_study(best: float) -> optuna.Study:
    """A warm start with 0.5, three trials of its own with up to `best`, and a warm start that had to be mapped."""
    study = optuna.create_study(direction="maximize")
    start = {"study": "digits/classical/old/1", "trial": 7, "params": {"x": 0.5}}
    moved = start | {"trial": 8, "params": {"x": 2.0, "kernel": "rbf"}}
    for x, attrs in [(0.5, start), (0.1, None), (best, None), (0.2, None), (0.3, moved)]:
        study.enqueue_trial({"x": x}, user_attrs={"warm_start": attrs} if attrs else None)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    return study


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (0.4, "The best warm start is trial 0, with 0.5, and it is the best of all. The best of the others is trial 2"),
        (0.6, "The best of the others is trial 2, with 0.6; to be as good as the warm start took 2 of them."),
    ],
)
def test_a_study_card_says_what_came_from_earlier_studies_and_what_that_brought(best: float, words: str) -> None:
    study, spec = a_warm_study(best), a_spec(5)
    sources = (
        Transfer(study="digits/classical/old/1", fingerprint="0ld9a1c0d22be77", trials=24, weight=0.43),
        Transfer(study="digits/classical/older/1", fingerprint="01d", trials=0, weight=0.0),
    )
    result = a_result(study, spec).model_copy(update={"transfers": sources})
    text, charts = rendered(study_card(study.trials, spec, result))
    assert words in text
    assert "0.3, kernel is gone." in text
    assert all(fact in text for fact in ["What came from earlier studies", "0ld9a1c0d22b", "43%", "deleted"])
    states = {row["state"] for row in charts[0]["datasets"]["trials"]}
    assert states == {"warm start", "complete"}


def test_a_study_card_without_earlier_studies_doesnt_speak_of_them() -> None:
    study, spec = a_study(12), a_spec()
    text, _ = rendered(study_card(study.trials, spec, a_result(study, spec)))
    assert "earlier" not in text


def a_system_card(
    decision: PromotionDecision | None, champion: ModelVersion | None, budget_ms: float = 0.5
) -> tuple[str, list[dict[str, Any]]]:
    directions = ("maximize", "minimize")
    study, spec = a_study(12, directions), a_spec(variant="system", directions=directions)
    members = {"classical": {"weight": 1.0, "origin": "best", "params": {"C": 1.0}}}
    choice = {"members": members, "preprocessing": "standard", "calibration": "isotonic"}
    result, model = a_result(study, spec, system=choice), ModelVersion(name="digits", version=4)
    card = system_card(
        study.trials, spec, result, model, decision, metric="accuracy", latency_budget_ms=budget_ms, champion=champion
    )
    return rendered(card)


def test_a_system_card_shows_decision_holdout_front_and_blend() -> None:
    decision = PromotionDecision(
        promote=True, reason="the challenger is better by 0.02", figures={"challenger": 0.95, "champion": 0.93}
    )
    text, charts = a_system_card(decision, ModelVersion(name="digits", version=3))
    assert "Promoted to champion" in text
    assert "The challenger is better by 0.02." in text
    assert "champion v3" in text
    assert "Preprocessing: standard. Calibration: isotonic." in text
    titles = [chart["title"]["text"] for chart in charts]
    assert titles[:2] == [
        "On the holdout the challenger is better by 0.02",
        "accuracy against latency: the front, and the pick",
    ]


def test_a_first_champion_is_not_compared_with_anything() -> None:
    decision = PromotionDecision(promote=True, reason="there is no champion yet", figures={"challenger": 0.95})
    text, charts = a_system_card(decision, None)
    assert "There is no champion yet." in text
    assert not any("holdout" in chart["title"]["text"] for chart in charts)


def test_a_system_that_was_not_promoted_says_why() -> None:
    decision = PromotionDecision(promote=False, reason="the challenger is not better", figures={})
    assert "## Not promoted" in a_system_card(decision, None)[0]


@pytest.mark.parametrize(
    ("budget_ms", "why"),
    [
        (1.0, ", the best within 1 ms per row. Pre"),
        (0.001, ", the fastest, since none is within 0.001 ms per row. Pre"),
    ],
)
def test_a_system_card_says_why_the_trial_was_picked(budget_ms: float, why: str) -> None:
    assert why in a_system_card(None, None, budget_ms)[0]


def test_an_idle_card_says_why() -> None:
    text, charts = rendered(idle_card("unchanged: study digits/deep is done"))
    assert "Unchanged: study digits/deep is done." in text
    assert charts == []
