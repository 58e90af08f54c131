"""What flows find in the environment that they prepare for Metaflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import FlowError
from shared.flow.environment import prepare_environment
from tests.flows.conftest import ROOT

WIDE = """
import time
from pathlib import Path
from metaflow import FlowSpec, step
from shared.flow.environment import prepare_environment

class Wide(FlowSpec):
    @step
    def start(self):
        self.workers = list(range(17))
        self.next(self.meet, foreach="workers")

    @step
    def meet(self):
        Path(f"{self.input}.here").touch()
        deadline = time.monotonic() + 60
        while len(list(Path().glob("*.here"))) < len(self.workers):
            assert time.monotonic() < deadline, "the others never came"
            time.sleep(0.1)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    prepare_environment()
    Wide()
"""


def test_more_workers_than_metaflow_runs_by_default_run_at_once_and_need_no_user_name(tmp_path: Path) -> None:
    file = tmp_path / "wide.py"
    file.write_text(WIDE)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, file, "--no-pylint", "run"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["run", "resume"])
def test_the_limits_are_lifted_unless_the_user_sets_them(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaflow.cli_components import run_cmds

    prefix = f"METAFLOW_{command.upper()}"
    monkeypatch.setattr(os, "environ", os.environ | {f"{prefix}_MAX_WORKERS": "3"})
    prepare_environment()
    options = getattr(run_cmds, command).make_context(command, [], auto_envvar_prefix=prefix).params
    assert (options["max_workers"], options["max_num_splits"]) == (3, 1000)


def test_a_file_where_metaflow_keeps_its_runs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"USER": "tester"})
    monkeypatch.chdir(tmp_path)
    prepare_environment()
    (tmp_path / ".metaflow").touch()
    with pytest.raises(FlowError, match=rf"{tmp_path}/\.metaflow is a file; move it away"):
        prepare_environment()
