"""What a flow's process is given, whoever starts it: the Configs as files, and where to import `shared` from."""

from __future__ import annotations

import json
import os
from pathlib import Path

from shared.config import UseCase


def write_configs(use_case: UseCase, folder: Path) -> dict[str, Path]:
    """The flows' Configs as files. The project's is TOML, as obproject reads it; JSON strings are TOML strings."""
    files = {"use_case": folder / "use_case.json", "project_config": folder / "project.toml"}
    files["use_case"].write_text(use_case.model_dump_json(exclude_none=True), encoding="utf-8")
    title = json.dumps(use_case.title, ensure_ascii=False)
    files["project_config"].write_text(f"title = {title}\nproject = {json.dumps(use_case.project)}\n", encoding="utf-8")
    return files


def import_path(root: Path) -> dict[str, str]:
    """The variable PYTHONPATH with the project's root before what it has."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
