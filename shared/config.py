"""`configs/<use_case>.toml`, parsed once into frozen, validated objects."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from shared.domain import MEMBERS, USE_CASE_NAME, Direction, Frozen, StrategySpec, Task, Variant
from shared.errors import ConfigError

# scikit-learn's scorers that work on whole rows of one target; the task follows from the metric.
CLASSIFICATION_METRICS = (
    "accuracy", "balanced_accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "jaccard", "matthews_corrcoef",
    "neg_brier_score", "neg_log_loss", "precision", "precision_macro", "recall", "recall_macro", "roc_auc",
    "roc_auc_ovo", "roc_auc_ovr",
)  # fmt: skip
REGRESSION_METRICS = (
    "d2_absolute_error_score", "explained_variance", "neg_max_error", "neg_mean_absolute_error",
    "neg_mean_absolute_percentage_error", "neg_mean_gamma_deviance", "neg_mean_poisson_deviance",
    "neg_mean_squared_error", "neg_mean_squared_log_error", "neg_median_absolute_error",
    "neg_root_mean_squared_error", "neg_root_mean_squared_log_error", "r2",
)  # fmt: skip

Part = Literal["data", "classical", "deep", "system"]  # of the chain: a flow each

_CRON_UNITS = (
    r"[0-5]?\d", r"[01]?\d|2[0-3]", r"0?[1-9]|[12]\d|3[01]",
    r"0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", r"[0-6]|sun|mon|tue|wed|thu|fri|sat",
)  # fmt: skip
# A list of ranges of a unit: minute, hour, day, month, weekday.
CRON_FIELDS = tuple(rf"{r}(,{r})*" for r in (rf"(\*|\?|({u})(-({u}))?)(/[1-9]\d*)?" for u in _CRON_UNITS))


def _strategy(value: Any) -> Any:
    """`"auto"`, `"TPESampler"` and `{ name = "TPESampler", n_startup_trials = 20 }` are one thing."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and "options" not in value:
        return {"name": value.get("name"), "options": {k: v for k, v in value.items() if k != "name"}}
    return value


Strategy = Annotated[StrategySpec, BeforeValidator(_strategy)]


class DataConfig(Frozen):
    source: str
    target: str
    holdout: float = Field(0.2, gt=0, lt=1)
    time: str | None = None
    rows: int | None = Field(None, gt=0)
    split_seed: int = Field(0, ge=0)

    @field_validator("source")
    @classmethod
    def _has_no_credentials(cls, source: str) -> str:
        from shared.settings import CREDENTIALS

        if CREDENTIALS.search(source):
            raise ValueError("must have no credentials in it; give them by the environment (AWS_ACCESS_KEY_ID, …)")
        return source


class TuningConfig(Frozen):
    metric: str
    folds: int = Field(5, ge=2, le=20)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _known_metric(self) -> TuningConfig:
        known = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
        if self.metric not in known:
            raise ValueError(
                f"must be a scorer of scikit-learn that Evertune knows{did_you_mean(self.metric, known)}"
                "; `evertune config metrics` lists all"
            )
        return self

    @property
    def task(self) -> Task:
        return "classification" if self.metric in CLASSIFICATION_METRICS else "regression"


class VariantConfig(Frozen):
    """Budget and strategy of one HPO flow. `objective` is a path relative to the flow's folder.

    `metrics` name the values of an `objective` of one's own; `guard` is the one that its `trial.report` reports.
    """

    objective: str
    n_trials: int = Field(40, ge=1)
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=100)] = "auto"
    sampler: Strategy = StrategySpec()
    pruner: Strategy = StrategySpec()
    timeout_s: float | None = Field(None, gt=0)
    trial_timeout_s: float | None = Field(None, gt=0)
    max_failures: int = Field(5, ge=1)
    directions: tuple[Direction, ...] = ("maximize",)
    metrics: tuple[Annotated[str, Field(pattern=r"^\w[\w .-]*$")], ...] = ()
    guard: str | None = None

    @model_validator(mode="after")
    def _names_each_value_once(self) -> VariantConfig:
        n, names = len(self.directions), list(self.metrics)
        if names and (len(names) != n or len(set(names)) != n):
            raise ValueError(
                f"must name each value by `metrics`, one distinct name per direction ({', '.join(self.directions)}), "
                f"but they are {names}; name {n}, or change `directions`"
            )
        return self

    @model_validator(mode="after")
    def _guards_one_of_several(self) -> VariantConfig:
        if self.guard is None:
            return self
        if len(self.directions) == 1:
            raise ValueError("needs no `guard`, since a trial with one direction reports its only value; leave it out")
        if self.guard not in self.metrics:
            raise ValueError(
                f"must have as `guard` one of its `metrics` ({', '.join(self.metrics) or 'none'}), but it is "
                f"{self.guard!r}{did_you_mean(self.guard, self.metrics)}; name the values by `metrics`"
            )
        return self


