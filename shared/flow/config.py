"""What a flow's Configs say."""

from __future__ import annotations

from typing import Any

from shared.config import UseCase


def use_case_of(flow: Any) -> UseCase:
    """The use case of a flow that has the line `use_case = Config("use_case", …, parser=parse_use_case)`."""
    return UseCase.model_validate(flow.use_case.to_dict())
