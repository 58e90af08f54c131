"""Metaflow's Runner and Deployer, imported without what its vendored typing_extensions leaves behind in `typing`.

It replaces functions of `typing` by its own, which don't know the TypeVars of the installed typing_extensions; after
that `torch.export` can't be imported in the same process.
"""

import io
import signal
import threading
import typing
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

_PATCHED = ("_check_generic", "_collect_parameters")
_originals = {name: getattr(typing, name) for name in _PATCHED if hasattr(typing, name)}

from metaflow import DeployedFlow, Deployer, Runner  # noqa: E402
from metaflow.runner.click_api import extract_flow_class_from_file  # noqa: E402
from metaflow.runner.subprocess_manager import CommandManager, SubprocessManager  # noqa: E402

for _name, _function in _originals.items():
    setattr(typing, _name, _function)

__all__ = [
    "CommandManager", "DeployedFlow", "Deployer", "Runner", "SubprocessManager", "extract_flow_class_from_file",
    "signals_kept",
]  # fmt: skip

_silence = threading.Lock()


@contextmanager
def signals_kept() -> Iterator[None]:
    """Where a Runner or a Deployer is made: it would take over SIGINT, or warn in a thread that it can't."""
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, handler)
    else:
        with _silence, redirect_stderr(io.StringIO()):
            yield
