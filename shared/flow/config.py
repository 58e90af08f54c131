"""What a flow's Configs say, and what its run is asked for beside them."""

from __future__ import annotations

from typing import Any

from shared.config import UseCase
from shared.flow.request import Request


def use_case_of(flow: Any) -> UseCase:
    """The use case of a flow that has the line `use_case = Config("use_case", …, parser=parse_use_case)`.

    With what its artifact `requested` asks for, where it has one.

    Raises:
        FlowError: the request doesn't fit the config.
    """
    config = UseCase.model_validate(flow.use_case.to_dict())
    return Request.parse(getattr(flow, "requested", "")).applied(config, getattr(flow, "variant", None))
