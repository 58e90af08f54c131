"""MLflow's server on the model registry: `python -m deployments.mlflow_server`; MLflow's own variables set it up.

Without MLFLOW_BACKEND_STORE_URI it serves its own database on Outerbounds, and elsewhere the registry of this machine.
"""

import os
import sys

from deployments.outerbounds import own_database
from shared.settings import settings
from shared.storage.database import sqlalchemy_url
from shared.storage.services import mlflow_tracking_uri


def environment() -> dict[str, str]:
    """MLflow's variables. By them, and not by a command line, which is for every user of the machine to read."""
    env = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WORKERS": "1",
        **os.environ,
    }
    if "MLFLOW_BACKEND_STORE_URI" not in env:
        own = own_database()
        env["MLFLOW_BACKEND_STORE_URI"] = sqlalchemy_url(own) if own else mlflow_tracking_uri()
        if own and "MLFLOW_ARTIFACTS_DESTINATION" not in env:
            sys.exit("error: models must outlive the app, but MLFLOW_ARTIFACTS_DESTINATION isn't set; name a bucket")
    env.setdefault("MLFLOW_ARTIFACTS_DESTINATION", str(settings().home / "mlflow"))
    return env


if __name__ == "__main__":
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", "server"], environment())
