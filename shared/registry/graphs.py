"""Networks without torch's compiler: the graph of a `.pt2`, put together of torch's operators, as `torch.fx` runs it.

`torch.export.load` makes a module, too, but imports torch's compiler and sympy for it, which takes longer than torch.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from shared.model import archive_parts, exported

_SCHEMA = 8  # of torch's graphs: the version whose names and numbers stand here
_POSITIONAL, _KEYWORD = 1, 2
_NUMBERED = {  # what a number means, from 1 on
    "as_scalar_type": "uint8 int8 int16 int32 int64 float16 float32 float64 complex32 complex64 complex128 bool "
    "bfloat16",
    "as_memory_format": "contiguous_format channels_last channels_last_3d preserve_format",
    "as_layout": "sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc _mkldnn strided",
}


class _OtherGraphError(Exception):
    """A graph has more in it than calls of operators, such as a branch."""


def network(archive: bytes) -> Any:
    """The module of a checked `.pt2`: a graph that only calls operators is put together here, any other one by torch.

    The results are the same to the last bit.
    """
    try:
        return _module(archive_parts(archive))
    except _OtherGraphError:
        return exported(archive)


def _module(parts: Mapping[str, bytes]) -> Any:
    """The graph as a module that calls one operator after the other.

    Raises:
        _OtherGraphError: this graph needs more.
    """
    import torch

    saved = json.loads(parts["archive/models/model.json"])
    if saved["schema_version"]["major"] != _SCHEMA or parts["archive/byteorder"] != sys.byteorder.encode():
        raise _OtherGraphError
    calls, signature = saved["graph_module"]["graph"]["nodes"], saved["graph_module"]["signature"]
    graph, root = torch.fx.Graph(), torch.nn.Module()
    values, tensors = {}, _tensors(parts)
    for i, spec in enumerate(signature["input_specs"]):
        match spec:
            case {"user_input": {"arg": given}}:
                values[_name(given)] = graph.placeholder("rows")
            case {"parameter": given} | {"buffer": given} | {"tensor_constant": given}:
                (key,) = (given[key] for key in given if key.endswith("_name"))
                root.register_parameter(f"tensor_{i}", tensors[key])
                values[given["arg"]["name"]] = graph.get_attr(f"tensor_{i}")
            case _:
                raise _OtherGraphError
    for call in calls:
        _add(call, graph, values)
    match signature["output_specs"]:
        case [{"user_output": {"arg": result}}]:
            graph.output(values[_name(result)])
        case _:
            raise _OtherGraphError
    return torch.fx.GraphModule(root, graph)


def _tensors(parts: Mapping[str, bytes]) -> dict[str, Any]:
    """Parameters, buffers and constants by name. Those that share memory still do."""
    import torch

    found, memory = {}, {}
    for part, config in parts.items():
        if part.endswith("_config.json"):
            for name, entry in json.loads(config)["config"].items():
                path, facts = f"{part.rpartition('/')[0]}/{entry['path_name']}", entry["tensor_meta"]
                if path not in memory:
                    memory[path] = _flat(parts[path], facts["dtype"])
                sizes, strides = ([size["as_int"] for size in facts[key]] for key in ("sizes", "strides"))
                tensor = memory[path].as_strided(sizes, strides, facts["storage_offset"]["as_int"])
                # Also without gradients, attention is computed in another way by those that may have some.
                found[name] = torch.nn.Parameter(tensor, requires_grad=facts["requires_grad"])
    return found


def _flat(content: bytes, dtype: int) -> Any:
    """Raw memory as a tensor, at an address that suits torch's kernels."""
    import torch

    known = _constant("as_scalar_type", dtype)
    return torch.frombuffer(bytearray(content), dtype=known).clone() if content else torch.empty(0, dtype=known)


def _add(call: Mapping[str, Any], graph: Any, values: dict[str, Any]) -> None:
    """A call of an operator with arguments from `values`, where its results are put."""
    arguments: list[Any] = []
    keywords: dict[str, Any] = {}
    for given in call["inputs"]:
        value = _argument(given["arg"], values)
        if given["kind"] == _POSITIONAL and not keywords:
            arguments.append(value)
        elif given["kind"] == _KEYWORD and given["name"].isidentifier():  # it becomes Python
            keywords[given["name"]] = value
        else:
            raise _OtherGraphError
    result = graph.call_function(_operator(call["target"]), tuple(arguments), keywords)
    match call["outputs"]:
        case []:
            return
        case [{"as_tensors": [*tensors]}]:
            names = [tensor["name"] for tensor in tensors]
        case [one]:
            values[_name(one)] = result
            return
        case several:
            names = [_name(one) for one in several]
    values |= {name: graph.call_function(operator.getitem, (result, i)) for i, name in enumerate(names)}


def _name(argument: Mapping[str, Any]) -> str:
    """The name of a tensor, or of a number that isn't known before there are rows."""
    match argument:
        case {"as_tensor": {"name": str(name)}}:
            return name
        case {"as_sym_int": {"as_name": str(name)}} | {"as_sym_float": {"as_name": str(name)}}:
            return name
        case {"as_sym_bool": {"as_name": str(name)}}:
            return name
    raise _OtherGraphError


def _argument(given: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """What an operator is called with."""
    ((kind, content),) = given.items()
    match kind, content:
        case "as_none", _:
            return None
        case "as_int" | "as_bool" | "as_string" | "as_ints" | "as_bools", _:
            return content
        case "as_float", _:
            return float(content)  # what isn't finite is a text
        case "as_floats", _:
            return [float(value) for value in content]
        case "as_tensors", _:
            return [values[tensor["name"]] for tensor in content]
        case "as_optional_tensors" | "as_sym_ints" | "as_sym_floats" | "as_sym_bools", [*several]:
            return [_argument(one, values) for one in several]
        case "as_name", str(name):
            return values[name]
        case "as_sym_int" | "as_sym_float" | "as_sym_bool", _ if "as_name" not in content:
            return _argument(content, values)
        case "as_device", {"type": "cpu"}:
            return import_module("torch").device("cpu")
        case _ if kind in _NUMBERED:
            return _constant(kind, content)
    return values[_name(given)]


def _constant(kind: str, number: int) -> Any:
    """One of torch's constants."""
    names = _NUMBERED[kind].split()
    if not 0 < number <= len(names):
        raise _OtherGraphError
    return getattr(import_module("torch"), names[number - 1])


def _operator(function: str) -> Callable[..., Any]:
    """A function that a plain graph may name."""
    module, _, path = function.partition(".")
    if path.startswith("ops.higher_order"):  # its arguments are graphs
        raise _OtherGraphError
    found: Callable[..., Any] = operator.attrgetter(path)(import_module(module))
    return found
