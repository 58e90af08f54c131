"""How a deep model is trained: what an objective's `fit_plan(trial)` returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator

from shared.config import did_you_mean
from shared.domain import Frozen
from shared.errors import ObjectiveError


class FitPlan(Frozen):
    """How a deep model is trained, as `fit_plan(trial)` says it.

    optimizer: a class of `torch.optim`, with `options` as further arguments. patience: stop after so many epochs
    without a better validation score; None: never. transform: a callable on a training batch `(n_rows, *shape)`,
    such as a `torchvision.transforms.v2.Compose`.
    """

    optimizer: str = "AdamW"
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    patience: int | None = Field(None, ge=1)
    transform: Any = None
    options: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        known = _optimizers()
        if name not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return name

    @field_validator("transform")
    @classmethod
    def _callable(cls, transform: Any) -> Any:
        if transform is not None and not callable(transform):
            raise ValueError("must be a callable on a batch of rows")
        return transform


def parse_plan(plan: Any, label: str) -> FitPlan:
    """What `fit_plan(trial)` of the objective `label` returned, validated: a `FitPlan`, or a mapping of its fields.

    Raises:
        ObjectiveError: it is neither, has an unknown field, or a field breaks a rule.
    """
    if isinstance(plan, FitPlan):
        return plan
    if not isinstance(plan, Mapping):
        raise ObjectiveError(
            f"{label}: `fit_plan` must return a FitPlan or a mapping, but returned {plan!r}; "
            'return {"lr": 1e-3, "batch_size": 64, "epochs": 20} or more'
        )
    try:
        return FitPlan.model_validate(dict(plan))
    except ValidationError as err:
        raise ObjectiveError("\n".join(_explain(e, label) for e in err.errors())) from None


def _optimizers() -> list[str]:
    import torch

    base = torch.optim.Optimizer
    return sorted(
        n for n, v in vars(torch.optim).items() if inspect.isclass(v) and issubclass(v, base) and v is not base
    )


def _explain(error: Any, label: str) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = sorted(FitPlan.model_fields)
        return f"{label}: `fit_plan` has no {key!r}{did_you_mean(key, known)}; it may have {', '.join(known)}"
    if error["type"] == "missing":
        return f"{label}: `fit_plan` must give {key!r}, but doesn't; add it"
    rule = error["msg"].removeprefix("Value error, ")
    return f"{label}: `fit_plan`'s {key!r} breaks a rule: {rule} (it is {error['input']!r})"
