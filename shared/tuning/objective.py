"""The objective contract: what a user's objective file may define, and what comes out of it.

An objective file is one plain Python module that stands alone, since it travels as source text. It defines one of

- `build(trial)`: suggests the hyperparameters and returns an unfitted estimator with scikit-learn's interface; with
  `fit_plan(trial)` beside it, an untrained `torch.nn.Module`. Evertune trains and scores it.
- `objective(trial, data)`: scores itself on `data`, a `Dataset`; with `train(trial, data)`, it can be retrained.
- `objective(trial)`: an unchanged Optuna script. It is imported, so what it runs is under `if __name__ == "__main__":`.

What a file defines is read from its syntax tree; the file runs when one of its functions is first needed. So planning
a study imports neither torch nor XGBoost.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Literal

from shared.config import did_you_mean
from shared.domain import source_hash
from shared.errors import ObjectiveError
from shared.tuning.plan import FitPlan, parse_plan

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from shared.domain import Dataset

__all__ = ["FitPlan", "Kind", "Objective", "check_value"]

Kind = Literal["build", "data", "trial"]

STORED = "sha256:"  # and a hash: a source that the ledger keeps, where a path could be

CONTRACT = "`build(trial)`, `objective(trial, data)` or `objective(trial)`"


@dataclass(frozen=True)
class Objective:
    """An objective file, read. Equal to another if their sources are; pickled as its source.

    outline: a stub of each function that the file defines at its top level: its parameters, without its code.
    """

    source: str = field(repr=False)
    label: str = field(compare=False)
    outline: Mapping[str, FunctionType] = field(repr=False, compare=False)

    @classmethod
    def load(cls, path: str | Path, label: str | None = None) -> Objective:
        """The objective of a file; `label` is how errors call it, by default the path, from the working directory.

        path: or `sha256:` and the hash of a source that the ledger keeps.

        Raises:
            ObjectiveError: there is no such file, it isn't Python, or it breaks the contract.
            DataError: the ledger keeps no such source.
        """
        if str(path).startswith(STORED):
            from shared.storage.ledger import Ledger

            return cls.from_source(Ledger().source(str(path).removeprefix(STORED)), label or str(path))
        return cls.from_source(_read(Path(path)), label or _label(Path(path)))

    @classmethod
    def find(cls, name: str, folder: Path) -> Objective:
        """The objective that a config names: a path from its flow's folder, or `sha256:…`.

        Raises:
            ObjectiveError, DataError: as `load`.
        """
        return cls.load(name if name.startswith(STORED) else folder / name)

    @classmethod
    def from_source(cls, source: str, label: str) -> Objective:
        """The objective of a source text, wherever its file is.

        Raises:
            ObjectiveError: the text isn't Python, or it breaks the contract.
        """
        objective = cls(source, label, _outline(source, label))
        _check_contract(objective)
        return objective

    def __reduce__(self) -> tuple[Any, ...]:
        return Objective.from_source, (self.source, self.label)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the source, hexadecimal."""
        return source_hash(self.source)

    @cached_property
    def module(self) -> ModuleType:
        """The file as a module, run when first asked for.

        Raises:
            ObjectiveError: it can't be imported.
        """
        return _execute(self.source, self.label)

    @cached_property
    def kind(self) -> Kind:
        if self.defines("build"):
            return "build"
        names, required = _parameters(self.outline["objective"])
        return "data" if required == 2 or "data" in names[1:2] else "trial"

    @property
    def deep(self) -> bool:
        """Whether it is a torch module that Evertune trains by a `FitPlan`."""
        return self.defines("fit_plan")

    @property
    def trains(self) -> bool:
        """Whether the best trial can be retrained, and so registered."""
        return self.defines("build") or self.defines("train")

    def defines(self, name: str) -> bool:
        return name in self.outline

    @property
    def build(self) -> Callable[[BaseTrial], Any]:
        """`build(trial)`: the untrained model."""
        return self._function("build")

    @property
    def objective(self) -> Callable[..., Any]:
        """`objective(trial)` or `objective(trial, data)`, as `kind` says."""
        return self._function("objective")

    @property
    def train(self) -> Callable[[BaseTrial, Dataset], Any]:
        """`train(trial, data)`: the fitted model."""
        return self._function("train")

    def fit_plan(self, trial: BaseTrial) -> FitPlan:
        """What `fit_plan(trial)` returns, validated; it may be a `FitPlan` or a mapping of its fields.

        Raises:
            ObjectiveError: it is neither, has an unknown field, or a field breaks a rule.
        """
        return parse_plan(self._function("fit_plan")(trial), self.label)

    def _function(self, name: str) -> Callable[..., Any]:
        if not self.defines(name):
            raise ObjectiveError(f"{self.label}: must define `{name}`, but defines {_defined(self.outline)}; add it")
        return getattr(self.module, name)  # type: ignore[no-any-return]  # whatever the user wrote


def check_value(value: Any, n_directions: int) -> tuple[float, ...]:
    """What an objective returned, as one float per direction.

    Raises:
        ObjectiveError: it is a string, None, NaN, or the wrong number of values.
    """
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    if len(values) != n_directions:
        raise ObjectiveError(
            f"an objective must return one value per direction, {n_directions} here, but returned {len(values)}: "
            f"{_shown(value)}; return {n_directions}, or change `directions` in the config"
        )
    return tuple(_number(v) for v in values)


