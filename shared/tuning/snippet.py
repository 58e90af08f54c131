"""The best parameters as Python to paste."""

from __future__ import annotations

from collections.abc import Mapping
from pprint import pformat
from typing import Any

from shared.domain import TrialSummary, Variant
from shared.tuning.objective import Kind

IMPORTS = "from optuna.trial import FixedTrial\n\nfrom shared.tuning.objective import Objective\n\n"


def as_python(
    variant: Variant, objective_label: str, best: TrialSummary, metric: str, kind: Kind = "build", deep: bool = False
) -> str:
    """A snippet that rebuilds the best trial's model from its objective file, to be run in the project's root.

    kind, deep: the objective's. The system has no objective file: its snippet is what it is made of, the parameters of
    each member included.
    """
    head = f"# {variant}: trial {best.number}, {metric} {best.values[0]:.6g}\n"
    if variant == "system":
        return f"{head}system = {_shown(best.user_attrs.get('system', best.params))}\n"
    params = f"params = {_shown(best.params)}\n"
    return "\n".join(
        [head + IMPORTS + params + f"objective = Objective.load({objective_label!r})", *_model(best, kind, deep), ""]
    )


def _shown(values: Mapping[str, Any]) -> str:
    return pformat(dict(values), sort_dicts=False, width=100)


def _model(best: TrialSummary, kind: Kind, deep: bool) -> list[str]:
    if kind != "build":
        return ["", "", "def train(data):", "    return objective.train(FixedTrial(params), data)"]
    lines = ["model = objective.build(FixedTrial(params))  # untrained"]
    if deep:
        lines.append("plan = objective.fit_plan(FixedTrial(params))")
        lines.append(f"epochs = {best.user_attrs.get('best_epoch')}  # after so many it was best")
    return lines