class SystemConfig(Frozen):
    n_trials: int = Field(20, ge=1)
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=100)] = "auto"
    latency_budget_ms: float = Field(20.0, gt=0)
    timeout_s: float | None = Field(None, gt=0)
    trial_timeout_s: float | None = Field(None, gt=0)
    max_failures: int = Field(5, ge=1)


class RetuneConfig(Frozen):
    warm_trials: int = Field(10, ge=1)
    patience: int = Field(5, ge=0)
    terminator: bool = False


class PromotionConfig(Frozen):
    """Rules of the gate, see `docs/gate.md`. `slices`: by how much the worst slice of a column may lose."""

    mode: Literal["superiority", "non_inferiority"] = "superiority"
    alpha: float = Field(0.05, gt=0, lt=1)
    renew: float = Field(0.2, gt=0, allow_inf_nan=False)
    min_gain: float = Field(0.0, allow_inf_nan=False)
    margin: float = Field(0.0, ge=0, allow_inf_nan=False)
    cheaper: float = Field(0.1, gt=0, lt=1)
    group: str | None = None
    max_size_mb: float | None = Field(None, gt=0)
    max_calibration_error: float | None = Field(None, gt=0, lt=1)
    slices: Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_margin_where_it_is_of_use(self) -> PromotionConfig:
        if self.mode == "non_inferiority" and not self.margin:
            raise ValueError(
                'with `mode = "non_inferiority"` needs a `margin` above 0, by how much of the metric a cheaper model '
                "may be worse; add one, or leave `mode` out"
            )
        if self.mode == "superiority" and self.margin:
            raise ValueError(
                f"takes a `margin` (it is {self.margin:g}) only with `mode = 'non_inferiority'`; add that, or say by "
                "`min_gain` how much better a challenger must be"
            )
        return self


