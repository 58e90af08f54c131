"""The platform's own function of this name says where an app's database is; here the test says it."""

import json
import os


def get_db_url(app_name: str, project: str | None = None, branch: str | None = None) -> str:
    if [app_name, project, branch] != json.loads(os.environ["OB_TEST_APP"]):
        raise RuntimeError(f"No app deployment found with name `{app_name}`")
    return os.environ["OB_TEST_DATABASE_URL"]