def _number(value: Any) -> float:
    remedy = "return the score as a float (or raise optuna.TrialPruned to give the trial up)"
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)  # float("0.5") would pass
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise ObjectiveError(f"an objective must return a number, but returned {_shown(value)}; {remedy}")
    return number


def _label(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as err:
        there = sorted(p.name for p in path.parent.glob("*.py"))
        raise ObjectiveError(
            f"{_label(path)}: there is no such objective file{did_you_mean(path.name, there)}; "
            f"{_label(path.parent)} has {', '.join(there) or 'no .py file'}; "
            "`objective` in the config is a path relative to the flow's folder"
        ) from err
    except (OSError, UnicodeDecodeError) as err:
        raise ObjectiveError(
            f"{_label(path)}: an objective must be a readable UTF-8 file, but {err}; save it as UTF-8"
        ) from err


def _outline(source: str, label: str) -> dict[str, FunctionType]:
    """Stubs of the functions that a source text defines at its top level: nothing of it is run."""
    filename = _filename(source, label)
    try:
        tree = ast.parse(source, filename)
    except SyntaxError as err:
        raise ObjectiveError(_explain_import(err, label, filename)) from err
    stubs = [_stub(node) for node in tree.body if isinstance(node, ast.FunctionDef)]
    namespace: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(ast.Module([*stubs], [])), filename, "exec"), namespace)
    return {stub.name: namespace[stub.name] for stub in stubs}


def _stub(node: ast.FunctionDef) -> ast.FunctionDef:
    """The function without decorators, annotations and code; a default is None."""
    given = node.args
    bare = ast.arguments(
        posonlyargs=[ast.arg(a.arg) for a in given.posonlyargs],
        args=[ast.arg(a.arg) for a in given.args],
        vararg=ast.arg(given.vararg.arg) if given.vararg else None,
        kwonlyargs=[ast.arg(a.arg) for a in given.kwonlyargs],
        kw_defaults=[default and ast.Constant(None) for default in given.kw_defaults],
        kwarg=ast.arg(given.kwarg.arg) if given.kwarg else None,
        defaults=[ast.Constant(None) for _ in given.defaults],
    )
    node.args, node.body, node.decorator_list, node.returns = bare, [ast.Pass()], [], None
    return node


def _filename(source: str, label: str) -> str:
    """How tracebacks call the file: unlike a path, it never shows the lines of another version."""
    return f"{label}@{source_hash(source)[:8]}"


def _execute(source: str, label: str) -> ModuleType:
    """The module of a source text, in `sys.modules` (for pickle and dataclasses), its lines known to tracebacks."""
    name, filename = f"evertune_objective_{source_hash(source)[:16]}", _filename(source, label)
    if name in sys.modules:
        return sys.modules[name]
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = ModuleType(name)
    module.__file__ = filename
    sys.modules[name] = module
    try:
        exec(compile(source, filename, "exec"), module.__dict__)
    except (Exception, SystemExit) as err:
        del sys.modules[name]
        raise ObjectiveError(_explain_import(err, label, filename)) from err
    return module


def _explain_import(error: BaseException, label: str, filename: str) -> str:
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == filename else None
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == filename else line
    cause = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    remedy = (
        "an objective file stands alone: install the package, or move the code into the file"
        if isinstance(error, ImportError)
        else "try it with `python " + label + "`"
    )
    return f"{label}, line {line}: an objective file must import without an error, but raised {cause}; {remedy}"


def _check_contract(objective: Objective) -> None:
    label, outline = objective.label, objective.outline
    if objective.defines("build") == objective.defines("objective"):
        found = "both `build` and `objective`" if objective.defines("build") else _defined(outline)
        raise ObjectiveError(f"{label}: must define one of {CONTRACT}, but defines {found}; keep or add one of them")
    if objective.deep and not objective.defines("build"):
        raise ObjectiveError(
            f"{label}: `fit_plan` says how to train what `build(trial)` returns, but there is no `build`; add it"
        )
    if objective.defines("train") and objective.defines("build"):
        raise ObjectiveError(
            f"{label}: `train` belongs to an `objective`, but the file defines `build`, which Evertune trains itself; "
            "remove or rename `train`"
        )
    for name, arguments in _SIGNATURES.items():
        if objective.defines(name):
            _check_signature(outline[name], name, arguments, label)


_SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "build": ("trial",),
    "fit_plan": ("trial",),
    "objective": ("trial", "data"),
    "train": ("trial", "data"),
}


def _check_signature(function: Callable[..., Any], name: str, arguments: tuple[str, ...], label: str) -> None:
    least = 1 if name == "objective" else len(arguments)
    names, required = _parameters(function)
    if not (required <= len(arguments) and least <= len(names)):
        rule = (
            "`objective(trial)` or `objective(trial, data)`"
            if name == "objective"
            else f"`{name}({', '.join(arguments)})`"
        )
        raise ObjectiveError(
            f"{label}: must define {rule}, but `{name}` takes {inspect.signature(function)}; "
            "change them, or give the others a default"
        )


def _parameters(function: Callable[..., Any]) -> tuple[list[str], int]:
    """Names of the positional parameters, and how many arguments a call must at least give."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = (p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return positional, sum(p.default is p.empty for p in named)


def _defined(outline: Mapping[str, FunctionType]) -> str:
    return ", ".join(f"`{name}`" for name in outline) or "no function"


def _shown(value: Any) -> str:
    return "None" if value is None else f"{str(value)[:60]!r} ({type(value).__name__})"
