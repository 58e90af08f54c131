"""The whole chain as Argo runs it: from new data to the promoted champion, and again at night."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.config import load_use_case
from shared.registry import client
from shared.registry.lineage import git_commit
from shared.storage.ledger import Ledger
from tests import fork_server
from tests.flows.conftest import ROOT, execute
from tests.production.argo_events import Event, argument
from tests.production.argo_placeholders import NotMetaflow, dependencies, holds, substitute
from tests.production.local_argo import ArgoRun, LocalArgo
from tests.production.metadata_service import MetadataService

pytestmark = pytest.mark.usefixtures("forked")
FLOWS = ("DataPrepFlow", "ClassicalHPOFlow", "DeepHPOFlow", "SystemTuneFlow")


def small(name: str, folder: Path) -> Path:
    """A shipped config with budgets for a test, and two workers where it leaves their number open."""
    shipped = (ROOT / f"configs/{name}.toml").read_text()
    for old, new in {
        r"n_trials = \d+": "n_trials = 2",
        r"# rows = \d+": "rows = 300",
        r'"auto" +# the c': "2 # c",
        r"latency_budget_ms = \S+": "latency_budget_ms = 1000",  # the machine may be busy
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


def promoted(argo: LocalArgo, name: str, folder: Path) -> dict[str, ArgoRun]:
    """Deploy a use case and publish `new_data`; the runs that lead to its first champion, by their flows."""
    config = small(name, folder)
    use_case = load_use_case(config)
    evertune("deploy", "--use-case", str(config), "--production")

    publish(f"mfns.{use_case.project}.prod.new_data")
    runs = {run.flow: run for run in argo.wait()}

    assert runs.keys() == {*FLOWS}
    states = {entry.variant: entry.state for entry in Ledger().entries(name)}
    assert states == dict.fromkeys([*use_case.members, "system"], "done")
    champion = client.champion(name)
    assert champion is not None
    assert champion.version == 1
    assert champion.lineage["run"] == f"SystemTuneFlow/{runs['SystemTuneFlow'].run_id}"
    assert champion.lineage["git_commit"].removesuffix("-dirty") == git_commit().removesuffix("-dirty")
    assert client.load_version(champion)
    return runs


def test_new_data_becomes_a_champion_and_at_night_there_is_nothing_to_do(argo: LocalArgo, tmp_path: Path):
    by_day = promoted(argo, "digits", tmp_path)
    _both_variants_have_met_with_nothing_but_the_code_package(by_day)
    champion, studies = client.champion("digits"), outcomes("digits")

    argo.fire_cron(by_day["DataPrepFlow"].template)
    by_night = {run.flow: run for run in argo.wait()}

    assert by_night.keys() == {*FLOWS}
    for flow in FLOWS[1:]:
        assert "nothing changed: digits/" in by_night[flow].log
    assert outcomes("digits") == studies
    assert client.champion("digits") == champion


def _both_variants_have_met_with_nothing_but_the_code_package(runs: Mapping[str, ArgoRun]) -> None:
    assert [pod.step for pod in runs["ClassicalHPOFlow"].pods].count("tune") == 2
    for pod in (pod for run in runs.values() for pod in run.pods):
        assert pod.imported == {pod.folder / "home/metaflow/.mf_code/shared/__init__.py"}
    task = f"Run('ClassicalHPOFlow/{runs['ClassicalHPOFlow'].run_id}')['start'].task"
    (classical,) = [entry for entry in Ledger().entries("digits") if entry.variant == "classical"]
    assert by_client(f"{task}['plan'].data.spec.name") == classical.study


def outcomes(use_case: str) -> dict[str, Mapping[str, object]]:
    return {entry.study: entry.outcome for entry in Ledger().entries(use_case)}


@pytest.mark.parametrize(
    ("arguments", "printed", "status"),
    [
        ("-c 'import sys; print(sys.argv)' a", "['-c', 'a']\n", 0),
        ("-c 'print(input())'", "hello\n", 0),
        ("-c 'import os; os.write(7, b\"x\")' 7>&1", "x", 0),
        ("-m this | head -1", "The Zen of Python, by Tim Peters\n", 0),
        ("-c 'raise SystemExit(3)'", "", 3),
        ("-c '1 / 0'", "", 1),
        ("-c 'import os; os.kill(os.getpid(), 9)'", "", 128 + signal.SIGKILL),
        ("-c 'import os; os.killpg(0, 9)'; echo unreachable", "", -signal.SIGKILL),
        ("-I -c 'print(1)'", "1\n", 0),
    ],
)
def test_a_pods_python_is_one(argo: LocalArgo, tmp_path: Path, arguments: str, printed: str, status: int):
    ran = python(argo.node.programs, tmp_path, arguments)
    assert (ran.stdout, ran.returncode) == (printed, status), ran.stderr


def python(programs: Path, root: Path, arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"python {arguments}"], input="hello\n", text=True, capture_output=True, process_group=0,
        cwd=root, env={"PATH": f"{programs}:/usr/bin:/bin"}, check=False,
    )  # fmt: skip


def test_pods_draw_random_numbers_of_their_own(argo: LocalArgo, tmp_path: Path):
    draw = "-c 'import numpy, random; print(numpy.random.random(), random.random())'"
    drawn = [number for _ in range(2) for number in python(argo.node.programs, tmp_path, draw).stdout.split()]
    assert len({*drawn}) == 4


def test_a_pods_python_ends_when_what_it_is_forked_from_is_gone(tmp_path: Path):
    with fork_server.serving(tmp_path) as programs:
        pass
    assert python(programs, tmp_path, "-c 'print(1)'").returncode == 1


def test_a_fork_and_what_it_has_started_end_with_its_client_in_another_session_too(forks: Path):
    wait = "import signal; signal.pause()"
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {wait!r}])"
    code = f"{start}; print('begun', flush=True); {wait}"
    client = subprocess.Popen([forks / "python", "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert client.stdout.readline() == "begun\n"
    client.kill()
    assert client.communicate()[0] == "", "its output ends, when nobody is left who has it open"


def test_a_tasks_artifacts_are_not_those_of_one_whose_id_begins_alike():
    service, step = MetadataService(), "/flows/F/runs/1/steps/start"
    for task in ("4", "41"):
        service.ask("POST", f"{step}/tasks/{task}/artifact", [{"name": "x", "attempt_id": 0, "sha": task}])
    found = [service.ask("GET", f"{path}/artifacts", None)[1] for path in (f"{step}/tasks/4", step)]
    assert [[artifact["sha"] for artifact in artifacts] for artifacts in found] == [["4"], ["4", "41"]]


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
