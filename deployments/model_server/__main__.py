"""The model server: `python -m deployments.model_server digits [USE_CASE …] [--host 127.0.0.1] [--port 8000]`."""

import argparse
import os
import re
import sys

from shared import ports
from shared.domain import USE_CASE_NAME
from shared.errors import EvertuneError
from shared.logs import show_logs
from shared.settings import settings
from shared.storage import services
from shared.training.threads import cores, limit, share

# Nothing of a model is unpickled, whoever registered it.
SAFE = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


def main() -> None:
    """Serve until SIGTERM or Ctrl-C. What runs is answered first."""
    given = parser().parse_args()
    os.environ.update(SAFE)
    limit(share(cores()))  # each thread that predicts has its share

    import uvicorn

    from deployments.model_server.app import create
    from deployments.model_server.heads import ShortHeads
    from deployments.model_server.limits import check_host
    from deployments.model_server.live import LiveModel

    for package in ("shared", "deployments"):
        show_logs(package)
    tokens = settings().serve_tokens
    check_host(given.host, tokens)
    ports.check_free(given.host, given.port, "the server")
    print(f"{ports.url(given.host, given.port)}/docs in a few seconds, until Ctrl-C", flush=True)
    services.start_once()
    app = create([LiveModel(name) for name in dict.fromkeys(given.use_case)], tokens)
    uvicorn.run(
        app,
        host=given.host,
        port=given.port,
        http=ShortHeads,
        log_level="warning",
        access_log=False,
        server_header=False,
    )


def parser() -> argparse.ArgumentParser:
    known = argparse.ArgumentParser(prog="python -m deployments.model_server", description="Serves champions.")
    known.add_argument("use_case", nargs="+", type=_use_case, help="registered models whose champion is served")
    known.add_argument("--host", default="127.0.0.1")
    known.add_argument("--port", type=int, default=8000)
    return known


def _use_case(name: str) -> str:
    """A name as configs have it: it becomes part of paths."""
    if not re.fullmatch(USE_CASE_NAME, name):
        raise argparse.ArgumentTypeError(f"a use case has a name such as breast_cancer, but it is {name!r}")
    return name


if __name__ == "__main__":
    try:
        main()
    except EvertuneError as err:
        sys.exit(f"error: {err}")
