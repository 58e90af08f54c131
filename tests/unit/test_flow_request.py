"""The Parameter `request`: what can be asked of one run beside its config."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import UseCase
from shared.errors import FlowError
from shared.flow.request import Request, requested

HASH = f"sha256:{'a' * 64}"
USE_CASE = UseCase.model_validate(
    {
        "name": "toy",
        "title": "Toy",
        "data": {"source": "sklearn:iris", "target": "target"},
        "tuning": {"metric": "accuracy"},
        "classical": {"objective": "x.py", "n_trials": 40},
        "system": {"n_trials": 20},
        "retune": {"warm_trials": 3},
    }
)
asked = st.fixed_dictionaries(
    {},
    optional={
        "n_trials": st.integers(1, 9),
        "workers": st.sampled_from(["auto", 1, 100]),
        "objective": st.just(HASH),
    },
)


@given(tree=st.fixed_dictionaries({}, optional={"classical": asked, "deep": asked}))
def test_a_request_is_the_same_after_its_travels(tree: dict[str, Any]):
    text = Request.of(tree).text()

    assert said(Request.parse(text)) == {variant: what for variant, what in tree.items() if what}
    assert Request.parse(json.dumps(text)) == Request.parse(text), "an event may make it JSON twice"


def said(request: Request) -> dict[str, Any]:
    return {variant: what for variant, what in request.model_dump(exclude_none=True).items() if what}


@pytest.mark.parametrize("nothing", [None, "", " ", "{}", "null", '""', '{"classical": {}}'])
def test_one_that_asks_for_nothing_leaves_the_config_alone(nothing: str | None):
    request = Request.parse(nothing)

    assert request.text() == ""
    assert request.applied(USE_CASE, "classical") == USE_CASE


def test_what_is_asked_takes_the_place_of_what_the_config_says():
    request = Request.of({"classical": {"n_trials": 7, "objective": HASH}, "system": {"workers": 2}})

    seen = request.applied(USE_CASE)

    assert (seen.classical.n_trials, seen.classical.objective, seen.classical.workers) == (7, HASH, "auto")
    assert (seen.system.n_trials, seen.system.workers) == (20, 2)
    assert seen.retune == USE_CASE.retune


def test_a_budget_that_is_asked_of_a_variant_holds_for_a_warm_study_too():
    request = Request.of({"classical": {"n_trials": 7}})

    assert request.applied(USE_CASE, "classical").retune.warm_trials == 7
    assert request.applied(USE_CASE, "deep").retune.warm_trials == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON, such as"),
        ("[1]", "must be"),
        ('{"clasical": {}}', "`clasical` can't be asked of one run; did you mean 'classical'?"),
        ('{"tuning": {"metric": "r2"}}', "it may be: classical, deep, system; the rest is the config's"),
        ('{"classical": {"n_trial": 3}}', "`classical.n_trial` can't be asked of one run; did you mean 'n_trials'?"),
        ('{"classical": {"n_trials": 0}}', "`classical.n_trials` breaks a rule"),
        ('{"classical": {"n_trials": "many"}}', "but it is 'many'"),
        ('{"classical": {"workers": 101}}', "`classical.workers` breaks a rule"),
        ('{"classical": {"objective": "x.py"}}', "`classical.objective` breaks a rule"),
        (f'{{"system": {{"objective": "{HASH}"}}}}', "it may be: n_trials, workers"),
        ('{"classical": {"workers": "' + "ä" * 100_000 + '"}}', "characters)"),
    ],
)
def test_a_wrong_one_is_refused_with_the_rule_the_value_and_the_remedy(text: str, message: str):
    with pytest.raises(FlowError) as refused:
        Request.parse(text)

    assert message in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_variant_that_the_config_leaves_out_cannot_be_asked_for():
    with pytest.raises(FlowError, match=r"configs/toy.toml has no table \[deep\]"):
        Request.of({"deep": {"n_trials": 3}}).applied(USE_CASE)


def test_a_flow_that_nobody_has_triggered_has_its_own_request_alone():
    assert requested(SimpleNamespace(request='{"classical": {"n_trials": 3}}')) == '{"classical": {"n_trials": 3}}'
    assert requested(SimpleNamespace(request="")) == ""


@pytest.mark.parametrize("asked", [{"classical": {"n_trials": 3}}, '{"classical": {"n_trials": 3}}'])
def test_an_event_may_bring_a_request(monkeypatch: pytest.MonkeyPatch, asked: object):
    monkeypatch.setenv("METAFLOW_ARGO_EVENT_PAYLOAD_event_x", json.dumps({"name": "x", "request": asked}))
    monkeypatch.setenv("METAFLOW_ARGO_EVENT_PAYLOAD_event_y", "null")
    assert requested(SimpleNamespace(request="")) == '{"classical": {"n_trials": 3}}'
    assert requested(SimpleNamespace(request='{"classical": {"n_trials": 4}}')) == '{"classical": {"n_trials": 4}}'
