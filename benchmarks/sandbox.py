"""A fresh home for a benchmark, with services of its own, and commands timed in it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
EVERTUNE = (sys.executable, "-m", "shared.cli")


@dataclass(frozen=True)
class Sandbox:
    """Runs commands from the project's root, with an `EVERTUNE_HOME` of its own. settings: more of the environment."""

    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        outside = ("EVERTUNE_DATABASE_URL", "MLFLOW_TRACKING_URI", "EVERTUNE_DATA_ROOT")
        inherited = {key: value for key, value in os.environ.items() if key not in outside}
        return inherited | {
            "EVERTUNE_HOME": str(self.home),
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(self.home / "metaflow"),
            **self.settings,
        }

    def run(self, *command: str) -> float:
        """Wall seconds of a command that must succeed."""
        begin = time.perf_counter()
        self.output(*command)
        return time.perf_counter() - begin

    def output(self, *command: str) -> str:
        """What a command prints that must succeed."""
        done = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def evertune(self, *arguments: str) -> float:
        return self.run(*EVERTUNE, *arguments)

    def flow(self, folder: str, config: str, *arguments: str) -> float:
        """Wall seconds of one flow run by itself."""
        file = f"flows/{folder}/flow.py"
        return self.run(sys.executable, file, "--no-pylint", "--config", "use_case", config, "run", *arguments)


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    with tempfile.TemporaryDirectory(prefix="evertune-bench-", ignore_cleanup_errors=True) as folder:
        box = Sandbox(Path(folder) / "home")
        try:
            yield box
        finally:
            box.evertune("services", "stop")
