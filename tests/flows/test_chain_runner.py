"""The local event runner, with real flows of a small project and real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from shared.cli.app import app
from shared.config import load_use_case
from shared.events.chain import Chain, newest_chain
from shared.events.graph import read_graph
from shared.events.runner import ChainRunner

pytestmark = pytest.mark.usefixtures("home")

CONFIG = """
name = "tiny"
title = "Größe 😀"
[data]
source = "sklearn:wine"
target = "target"
[tuning]
metric = "neg_log_loss"
[classical]
objective = "objectives/tiny.py"
[deep]
objective = "objectives/tiny.py"
"""

FLOW = """
import os, subprocess, sys, time
from pathlib import Path
from metaflow import Config, FlowSpec, Parameter, card, current, step, trigger_on_finish
from shared.config import parse_use_case
from shared.errors import DataError

{decorator}
class {name}(FlowSpec):
    use_case = Config("use_case", default_value="", parser=parse_use_case)
    force = Parameter("force", type=bool, default=False)

    @step
    def start(self):
        {body}
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    {name}()
"""

TELL = """trigger = current.get("trigger")
        woken = sorted(run.parent.id for run in trigger.runs) if trigger else []
        print("woken by", woken, "cores", os.environ.get("EVERTUNE_CORES"), "force", self.force, flush=True)
        print("trials", self.use_case.classical.n_trials, self.use_case.title, flush=True)"""

END_WITH_A_CARD = """    @card(type="blank")
    @step
    def end(self):
        from metaflow.cards import Markdown
        current.card.append(Markdown(self.use_case.name))"""

BUSY = """children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2)]
        Path("pids").write_text(" ".join(map(str, [os.getpid(), os.getppid(), *(c.pid for c in children)])))
        time.sleep(600)"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a project with a use case `tiny` and no flow yet; the working directory."""
    root = tmp_path / "project"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "tiny.toml").write_text(CONFIG, encoding="utf-8")
    (root / "obproject.toml").write_text('title = "Tiny"\nproject = "tiny"\n')
    monkeypatch.chdir(root)
    return root


def add_flow(root: Path, name: str, body: str = TELL, after: tuple[str, ...] = ()) -> None:
    path = root / "flows" / name.lower() / "flow.py"
    path.parent.mkdir(parents=True)
    decorator = f"@trigger_on_finish(flows={list(after)})" if after else ""
    path.write_text(FLOW.format(name=name, body=body, decorator=decorator))


def finished_chain() -> Chain:
    chain = newest_chain("tiny")
    assert chain is not None
    return chain


def log(name: str) -> str:
    return finished_chain().log(name).read_text(encoding="utf-8")


def test_flows_start_when_all_that_they_wait_for_has_finished(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 6)
    add_flow(project, "DataPrepFlow")
    add_flow(project, "Left", after=("DataPrepFlow",))
    add_flow(project, "Right", after=("DataPrepFlow",))
    add_flow(project, "Both", after=("Left", "Right"))

    result = CliRunner().invoke(app, ["run", "tiny", "--set", "classical.n_trials=7", "--force"])

    chain = finished_chain()
    assert (result.exit_code, chain.state) == (0, "done"), result.output
    left, right, both = (chain.flows[name] for name in ("Left", "Right", "Both"))
    assert left.started_at < right.finished_at, "they run side by side"
    assert right.started_at < left.finished_at, "they run side by side"
    assert both.started_at >= max(left.finished_at, right.finished_at)
    assert "woken by [] cores None force True" in log("DataPrepFlow")
    assert "woken by ['DataPrepFlow'] cores 3 force True" in log("Left")
    assert "woken by ['Left', 'Right'] cores None force True" in log("Both")
    assert all("trials 7 Größe 😀" in log(name) for name in chain.flows)
    assert "Both finished after" in result.output


def test_a_flow_that_has_ended_is_no_process_to_kill(project: Path):
    add_flow(project, "DataPrepFlow", body="pass")
    killable = []

    def look(chain: Chain) -> None:
        killable.append((chain.flows["DataPrepFlow"].state, len(runner._processes)))

    runner = ChainRunner(load_use_case("tiny"), read_graph(project), root=project, on_change=look)
    chain = asyncio.run(runner.run())

    assert chain.state == "done"
    assert {("running", 1), ("done", 0)} <= set(killable)
    assert ("done", 1) not in killable


