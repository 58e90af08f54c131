"""The platform's own function of this name says where an app's database is; here the test says it."""

import os


def get_db_url(app_name: str, project: str | None = None, branch: str | None = None) -> str:
    if app_name != "optuna-dashboard" or project != os.environ["OB_TEST_PROJECT"]:
        raise RuntimeError(f"No app deployment found with name `{app_name}` in {project}")
    return os.environ["OB_TEST_DATABASE_URL"]
