"""Who runs the flows, as Metaflow wants to know it."""

from __future__ import annotations

import os

NAMES = ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")


def ensure_user() -> None:
    """Give Metaflow a user name where the environment has none, or root only, both of which it refuses.

    Call it before the flow runs. `USERNAME` is the last one that Metaflow looks at, after its own settings.
    """
    if all(os.environ.get(name) in (None, "", "root") for name in NAMES):
        os.environ["USERNAME"] = "evertune"
