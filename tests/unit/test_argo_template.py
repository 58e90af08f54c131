"""What a WorkflowTemplate says, and what deploying another one would change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.errors import FlowError
from shared.events.argo.template import Deployed, Template, change, check_events, cron_line, sensor_events
from shared.events.graph import Flow, Graph

END = "metaflow.evertune_digits.prod.{}.end"


def template(
    flow: str = "Prep", *, awaits: tuple[str, ...] = (), cron: str = "", code: str = "ab12" * 10, **more: Any
) -> Template:
    """A template as it is compiled; `more`: the token, the time, the image and what else differs."""
    annotations = {
        "flow_name": flow,
        "project_name": "evertune_digits",
        "branch_name": "prod",
        "project_flow_name": f"evertune_digits.prod.{flow}",
        "production_token": more.get("token", "placeholder"),
        "deployment_timestamp": more.get("at", "2026-11-24T02:00:00"),
        "triggers": json.dumps([{"name": name, "type": "run"} for name in awaits]),
    } | ({"cron": json.dumps({"schedule": cron, "tz": "UTC"})} if cron else {})
    container = {
        "name": "tune",
        "image": more.get("image", "evertune:1"),
        "command": ["bash", f"python -m metaflow.plugins.argo.set_parameters {more.get('file', 'abcdefghij')} x,f,1 && "
                    f". `pwd`/{more.get('file', 'abcdefghij')} && get data/{code[:2]}/{code}"],
        "env": [
            {"name": "METAFLOW_CODE_SHA", "value": code},
            {"name": "METAFLOW_CODE_URL", "value": f"s3://bucket/data/{code[:2]}/{code}"},
            {"name": "METAFLOW_PRODUCTION_TOKEN", "value": more.get("token", "placeholder")},
            {"name": "METAFLOW_VERSION", "value": more.get("commit", "1234567")},
        ],
    }  # fmt: skip
    return Template(
        {
            "metadata": {
                "name": flow.lower(),
                "annotations": {f"metaflow/{name}": value for name, value in annotations.items()},
                **more.get("metadata", {}),
            },
            "spec": {"templates": [{"name": "tune", "container": container, "timeout": None}]},
        }
    )


def deployed(template: Template, **more: Any) -> Deployed:
    return Deployed(template, **({"events": template.events, "cron": template.cron} | more))


def test_what_each_compilation_and_the_cluster_add_is_no_change():
    there = template(
        token="mfprj-1",
        at="2026-11-23T02:00:00",
        file="zyxwvutsrq",
        commit="7654321",
        metadata={"resourceVersion": "7", "uid": "1-2-3"},
    )

    assert change(template(), deployed(there)).kind == "unchanged"


@pytest.mark.parametrize(
    ("new", "fields"),
    [
        ({"image": "evertune:2"}, {"spec.templates.tune.container.image": ("evertune:1", "evertune:2")}),
        ({"code": "cd34" * 10}, {"code and config": ("ab12ab12ab12", "cd34cd34cd34")}),  # once, not in every command
        ({"cron": "0 3 * * *"}, {"schedule": ("none", "0 3 * * * UTC")}),
        ({"awaits": ("a", "b")}, {"starts on": ("nothing", "a, b")}),
    ],
)
def test_a_change_names_the_fields_that_differ(new: Mapping[str, Any], fields):
    found = change(template(**new), deployed(template()))

    assert (found.kind, found.fields) == ("changed", fields)


def test_a_sensor_or_a_schedule_that_got_lost_is_a_change():
    wanted = template(awaits=("a",), cron="0 2 * * *")

    found = change(wanted, deployed(wanted, events=frozenset(), cron=""))

    assert found.fields == {"schedule": ("none", "0 2 * * * UTC"), "starts on": ("nothing", "a")}


def test_a_flow_that_is_not_deployed_is_created():
    assert change(template(), None).kind == "created"


GRAPH = Graph.of(Flow("Prep", Path("a")), Flow("HPO", Path("b"), frozenset({"Prep"})))


def test_a_flow_that_listens_for_what_its_upstream_emits_is_accepted():
    check_events(GRAPH, {"Prep": template(awaits=("new_data",)), "HPO": template("HPO", awaits=(END.format("Prep"),))})


@pytest.mark.parametrize("awaits", [(), ("metaflow.other.prod.Prep.end",), (END.format("Prep"), END.format("Other"))])
def test_a_flow_that_would_wait_for_ever_is_refused(awaits):
    with pytest.raises(FlowError, match=r"HPO must be started by what Prep emit .*, but listens for .*; name"):
        check_events(GRAPH, {"Prep": template(), "HPO": template("HPO", awaits=awaits)})


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"suspend": False, "schedules": ["0 2 * * *"], "timezone": "UTC"}, "0 2 * * * UTC"),
        ({"suspend": False, "schedule": "0 2 * * *", "timezone": None}, "0 2 * * *"),
        ({"suspend": True, "schedules": []}, ""),
    ],
)
def test_a_cron_workflow_is_read_as_a_line(spec, line):
    assert cron_line({"spec": spec}) == line


def test_what_is_not_there_says_nothing():
    assert (cron_line(None), sensor_events(None)) == ("", frozenset())
