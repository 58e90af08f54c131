"""The repository as a project of Outerbounds: its deploy script and the flows, against a platform that notes it all."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from shared.config import load_use_case
from shared.events.argo.template import Template, check_events
from shared.events.graph import read_graph
from shared.flow import platform
from shared.settings import settings
from shared.storage.ledger import Ledger
from tests.production.kubernetes_api import KubernetesAPI

ROOT = Path(__file__).parents[2]
EXTENSION = Path(__file__).parent / "outerbounds"  # what the platform's packages add to Metaflow

FLOWS = {"DataPrepFlow", "ClassicalHPOFlow", "DeepHPOFlow", "SystemTuneFlow"}
IMAGE = "registry.example/baked:1"

# The platform's command line: it notes how it was called.
OUTERBOUNDS = """#!{python}
import json, sys
with open({calls!r}, "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1:3] == ["perimeter", "show-current"]:
    print(json.dumps({{"data": {{"current_perimeter": "default"}}}}))
"""


class Platform:
    """The part of the platform's API that holds a project's assets and its spec."""

    def __init__(self, folder: Path) -> None:
        self.assets: dict[str, dict[str, Any]] = {"data": {}, "models": {}}
        self.spec: dict[str, Any] = {}
        self.fails = False
        self.calls_file, self.bakery_file = folder / "calls", folder / "bakery"
        tool = folder / "outerbounds"
        tool.write_text(OUTERBOUNDS.format(python=sys.executable, calls=str(self.calls_file)))
        tool.chmod(0o755)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    @property
    def baked(self) -> list[dict[str, str]]:
        """The packages of each step's image."""
        return [json.loads(line) for line in self.bakery_file.read_text().splitlines()]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.fails:
            return 503, {}
        if method == "PATCH" and (found := re.search(r"/(data|models)/(\w+)$", path)):
            self.assets[found[1]][found[2]] = body
            return 200, {}
        if method == "GET" and (found := re.search(r"/(data|models)$", path)):
            return 200, {"items": [{"asset": {"id": name}} for name in self.assets[found[1]]]}
        if "/flowprojects" in path or "/metadata" in path:
            if method == "GET":
                return (200, self.spec) if self.spec else (404, {})
            self.spec = body
            return 200, {}
        return 404, {}

    def _handler(platform) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = platform.answer(self.command, self.path, json.loads(body or "{}"))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            do_GET = do_POST = do_PUT = do_PATCH = handle_any

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler


@pytest.fixture
def outerbounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform, for the processes that a test starts: they find its packages, its command line and its API."""
    folder = tmp_path / "bin"
    folder.mkdir()
    there = Platform(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXTENSION), str(ROOT)]))
    monkeypatch.setenv("OBP_INTEGRATIONS_URL", f"{there.address}/integrations")
    monkeypatch.setenv("OB_TEST_BAKERY", str(there.bakery_file))
    monkeypatch.setenv("OB_TEST_IMAGE", IMAGE)
    for name in ("GITHUB_ACTIONS", "SYSTEM_COLLECTIONURI", "CIRCLECI", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    yield there
    there.server.shutdown()
    there.server.server_close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the project as a repository of its own, on the branch main."""
    folder = tmp_path / "repository"
    folder.mkdir()
    ours = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in ours.stdout.split():
        if (ROOT / name).exists() and not name.startswith(("tests/", "benchmarks/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def obproject_deploy(repository: Path, *options: str) -> None:
    command = [Path(sys.executable).with_name("obproject-deploy"), *options]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_data_prep(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "flows/data_prep/flow.py", "--no-pylint", *options, "run"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def try_out(repository: Path, title: str) -> None:
    """Give the environment of the branches that aren't main a config of its own."""
    shipped, project = repository / "configs/digits.toml", repository / "obproject.toml"
    (tried := repository / "configs/tried/digits.toml").parent.mkdir()
    tried.write_text(re.sub(r"title = .*", f'title = "{title}"', shipped.read_text(), count=1))
    main, test, rest = project.read_text().partition("[environments.test.flow_configs]")
    project.write_text(main + test + rest.replace("configs/digits.toml", "configs/tried/digits.toml"))


def containers(template: Template) -> list[dict[str, Any]]:
    return [found["container"] for found in template.manifest["spec"]["templates"] if "container" in found]


def deployed_config(template: Template) -> dict[str, Any]:
    """The use case that a deployed flow's tasks read, from its code package."""
    variables = [variable for container in containers(template) for variable in container["env"]]
    (url,) = {variable["value"] for variable in variables if variable["name"] == "METAFLOW_CODE_URL"}
    bucket, _, key = url.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3", endpoint_url=os.environ["METAFLOW_S3_ENDPOINT_URL"])
    with tarfile.open(fileobj=io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read())) as package:
        (config, _) = json.load(package.extractfile(".mf_meta/CONFIG"))["user_configs"]["use_case"]
    return config


@pytest.mark.parametrize(
    ("branch", "app_branch", "flow_branch", "title"),
    [
        ("main", "main", "prod", "Handwritten digits"),
        ("change/threads", "change_threads", "test.change_threads", "Digits, tried out"),
    ],
)
def test_the_project_deploys_with_all_its_flows_apps_data_and_models(
    kubernetes: KubernetesAPI,
    outerbounds: Platform,
    repository: Path,
    branch: str,
    app_branch: str,
    flow_branch: str,
    title: str,
) -> None:
    outerbounds.assets = {"data": {"digits": {}}, "models": {"digits": {}}}  # as the flows have registered them
    try_out(repository, "Digits, tried out")
    subprocess.run(["git", "checkout", "-q", "-B", branch], cwd=repository, check=True)
    obproject_deploy(repository)

    templates = {template.flow: template for template in map(Template, kubernetes.all("workflowtemplates"))}
    assert templates.keys() == FLOWS
    for template in templates.values():
        assert template.scope == ("evertune_digits", flow_branch)
        assert deployed_config(template)["title"] == title
        assert {container["image"] for container in containers(template)} == {IMAGE}
    check_events(read_graph(ROOT), templates)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert all([f"{name}{version}" for name, version in step.items()] == packages for step in outerbounds.baked)

    apps = [call for call in outerbounds.calls if call[:2] == ["app", "deploy"]]
    files = [Path(repository, call[call.index("--config-file") + 1]) for call in apps]
    names = {yaml.safe_load(file.read_text())["name"] for file in files}
    assert names == {"optuna-dashboard", "mlflow-server", "model-server"}
    assert all("--project=evertune_digits" in call and f"--branch={app_branch}" in call for call in apps)
    assert platform.app_branch(flow_branch) == app_branch

    (pushed,) = [json.loads(call[2]) for call in outerbounds.calls if call[:2] == ["flowproject", "set-metadata"]]
    assert (pushed["project"], pushed["branch"]) == ("evertune_digits", app_branch)
    spec = pushed["spec"]
    assert {flow["flow_name"] for flow in spec["workflows"]} == FLOWS
    assert all(flow["markdown_description"] for flow in spec["workflows"])
    assert [asset["id"] for asset in spec["data"]] == [asset["id"] for asset in spec["models"]] == ["digits"]


@pytest.mark.usefixtures("outerbounds")
def test_the_environments_name_a_config_of_the_projects_use_case(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy import deploy_obproject

    monkeypatch.chdir(repository)
    for branch, environment in (("main", "production"), ("change/threads", "test")):
        subprocess.run(["git", "checkout", "-q", "-B", branch], cwd=repository, check=True)
        deploy_obproject.init_project_globals()
        assert deploy_obproject.get_environment_name() == environment
        (config,) = deploy_obproject.get_flow_configs().values()
        assert load_use_case(Path(config).stem).project == deploy_obproject.PROJECT
        for flow in repository.glob("flows/*/flow.py"):
            assert "use_case" in deploy_obproject.get_flow_config_names(str(flow))


def test_on_the_platform_a_flow_finds_its_database_and_registers_what_it_made(
    home: Path, outerbounds: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OB_TEST_DATABASE_URL", os.environ["EVERTUNE_DATABASE_URL"])
    monkeypatch.setenv("OB_TEST_APP", json.dumps(["optuna-dashboard", "evertune_digits", "change"]))
    given = os.environ["EVERTUNE_DATABASE_URL"]
    monkeypatch.delenv("EVERTUNE_DATABASE_URL")
    done = run_data_prep("--branch", "change")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setenv("EVERTUNE_DATABASE_URL", given)
    settings.cache_clear()
    ref = Ledger().newest_dataset("digits")
    assert ref is not None
    asset = outerbounds.assets["data"]["digits"]
    assert (asset["blobs"], asset["annotations"]["fingerprint"]) == ([ref.uri], ref.fingerprint)
    assert asset["entity_ref"]["entity_id"].startswith("DataPrepFlow/")
    assert not (home / "postgres").exists()


@pytest.mark.parametrize(("flow", "app"), [("prod", "main"), ("test.change", "change"), ("user.ann", None), ("", None)])
def test_a_flow_uses_the_database_of_its_branch_and_a_person_none(flow: str, app: str | None) -> None:
    assert platform.app_branch(flow) == app


def test_a_database_that_the_platform_does_not_know_is_told_with_the_remedy(
    home: Path, outerbounds: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home, outerbounds
    monkeypatch.setenv("OB_TEST_APP", json.dumps(["optuna-dashboard", "evertune_digits", "main"]))
    monkeypatch.delenv("EVERTUNE_DATABASE_URL")
    done = run_data_prep("--branch", "change")
    assert done.returncode != 0
    assert "the platform doesn't say where that of evertune_digits, branch change, is" in done.stdout + done.stderr


def test_an_asset_that_cannot_be_registered_costs_no_run(home: Path, outerbounds: Platform) -> None:
    del home
    outerbounds.fails = True
    done = run_data_prep()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "asset not registered" in done.stdout + done.stderr
    assert Ledger().newest_dataset("digits") is not None


PROMOTING = """
from metaflow import step
from obproject import ProjectFlow
from shared.domain import ModelVersion
from shared.flow import platform

class PromotingFlow(ProjectFlow):
    @step
    def start(self):
        champion = ModelVersion(name="digits", version=3, lineage={"run": "SystemTuneFlow/7"})
        platform.register_champion(self, champion)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    PromotingFlow()
"""


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("there", [True, False])
def test_a_champion_is_a_model_asset_that_leads_to_the_registry(
    outerbounds: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if not there:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "obproject.toml").write_text('project = "evertune_digits"\n')
    (tmp_path / "flow.py").write_text(PROMOTING)
    command = [sys.executable, "flow.py", "--no-pylint", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not registered" not in done.stdout + done.stderr
    found = outerbounds.assets["models"].get("digits")
    if there:
        assert found["blobs"] == ["models:/digits/3"]
        assert found["model_asset_kind"] == "mlflow"
        assert found["annotations"] == {"version": "3", "run": "SystemTuneFlow/7"}
    else:
        assert found is None