def test_on_one_core_flows_run_one_after_the_other(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    add_flow(project, "DataPrepFlow", body="pass")
    add_flow(project, "Left", after=("DataPrepFlow",))
    add_flow(project, "Right", after=("DataPrepFlow",))

    result = CliRunner().invoke(app, ["run", "tiny"])

    first, second = sorted((finished_chain().flows[name] for name in ("Left", "Right")), key=lambda f: f.started_at)
    assert (result.exit_code, first.state, second.state) == (0, "done", "done"), result.output
    assert first.finished_at <= second.started_at


def test_the_cards_of_a_use_cases_newest_runs_become_files(project: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("METAFLOW_DATASTORE_SYSROOT_LOCAL")  # with it, Metaflow looks for cards where it writes none
    add_flow(project, "DataPrepFlow", body="current.run.add_tag('use_case:' + self.use_case.name)")
    path = project / "flows" / "dataprepflow" / "flow.py"
    path.write_text(path.read_text().replace("    @step\n    def end(self):\n        pass", END_WITH_A_CARD))
    other = project / "configs" / "other.toml"
    other.write_text(CONFIG.replace("tiny", "other"), encoding="utf-8")
    evertune = [sys.executable, "-c", "from shared.cli import main; main()"]

    def cards() -> str:
        written = subprocess.run([*evertune, "cards", "tiny"], check=True, capture_output=True, text=True).stdout
        assert written.split() == [str(home / "cards" / "tiny" / "DataPrepFlow.html")]
        return Path(written.strip()).read_text(encoding="utf-8")

    subprocess.run([*evertune, "run", "tiny"], check=True)
    before = cards()
    subprocess.run([sys.executable, path, "--config", "use_case", other, "run"], check=True)

    assert "<html" in before
    assert cards() == before


def test_a_failed_flow_stops_what_waits_for_it_and_shows_its_message(project: Path):
    add_flow(project, "DataPrepFlow", body="pass")
    add_flow(project, "Broken", body="raise DataError('the rows are gone; put them back')", after=("DataPrepFlow",))
    add_flow(project, "Sibling", body="time.sleep(2)", after=("DataPrepFlow",))
    add_flow(project, "Later", after=("Broken", "Sibling"))

    result = CliRunner().invoke(app, ["run", "tiny"])

    states = {name: flow.state for name, flow in finished_chain().flows.items()}
    assert states == {"DataPrepFlow": "done", "Broken": "failed", "Sibling": "done", "Later": "skipped"}
    assert result.exit_code == 1
    assert "Broken failed:\nthe rows are gone; put them back\n" in result.stderr
    assert "Traceback" not in result.output
    assert "`evertune run tiny` goes on where it stopped" in result.stderr


def test_a_flow_that_breaks_before_it_has_a_run_is_shown_too(project: Path):
    add_flow(project, "DataPrepFlow")
    path = project / "flows" / "dataprepflow" / "flow.py"
    path.write_text(path.read_text().replace("    DataPrepFlow()", "    raise SystemExit('not today')"))

    result = CliRunner().invoke(app, ["run", "tiny"])

    assert result.exit_code == 1
    assert "not today" in result.stderr
    assert finished_chain().flows["DataPrepFlow"].run is None


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_of_the_chain(project: Path, signum: signal.Signals):
    add_flow(project, "DataPrepFlow", body=BUSY)
    add_flow(project, "Later", after=("DataPrepFlow",))
    process = subprocess.Popen([sys.executable, "-c", "from shared.cli import main; main()", "run", "tiny"])
    try:
        pids = wait_for_pids(project / "pids")
        assert all(map(is_alive, pids))

        process.send_signal(signum)

        assert process.wait() == 130
        assert not any(map(is_alive, pids))
        states = [flow.state for flow in finished_chain().flows.values()]
        assert (finished_chain().state, states) == ("stopped", ["stopped", "waiting"])
    finally:
        process.kill()


def test_a_killed_chain_leaves_no_process_either(project: Path):
    add_flow(project, "DataPrepFlow", body=BUSY)
    process = subprocess.Popen([sys.executable, "-c", "from shared.cli import main; main()", "run", "tiny"])
    pids = wait_for_pids(project / "pids")

    process.kill()

    assert process.wait() == -signal.SIGKILL
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
    assert not any(map(is_alive, pids))
    assert finished_chain().died


def test_a_killed_flow_leaves_none_of_its_tasks(project: Path):
    add_flow(project, "DataPrepFlow", body=BUSY)
    process = subprocess.Popen([sys.executable, "-c", "from shared.cli import main; main()", "run", "tiny"])
    task, flow, *children = wait_for_pids(project / "pids")

    os.kill(flow, signal.SIGKILL)

    assert process.wait() == 1
    psutil.wait_procs([psutil.Process(pid) for pid in (task, *children) if psutil.pid_exists(pid)], timeout=30)
    assert not any(map(is_alive, (task, *children)))


def wait_for_pids(file: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, "the flow never got to its step"
        time.sleep(0.05)
    return [int(pid) for pid in file.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
