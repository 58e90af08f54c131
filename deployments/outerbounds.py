"""What the apps know of Outerbounds: it runs a PostgreSQL beside an app that says `persistence: postgres`."""

import json
import os
from pathlib import Path


def own_database() -> str | None:
    """URL of this app's own database, with the platform's token in it; None anywhere else."""
    if "OB_PROJECT" not in os.environ:  # obproject-deploy sets it for each app
        return None
    config = Path(os.environ["METAFLOW_HOME"]) / "config.json"
    token = json.loads(config.read_text())["METAFLOW_SERVICE_AUTH_KEY"]
    return f"postgresql://userspace_default:{token}@localhost:5432/userspace_default?sslmode=disable"
