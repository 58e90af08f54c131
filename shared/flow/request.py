"""What one run is asked for beside its config: the Parameter `request`, JSON, the same from whoever starts a flow."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any, Literal

from metaflow import current
from metaflow.exception import MetaflowNotFound
from pydantic import Field, ValidationError

from shared.config import UseCase, did_you_mean
from shared.domain import Frozen
from shared.errors import FlowError
from shared.flow.payload import payload
from shared.flow.run import REQUEST_HELP
from shared.tuning.objective import STORED

logger = logging.getLogger(__name__)

Budget = Annotated[int, Field(ge=1, le=100_000, strict=True)] | None  # anybody may ask who can post an event
Workers = Literal["auto"] | Annotated[int, Field(ge=1, le=100, strict=True)] | None


class Asked(Frozen):
    """Of a variant's table of the config; None: as that says. objective: `sha256:` and the hash of a kept source."""

    n_trials: Budget = None
    workers: Workers = None
    objective: str | None = Field(None, pattern=rf"^{STORED}[0-9a-f]{{64}}$")


class AskedOfSystem(Frozen):
    n_trials: Budget = None
    workers: Workers = None


class Request(Frozen):
    """By variant. `Request()` asks for what the config says."""

    classical: Asked | None = None
    deep: Asked | None = None
    system: AskedOfSystem | None = None

    @classmethod
    def parse(cls, text: str | None) -> Request:
        """The request of a Parameter or of an event's payload, where it may have become JSON twice.

        Raises:
            FlowError: it isn't JSON, or asks for what can't be asked of one run.
        """
        try:
            return cls.of(_loaded(text or ""))
        except (ValueError, RecursionError) as err:
            raise FlowError(f"the Parameter `request` must be {REQUEST_HELP}; but {err}: {_short(text)}") from err

    @classmethod
    def of(cls, tree: Any) -> Request:
        """The request of a mapping, such as `{"classical": {"n_trials": 10}}`.

        Raises:
            FlowError: it asks for what can't be asked of one run.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as err:
            raise FlowError("\n".join(_explain(error) for error in err.errors())) from None

    def asking(self, variant: str, **asked: Any) -> Request:
        """This request, and what is asked of a variant; None is not asked.

        Raises:
            FlowError: it can't be asked of one run.
        """
        tree = self.model_dump(exclude_none=True)
        said = {key: value for key, value in asked.items() if value is not None}
        return Request.of({**tree, variant: {**tree.get(variant, {}), **said}} if said else tree)

    def text(self) -> str:
        """As it travels; empty where it asks for nothing."""
        said = self.model_dump(exclude_none=True)
        return json.dumps(said) if any(said.values()) else ""

    def applied(self, use_case: UseCase, variant: str | None = None) -> UseCase:
        """The use case, as a run is to see it that tunes this variant, if any.

        A budget that is asked of it is spent also where earlier studies are of use, which else makes do with less.

        Raises:
            FlowError: the config has no table of a variant that is asked for.
        """
        asked = self.model_dump(exclude_none=True)
        for name in asked:
            if getattr(use_case, name) is None:
                raise FlowError(
                    f"the Parameter `request` must ask for variants that are tuned, but configs/{use_case.name}.toml "
                    f"has no table [{name}]; add it, or leave {name!r} out of the request"
                )
        tables = {name: getattr(use_case, name).model_copy(update=said) for name, said in asked.items()}
        if budget := asked.get(variant or "", {}).get("n_trials"):
            whole = {"warm_trials": budget, "patience": 0, "terminator": False}
            tables["retune"] = use_case.retune.model_copy(update=whole)
        return use_case.model_copy(update=tables)


KNOWN = {"": sorted(Request.model_fields), "system": sorted(AskedOfSystem.model_fields)}


def requested(flow: Any) -> str:
    """What this run of a flow is asked for: by its own Parameter, or else by the event or run that has triggered it.

    To be kept as the artifact `requested`, from which the next flow takes it.

    Raises:
        FlowError: the Parameter, or the event's `request`, is none.
    """
    own = Request.parse(flow.request or json.dumps(payload().get("request"))).text()
    trigger = current.get("trigger")
    return own if own or not trigger else _handed_over(trigger)


def _handed_over(trigger: Any) -> str:
    """The artifact of the newest run; empty where an event of another kind has triggered this one."""
    try:
        run = trigger.run
        task = run["start"].task if run else {}
    except (MetaflowNotFound, ValueError, KeyError) as err:  # the last two: of somebody else's event
        logger.warning("upstream run not found, so the config alone counts", extra={"reason": str(err)})
        return ""
    return str(task["requested"].data) if "requested" in task else ""


def _loaded(text: str) -> Any:
    found = json.loads(text) if text.strip() else {}
    if isinstance(found, str):
        return _loaded(found)
    return {} if found is None else found


def _explain(error: Any) -> str:
    """One pydantic error as a sentence: key, rule, value, remedy."""
    if not error["loc"]:
        return f"the Parameter `request` must be {REQUEST_HELP}; but it is {_short(error['input'])}"
    *parents, last = [str(part) for part in error["loc"] if part not in ("constrained-int", "literal['auto']", "int")]
    path, known = ".".join([*parents, last]), KNOWN.get(parents[0] if parents else "", sorted(Asked.model_fields))
    if error["type"] == "extra_forbidden":
        return (
            f"the Parameter `request`: `{path}` can't be asked of one run{did_you_mean(last, known)}; "
            f"it may be: {', '.join(known)}; the rest is the config's"
        )
    return f"the Parameter `request`: `{path}` breaks a rule: {error['msg']}, but it is {_short(error['input'])}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}… ({len(text):,} characters)"
