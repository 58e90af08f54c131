"""An objective written as functions, in a notebook or a script, as the file that it would be."""

from __future__ import annotations

import ast
import inspect
import linecache
import math
import symtable
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from shared.domain import source_hash
from shared.errors import ObjectiveError
from shared.settings import make_folder

INSTALLED = ("site-packages", "dist-packages")


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

    That is: what was imported there, other functions and classes written there or in modules that aren't installed, and
    constants. The same functions are the same source in each process.

    Raises:
        ObjectiveError: a function has no source, or uses a value that can't be written down.
    """
    module = _Module()
    for function in functions:
        if not isinstance(function, FunctionType) or not function.__name__.isidentifier():
            raise ObjectiveError(
                f"an objective is written by `def`, as `build(trial)`, but {function!r} isn't; wrap it in one"
            )
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
        """Take in a function or a class, after what it uses. name: by which it is used."""
        own = written.__name__
        if own not in self._body:
            source = _source(written)
            self._body[own] = ""  # it may use itself
            for used, value in _globals(written, source):
                self._use(used, value, by=own)
            del self._body[own]
            self._body[own] = source
        if name != own:
            self._body.setdefault(name, f"{name} = {own}")

    def _use(self, name: str, value: Any, by: str) -> None:
        if line := _import(name, value):
            self._imports[name] = line
        elif isinstance(value, FunctionType | type) and value.__name__.isidentifier():
            self.define(name, value)
        elif _is_literal(value):
            self._body.setdefault(name, f"{name} = {value!r}")
        else:
            raise ObjectiveError(
                f"an objective must stand alone, since it travels as source, but `{by}` uses `{name}`, a "
                f"{type(value).__name__} that can't be written down; make it inside `{by}`"
            )


def _source(written: Any) -> str:
    try:
        found = inspect.getsource(written)
    except (OSError, TypeError) as err:
        if found := _class_in_a_cell(written):
            return found
        raise ObjectiveError(
            f"an objective travels as source, but that of `{written.__name__}` can't be found ({err}); "
            "write it into a file, and pass the file's path"
        ) from err
    return textwrap.dedent(found).rstrip()


def _class_in_a_cell(written: Any) -> str:
    """Source of a class of a notebook, which Python can't find by itself: its methods know their cell."""
    if not isinstance(written, type) or not (methods := _methods(written)):
        return ""
    lines = linecache.getlines(methods[0].__code__.co_filename)
    nodes = ast.walk(ast.parse("".join(lines)))
    found = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == written.__name__]
    if not found:
        return ""
    first = min([found[-1].lineno, *(decorator.lineno for decorator in found[-1].decorator_list)])
    return textwrap.dedent("".join(lines[first - 1 : found[-1].end_lineno])).rstrip()


def _globals(written: Any, source: str) -> Iterator[tuple[str, Any]]:
    """Names that the source takes from where it was written, with their values there.

    Dotted ones too, where they are modules: `scipy.stats` is imported by that name.
    """
    scope = _scope(written)
    names = sorted(_free(symtable.symtable(source, "objective", "exec")) & scope.keys() - {written.__name__})
    yield from ((name, scope[name]) for name in names)
    attributes = {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    dotted = sorted(name for name in attributes & sys.modules.keys() if name.split(".")[0] in names)
    yield from ((name, sys.modules[name]) for name in dotted)


def _scope(written: Any) -> Mapping[str, Any]:
    """All names where a function or a class was written."""
    if isinstance(written, FunctionType):
        return {**written.__globals__, **inspect.getclosurevars(written).nonlocals}
    module = sys.modules.get(written.__module__)
    return {**(vars(module) if module else {}), **next((m.__globals__ for m in _methods(written)), {})}


def _methods(written: type) -> list[FunctionType]:
    return [method for method in vars(written).values() if isinstance(method, FunctionType)]


def _free(table: symtable.SymbolTable) -> set[str]:
    """Names that are used in a source and don't come from it: neither parameters nor local variables."""
    if table.get_type() == "module":
        names = {s.get_name() for s in table.get_symbols() if s.is_referenced() and not s.is_assigned()}
    else:
        names = {s.get_name() for s in table.get_symbols() if s.is_global()}
    return names.union(*map(_free, table.get_children()))


def _import(name: str, value: Any) -> str:
    """The line that imports a value under a name, from the shortest path that has it; empty: no import has it."""
    if isinstance(value, ModuleType):
        if not _is_installed(value.__name__):
            return ""
        plain = "." in name or value.__name__ == name
        return f"import {name}" if plain else f"import {value.__name__} as {name}"
    home = getattr(value, "__module__", None) or type(value).__module__
    own = getattr(value, "__name__", None) or name
    if not isinstance(home, str) or not _is_installed(home):
        return ""
    parts = home.split(".")
    for path in (".".join(parts[: i + 1]) for i in range(len(parts))):
        if getattr(sys.modules.get(path), own, None) is value:
            return f"from {path} import {own}" + (f" as {name}" if name != own else "")
    return ""


def _is_installed(module: str) -> bool:
    """Whether each process of a flow can import it: it isn't just beside the notebook."""
    top = module.partition(".")[0]
    found = sys.modules.get(top)
    places = [getattr(found, "__file__", None) or "", *getattr(found, "__path__", [])]
    return top == "shared" or top in sys.stdlib_module_names or any(part in p for p in places for part in INSTALLED)


def _is_literal(value: Any) -> bool:
    """Whether its `repr` is the same everywhere, and makes it anew. A set's order isn't."""
    if isinstance(value, dict):
        return type(value) is dict and all(map(_is_literal, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_literal, value))
    if isinstance(value, float):
        return type(value) is float and math.isfinite(value)
    return value is None or type(value) in (bool, int, str, bytes)
