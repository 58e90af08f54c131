"""The best parameters as Python to paste."""

from __future__ import annotations

from pprint import pformat

from shared.domain import TrialSummary, Variant
from shared.tuning.objective import Kind

IMPORTS = "from optuna.trial import FixedTrial\n\nfrom shared.tuning.objective import Objective\n\n"


def as_python(
    variant: Variant, objective_label: str, best: TrialSummary, metric: str, kind: Kind = "build", deep: bool = False
) -> str:
    """A snippet that rebuilds the best trial's model from its objective file, to be run in the project's root.

    kind, deep: the objective's. The system has no objective file: its snippet is the parameters alone.
    """
    head = f"# {variant}: trial {best.number}, {metric} {best.values[0]:.6g}\n"
    params = f"params = {pformat(dict(best.params), sort_dicts=False, width=100)}\n"
    if not objective_label:
        return head + params
    return "\n".join(
        [head + IMPORTS + params + f"objective = Objective.load({objective_label!r})", *_model(best, kind, deep), ""]
    )


def _model(best: TrialSummary, kind: Kind, deep: bool) -> list[str]:
    if kind != "build":
        return ["", "", "def train(data):", "    return objective.train(FixedTrial(params), data)"]
    lines = ["model = objective.build(FixedTrial(params))  # untrained"]
    if deep:
        lines.append("plan = objective.fit_plan(FixedTrial(params))")
        lines.append(f"epochs = {best.user_attrs.get('best_epoch')}  # after so many it was best")
    return lines
