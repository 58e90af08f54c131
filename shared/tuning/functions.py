"""An objective written as functions, in a notebook or a script, as the file that it would be."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from shared.domain import source_hash
from shared.errors import ObjectiveError
from shared.settings import make_folder

LITERALS = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, type(None))


def write_functions(functions: Sequence[Callable[..., Any]], folder: Path, stem: str) -> Path:
    """Write functions as an objective file, whose name tells what is in it.

    Raises:
        ObjectiveError: as `source_of`.
        ServiceError: the folder can't be written.
    """
    source = source_of(functions)
    make_folder(folder)
    path = folder / f"{stem}_{source_hash(source)[:8]}.py"
    path.write_text(source, encoding="utf-8")
    return path


def source_of(functions: Sequence[Callable[..., Any]]) -> str:
    """Source of a module with these functions, and with what they use of where they were written.

    That is: imports, other functions and classes written there, and constants.

    Raises:
        ObjectiveError: a function has no source, or uses a value that can't be written down.
    """
    module = _Module()
    for function in functions:
        module.define(function.__name__, function)
    return module.source()


class _Module:
    """Imports, constants and definitions by name, in the order in which they need each other."""

    def __init__(self) -> None:
        self._imports: dict[str, str] = {}
        self._body: dict[str, str] = {}

    def source(self) -> str:
        imports = "\n".join(sorted(self._imports.values()))
        body = "\n\n".join(text for text in self._body.values() if text)
        return f"{imports}\n\n{body}\n".lstrip()

    def define(self, name: str, written: Any) -> None:
        """Take in a function or a class, after what it uses."""
        if name in self._body:
            return
        source = _source(name, written)
        self._body[name] = ""  # it may use itself
        for used, value in _globals(written, source):
            self._use(used, value, by=name, beside=written.__module__)
        del self._body[name]
        self._body[name] = source

    def _use(self, name: str, value: Any, by: str, beside: str) -> None:
        """by: the function that uses it, of the module `beside`, which isn't there where the file is."""
        if line := _import(name, value, beside):
            self._imports[name] = line
        elif isinstance(value, FunctionType | type):
            self.define(name, value)
        elif _is_literal(value):
            self._body.setdefault(name, f"{name} = {value!r}")
        else:
            raise ObjectiveError(
                f"an objective must stand alone, since it travels as source, but `{by}` uses `{name}`, a "
                f"{type(value).__name__} that can't be written down; make it inside `{by}`"
            )


def _source(name: str, written: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(written)).rstrip()
    except (OSError, TypeError) as err:
        raise ObjectiveError(
            f"an objective travels as source, but that of `{name}` can't be found ({err}); "
            "write it in a cell or a file, or pass the file's path"
        ) from err


def _globals(written: Any, source: str) -> Iterator[tuple[str, Any]]:
    """Names that the source uses, with their values where it was written; those that have none are its own.

    Dotted ones too, where they are modules: `scipy.stats` is imported by that name.
    """
    scope = dict(vars(sys.modules.get(written.__module__, builtins))) | getattr(written, "__globals__", {})
    scope |= inspect.getclosurevars(written).nonlocals if isinstance(written, FunctionType) else {}
    nodes = [*ast.walk(ast.parse(source))]
    names = {node.id: None for node in nodes if isinstance(node, ast.Name)}
    own = {written.__name__, *dir(builtins)}
    yield from ((name, scope[name]) for name in names if name in scope and name not in own)
    dotted = {ast.unparse(node): None for node in nodes if isinstance(node, ast.Attribute)}
    yield from ((name, sys.modules[name]) for name in dotted if name in sys.modules and name.split(".")[0] in scope)


def _import(name: str, value: Any, beside: str) -> str:
    """The line that imports a value under a name, from the shortest path that has it; empty: no import has it."""
    if isinstance(value, ModuleType):
        plain = "." in name or value.__name__ == name
        return f"import {name}" if plain else f"import {value.__name__} as {name}"
    home, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if not isinstance(home, str) or not own or home == beside:
        return ""
    parts = home.split(".")
    for path in (".".join(parts[: i + 1]) for i in range(len(parts))):
        if getattr(sys.modules.get(path), own, None) is value:
            return f"from {path} import {own}" + (f" as {name}" if name != own else "")
    return ""


def _is_literal(value: Any) -> bool:
    if not isinstance(value, LITERALS):
        return False
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False