class ScheduleConfig(Frozen):
    cron: str = "0 2 * * *"
    timezone: str = "UTC"
    when_unchanged: Literal["skip", "continue"] = "skip"

    @field_validator("cron")
    @classmethod
    def _has_five_fields(cls, cron: str) -> str:
        fields = cron.lower().split()
        if len(fields) != 5 or not all(map(re.fullmatch, CRON_FIELDS, fields)):
            raise ValueError('must be five fields, "minute hour day month weekday", such as "30 2 * * mon-fri"')
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, timezone: str) -> str:
        try:
            _ = timezone == "UTC" or ZoneInfo(timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError("must be a time zone of the IANA database, such as Europe/Berlin") from None
        return timezone


class RetentionConfig(Frozen):
    """What stays although nothing needs it. `nightly`: the chain's last flow prunes the rest."""

    versions: int = Field(5, ge=1)
    days: int = Field(30, ge=1)
    nightly: bool = False


class ComputeConfig(Frozen):
    """What the pods of a flow get; ignored on one machine. `secrets` are names of secrets of the cluster."""

    cpu: float = Field(1, gt=0)
    memory_mib: int = Field(4096, gt=0)
    gpu: int = Field(0, ge=0)
    image: str | None = None
    compute_pool: str | None = None
    secrets: tuple[str, ...] = ()
    retries: int = Field(2, ge=0)
    timeout_s: int = Field(7200, ge=60)


class UseCase(Frozen):
    """A use case: one config, and the objectives that it names."""

    name: str = Field(pattern=f"^{USE_CASE_NAME}$")
    title: str
    data: DataConfig
    tuning: TuningConfig
    classical: VariantConfig | None = None
    deep: VariantConfig | None = None
    system: SystemConfig | None = None
    retune: RetuneConfig = RetuneConfig()
    promotion: PromotionConfig | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    retention: RetentionConfig = RetentionConfig()
    compute: Mapping[Part, ComputeConfig] = Field(default_factory=dict)

    @property
    def members(self) -> tuple[Variant, ...]:
        """The HPO variants that the config asks for."""
        return tuple(v for v in MEMBERS if getattr(self, v) is not None)

    @property
    def project(self) -> str:
        """Metaflow project of the use case, so that events of different use cases never cross."""
        return f"evertune_{self.name}"

    @model_validator(mode="after")
    def _has_a_member(self) -> UseCase:
        if not self.members:
            raise ValueError('needs a table [classical] or [deep]; add one with `objective = "objectives/<name>.py"`')
        if self.promotion and not self.system:
            raise ValueError(
                "[promotion] promotes what [system] tunes; add the table [system], or leave [promotion] out"
            )
        if self.promotion and self.promotion.max_calibration_error and self.tuning.task == "regression":
            raise ValueError(
                "`promotion.max_calibration_error` needs probabilities, but "
                f"{self.tuning.metric!r} is a metric of values; leave it out"
            )
        return self


def load_use_case(name_or_path: str | Path, overrides: Sequence[str] = ()) -> UseCase:
    """The use case `configs/<name>.toml`, or that of a path, with `key.path=value` overrides.

    Raises:
        ConfigError: there is no such file, it isn't TOML, or it breaks a rule.
    """
    path = _config_path(name_or_path)
    label = path.name if path.parent.name != "configs" else f"configs/{path.name}"
    tree = _toml(_text(path, label), label)
    tree.setdefault("name", path.stem)
    overridden = [_apply(tree, override) for override in overrides]
    if tree["name"] != path.stem:
        raise ConfigError(
            f"{_origin(['name'], overridden) or label}: `name` must equal the file's name, but is {tree['name']!r}; "
            f"write name = {path.stem!r}"
        )
    return _validate(tree, label, overridden)


def parse_use_case(text: str) -> dict[str, Any]:
    """Parser of the flows' `Config("use_case")`: TOML, or JSON as the local runner hands it over."""
    tree = json.loads(text) if text.lstrip().startswith("{") else _toml(text, "use_case")
    if "name" not in tree:
        raise ConfigError(
            "use_case: the config must say its use case's name, since a flow sees the text and not the file; "
            'add name = "<file name without .toml>" as its first line'
        )
    return _validate(tree, f"configs/{tree['name']}.toml").model_dump(mode="json", exclude_none=True)


def use_cases() -> list[str]:
    """Names of the configs of this project."""
    from shared.settings import project_root

    return sorted(p.stem for p in (project_root() / "configs").glob("*.toml"))


def did_you_mean(value: object, known: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or nothing where nothing is close."""
    close = get_close_matches(str(value), known, n=1, cutoff=0.5)
    contained = [k for k in known if str(value) and str(value) in k]
    guess = (contained or close)[:1]
    return f"; did you mean {guess[0]!r}?" if guess else ""


def _config_path(name_or_path: str | Path) -> Path:
    from shared.settings import project_root

    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = project_root() / "configs" / f"{name_or_path}.toml"
    if not path.is_file():
        known = use_cases()
        raise ConfigError(
            f"{path}: there is no such config{did_you_mean(path.stem, known)}; "
            f"this project has: {', '.join(known) or 'none (are you in the project folder?)'}"
        )
    return path


def _text(path: Path, label: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        line = err.object.count(b"\n", 0, err.start) + 1
        raise ConfigError(f"{label}: must be UTF-8, but line {line} isn't ({err.reason}); save it as UTF-8") from err


def _toml(text: str, label: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"{label}: must be TOML, but {err}; compare it with configs/digits.toml") from err


def _apply(tree: dict[str, Any], override: str) -> list[str]:
    """Put an override into the tree; returns its key's path."""
    key, sep, raw = override.partition("=")
    if not sep or not key.strip():
        raise ConfigError(f"--set must be key.path=value, but is {override!r}; e.g. --set classical.n_trials=10")
    try:
        value = tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, leaf = path = key.strip().split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"--set {override}: {parent!r} is a value, not a table; `evertune config check` shows all"
            )
    node[leaf] = value
    return path


def _origin(path: Sequence[str], overridden: Sequence[Sequence[str]]) -> str:
    """`--set`, where a key, its table or a key in it was overridden; else nothing."""
    return "--set" if any(path and all(a == b for a, b in zip(path, o, strict=False)) for o in overridden) else ""


def _validate(tree: Mapping[str, Any], file: str, overridden: Sequence[Sequence[str]] = ()) -> UseCase:
    try:
        return UseCase.model_validate(tree)
    except ValidationError as err:
        raise ConfigError("\n".join(dict.fromkeys(_explain(e, file, overridden) for e in err.errors()))) from None


def _explain(error: Any, file: str, overridden: Sequence[Sequence[str]]) -> str:
    """One pydantic error as a sentence: file or option, key, rule, value, remedy."""
    loc = [str(part) for part in error["loc"]]
    label = _origin(loc, overridden) or file
    key = ".".join(p for p in loc if not p.startswith(("function-", "constrained", "literal", "int")))
    if error["type"] == "extra_forbidden":
        known = _keys_at(loc[:-1])
        return f"{label}: `{key}` is not a key{did_you_mean(loc[-1], known)}; valid here: {', '.join(known)}"
    rule = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        what = f"the table [{key}]" if key in _tables() else f"the line {loc[-1]} = …"
        return f"{file}: `{key}` is required, but missing; add {what}, as configs/digits.toml has it"
    if rule.startswith("must be a scorer"):
        given = repr(error["input"].get("metric"))
        return f"{label}: `tuning.metric` {rule.replace('knows', f'knows, but is {given}', 1)}"
    if isinstance(error["input"], Mapping) or "credentials" in rule:
        return f"{label}: {f'`{key}` ' if key else ''}{rule}"
    return f"{label}: `{key}` breaks a rule: {rule}, but it is {error['input']!r}; mend it, or leave it out"


@cache
def _tables() -> dict[str, type[Frozen]]:
    return {
        "": UseCase, "data": DataConfig, "tuning": TuningConfig, "classical": VariantConfig, "deep": VariantConfig,
        "system": SystemConfig, "retune": RetuneConfig, "promotion": PromotionConfig, "schedule": ScheduleConfig,
        "retention": RetentionConfig, "compute": ComputeConfig,
    }  # fmt: skip


def _keys_at(loc: Sequence[str]) -> list[str]:
    return sorted(_tables().get(loc[0] if loc else "", UseCase).model_fields)
