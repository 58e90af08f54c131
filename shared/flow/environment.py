"""What a process that runs a flow, or a step of one, needs before it begins."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from shared.errors import FlowError
from shared.flow import platform
from shared.logs import show_logs

NAMES = ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")
LIMITS = ("MAX_WORKERS", "MAX_NUM_SPLITS")


def prepare_environment() -> None:
    """Give Metaflow a user name where it would refuse, lift its limits, show the log. Call it before the flow runs.

    On Outerbounds the database is the platform's, unless EVERTUNE_DATABASE_URL names another.

    A user name is missing where there is none, or only root. `USERNAME` is the last one that Metaflow looks at, after
    its own settings. A plan has no more workers than the machine has cores: all of them are to run at once.

    Raises:
        FlowError: something that isn't a folder stands where Metaflow keeps its runs.
    """
    show_logs()
    if platform.is_there():
        from shared.settings import use_platform_database

        use_platform_database(platform.database_url)
    runs = Path(os.environ.get("METAFLOW_DATASTORE_SYSROOT_LOCAL", "."), ".metaflow").absolute()
    if runs.exists() and not runs.is_dir():
        raise FlowError(f"Metaflow keeps its runs in a folder, but {runs} is a file; move it away, and start again")
    if all(os.environ.get(name) in (None, "", "root") for name in NAMES):
        os.environ["USERNAME"] = "evertune"
    for command in ("RUN", "RESUME"):
        for limit in LIMITS:
            os.environ.setdefault(f"METAFLOW_{command}_{limit}", "1000")


def user_name() -> str:
    """Who runs this process: as Metaflow would say, else who owns it."""
    named = (os.environ.get(name) for name in NAMES)
    if known := next((name for name in named if name and name != "root"), None):
        return known
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"
