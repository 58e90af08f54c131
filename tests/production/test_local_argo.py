"""The whole chain as Argo runs it: from new data to the promoted champion, and again at night."""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from shared.config import load_use_case
from shared.registry import client
from shared.storage.ledger import Ledger
from tests.flows.conftest import ROOT, execute
from tests.production.argo_events import Event, argument
from tests.production.argo_placeholders import NotMetaflow, dependencies, holds, substitute
from tests.production.local_argo import LocalArgo

FLOWS = ("DataPrepFlow", "ClassicalHPOFlow", "DeepHPOFlow", "SystemTuneFlow")
SMALL = {r"n_trials = \d+": "n_trials = 2", r"# rows = \d+": "rows = 300", r'workers = "auto"': "workers = 2"}


def small(name: str, folder: Path) -> Path:
    """A shipped config with budgets for a test, and two workers where it leaves their number open."""
    shipped = (ROOT / f"configs/{name}.toml").read_text()
    for old, new in {
        r"n_trials = \d+": "n_trials = 2",
        r"# rows = \d+": "rows = 300",
        r'"auto" +# the c': "2 # c",
    }.items():
        shipped = re.sub(old, new, shipped)
    config = folder / f"{name}.toml"
    config.write_text(shipped)
    return config


def evertune(*arguments: str) -> str:
    return execute(sys.executable, "-m", "shared.cli", *arguments, ok=True).stdout


def publish(name: str, **payload: object) -> None:
    """As another system does, by plain HTTP."""
    body = json.dumps({"name": name, "payload": {"name": name, **payload}}).encode()
    urllib.request.urlopen(urllib.request.Request(os.environ["METAFLOW_ARGO_EVENTS_WEBHOOK_URL"], body))


def by_client(expression: str) -> str:
    """What an expression of Metaflow's client is, asked from outside of the cluster."""
    code = f"from metaflow import Run, namespace; namespace(None); print({expression})"
    return execute(sys.executable, "-c", code, ok=True).stdout.strip()


@pytest.mark.parametrize(("name", "n_tuners"), [("breast_cancer", 1), ("digits", 2)])
def test_new_data_becomes_a_champion_and_at_night_nothing_is_left_to_do(
    argo: LocalArgo, tmp_path: Path, name: str, n_tuners: int
):
    config = small(name, tmp_path)
    use_case = load_use_case(config)
    evertune("deploy", "--use-case", str(config), "--production")

    publish(f"mfns.{use_case.project}.prod.new_data")
    first = {run.flow: run for run in argo.wait()}

    assert first.keys() == {*FLOWS}
    studies = {entry.variant: entry for entry in Ledger().entries(name)}
    assert {variant: entry.state for variant, entry in studies.items()} == dict.fromkeys(
        [*use_case.members, "system"], "done"
    )
    champion = client.champion(name)
    assert champion is not None
    assert champion.version == studies["system"].outcome["version"] == 1
    assert client.load_version(champion)
    assert studies["system"].run == f"SystemTuneFlow/{first['SystemTuneFlow'].run_id}"
    assert Counter(pod.step for pod in first["ClassicalHPOFlow"].pods)["tune"] == n_tuners
    for pod in argo.node.pods:
        assert pod.imported == {pod.folder / "home/metaflow/.mf_code/shared/__init__.py"}
    told = by_client(f"Run('{studies['classical'].run}')['start'].task['plan'].data.spec.name")
    assert told == studies["classical"].study

    argo.fire_cron(first["DataPrepFlow"].template)
    night = {run.flow: run for run in argo.wait()}

    assert night.keys() == {*FLOWS}
    for flow in ("ClassicalHPOFlow", "SystemTuneFlow"):
        assert f"nothing changed: {name}/" in night[flow].log
    assert {entry.variant: entry.outcome for entry in Ledger().entries(name)} == {
        variant: entry.outcome for variant, entry in studies.items()
    }
    assert client.champion(name) == champion


def test_what_argo_would_not_know_is_an_error():
    known = {"workflow.parameters.a": "x", "retries": "1"}
    assert substitute("{{retries}} {{=toBase64(workflow.parameters['a'])}}", known) == "1 eA=="
    for unknown in ("{{inputs.parameters.a}}", "{{=toBase64(workflow.parameters['b'])}}", "{{=sprig.int(retries)}}"):
        with pytest.raises(NotMetaflow):
            substitute(unknown, known)
    assert dependencies("a.Succeeded && b-c.Succeeded") == ["a", "b-c"]
    with pytest.raises(NotMetaflow):
        dependencies("a.Succeeded || b.Failed")
    assert holds("Failed != Succeeded", {})
    assert not holds("field == 'True'", {"field": True})
    with pytest.raises(NotMetaflow):
        holds("field =~ 'a'", {"field": "a"})


# Metaflow's Go templates of a Parameter, and of one of JSONType.
PLAIN = '{{- (get $.Input.body.payload "a-b" | toRawJson) -}}'
JSON = (
    '{{- $pv:=(get $.Input.body.payload "a-b") -}}{{ if kindIs "string" $pv }}{{- $pv | toRawJson -}}'
    "{{- else -}}{{ $pv | toRawJson | toRawJson }}{{- end -}}"
)


@pytest.mark.parametrize(
    ("template", "payload", "value"),
    [
        (PLAIN, {"a-b": 'say "é"'}, '"say \\"é\\""'),
        (PLAIN, {"a-b": {"n": 1}}, '{"n":1}'),
        (JSON, {"a-b": {"n": 1}}, '"{\\"n\\":1}"'),
        (JSON, {"a-b": '{"n":1}'}, '"{\\"n\\":1}"'),
        (JSON, {}, "the default"),
    ],
)
def test_a_field_of_a_payload_becomes_a_parameter(template: str, payload: dict[str, object], value: str):
    whole = '{{ if (hasKey $.Input.body.payload "a-b") }}%s{{- else -}}{{ (fail "use-default-instead") }}{{- end -}}'
    source = {"dependencyName": "new_data", "dataTemplate": whole % template, "value": "the default"}

    assert argument(source, {"new_data": Event({"payload": payload})}) == value
