"""Models that would run code, or aren't what was registered: in a real registry, refused by the loader and the server.

Each payload would make a file. That it would, if it were run, is tested too.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skops.io

from deployments.model_server.live import LiveModel
from shared.domain import ModelVersion
from shared.errors import RegistryError, UnloadableModelError
from shared.model import Member, System, save
from shared.registry import aliases, client
from shared.storage import records, services

pytestmark = pytest.mark.usefixtures("home")

NAME, FIRST = "iris", "artifacts/system/members/0/model"
Files = dict[str, bytes]


@dataclass
class Payload:
    """Makes a file when it is unpickled."""

    mark: Path

    def __reduce__(self):
        return os.system, (command(self.mark),)


def command(mark: Path) -> str:
    return f"touch {mark}"


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def calling_skops(mark: Path) -> bytes:
    """A skops file that calls `os.system` as if it were the constructor of a type."""
    content = json.dumps([command(mark)])
    arguments = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": content}
    call = {"__class__": "system", "__module__": "posix", "__loader__": "ConstructorFromReduceNode"}
    return archive({"schema.json": json.dumps({**call, "content": arguments, "protocol": 2}).encode()})


def older_skops(skops_file: bytes) -> bytes:
    parts = unpacked(skops_file)
    return archive({**parts, "schema.json": json.dumps({**json.loads(parts["schema.json"]), "protocol": 0}).encode()})


def archive(parts: Files, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, part in parts.items():
            file.writestr(name, part)
    return buffer.getvalue()


def unpacked(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def with_graph(pt2: bytes, change: Callable[[dict], None]) -> bytes:
    parts, path = unpacked(pt2), "archive/models/model.json"
    graph = json.loads(parts[path])
    change(graph)
    return archive({**parts, path: json.dumps(graph).encode()})


def sized_by_code(pt2: bytes, mark: Path) -> bytes:
    """A `.pt2` with a call for the number of rows, which sympy evaluates."""

    def change(graph: dict) -> None:
        rows = graph["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][0]["as_expr"]
        rows["expr_str"] = f"__import__('os').system({command(mark)!r})"

    return with_graph(pt2, change)


def calling(function: str, pt2: bytes, mark: Path) -> bytes:
    """A `.pt2` whose first operator is a function such as `torch.os.system`."""

    def change(graph: dict) -> None:
        call = {"name": "", "arg": {"as_string": command(mark)}, "kind": 1}
        node = {"target": function, "inputs": [call], "outputs": [], "metadata": {}, "name": "call"}
        graph["graph_module"]["graph"]["nodes"].insert(0, {**node, "is_hop_single_tensor_return": None})

    return with_graph(pt2, change)


def given(**content) -> dict:
    return {"name": "", "arg": content, "kind": 1}


def wrapping(pt2: bytes, *inputs: dict) -> bytes:
    """A `.pt2` that first calls what calls a function, by a line of Python that torch writes."""

    def change(graph: dict) -> None:
        inner, result = graph["graph_module"]["graph"], {"as_tensor": {"name": "call"}}
        values = inner["tensor_values"]
        values["call"] = next(value for name, value in values.items() if name.endswith("weight"))
        node = {"target": "torch.ops.higher_order.wrap_with_set_grad_enabled", "inputs": inputs, "outputs": [result]}
        inner["nodes"].insert(0, {**node, "metadata": {}, "name": "call", "is_hop_single_tensor_return": True})

    return with_graph(pt2, change)


def named_by_code(pt2: bytes, mark: Path) -> bytes:
    """A `.pt2` with Python for the name of an argument."""
    argument = {**given(as_string=command(mark)), "name": "torch.os.system, command", "kind": 2}
    return wrapping(pt2, given(as_bool=True), argument)


def handing_on(pt2: bytes, mark: Path) -> bytes:
    """A `.pt2` with an operator that makes a file, not as what is called, but as an argument."""
    operator = given(as_operator="torch.ops.aten.from_file.default")
    file = (given(as_string=str(mark)), given(as_bool=True), given(as_int=16))
    return wrapping(pt2, given(as_bool=True), operator, *file)


def with_pickled_constant(pt2: bytes, mark: Path) -> bytes:
    parts, constants = unpacked(pt2), "archive/data/constants/"
    config = {"config": {"x": {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}}
    parts[f"{constants}model_constants_config.json"] = json.dumps(config).encode()
    return archive({**parts, f"{constants}tensor_0": pickled(mark)})


@pytest.fixture(scope="module")
def network(system) -> System:
    from torch import manual_seed, nn

    manual_seed(0)
    return System(system.signature, [Member("one", nn.Linear(4, 3).eval())])


@pytest.fixture(scope="module")
def network_files(network) -> Files:
    return save(network)


@pytest.fixture(scope="module")
def files(system) -> Files:
    return save(system)


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "mark"


def register(files: Files, system: System, rows) -> ModelVersion:
    return client.register(
        NAME,
        files,
        use_case=NAME,
        example=rows[:3],
        predictions=system.predict(rows[:3]),
        metrics={},
        params={},
        lineage={},
    )


@pytest.fixture
def live(files, system, rows) -> LiveModel:
    """A server's model, with a good champion that is live."""
    good = register(files, system, rows)
    aliases.point(NAME, aliases.CHAMPION, good.version)
    model = LiveModel(NAME)
    model.look()
    assert (model.served.version.version, model.trouble) == (1, "")
    return model


def folder_of(version: ModelVersion) -> Path:
    from mlflow import MlflowClient

    registry = MlflowClient(services.mlflow_tracking_uri())
    return Path(registry.get_model_version(version.name, str(version.version)).source.removeprefix("file://"))


def assert_refused(version: ModelVersion, live: LiveModel, why: str) -> None:
    """By the loader, and by the server, which goes on with the version that was live."""
    with pytest.raises(UnloadableModelError, match=why):
        client.load_version(version)
    aliases.point(NAME, aliases.CHAMPION, version.version)
    live.look()
    assert live.served.version.version == 1
    assert live.trouble.startswith(f"version {version.version} is not let live: ")


def test_the_payloads_would_run(network_files, mark, monkeypatch):
    import torch

    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)  # which whoever loads a model sets for good

    pt2 = network_files["members/0/model.pt2"]
    skops_file = calling_skops(mark)
    for run in (
        lambda: pickle.loads(pickled(mark)),
        lambda: skops.io.loads(skops_file, trusted=skops.io.get_untrusted_types(data=skops_file)),
        lambda: torch.export.load(io.BytesIO(sized_by_code(pt2, mark))),
        lambda: torch.export.load(io.BytesIO(with_pickled_constant(pt2, mark))),
        lambda: torch.export.load(io.BytesIO(named_by_code(pt2, mark))).module()(torch.zeros(2, 4)),
        lambda: torch.export.load(io.BytesIO(handing_on(pt2, mark))).module()(torch.zeros(2, 4)),
    ):
        with suppress(AttributeError, EOFError, RuntimeError):  # what torch meets after it has run it
            run()
        assert mark.exists()
        mark.unlink()


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (lambda _, mark: pickled(mark), "a zip file"),
        (lambda _, mark: calling_skops(mark), r"must hold reviewed types only, but holds posix\.system"),
        (lambda skops_file, _: older_skops(skops_file), "must be of protocol 2 at least, but is of 0"),
        (lambda skops_file, _: archive(unpacked(skops_file), zipfile.ZIP_DEFLATED), "once each and unpacked"),
    ],
    ids=["a pickle", "a skops file that calls a function", "an old protocol", "a packed file, which may be a bomb"],
)
def test_a_skops_member_that_is_no_plain_one_is_refused_and_nothing_of_it_runs(
    attack, why, files, system, rows, live, mark
):
    path = "members/0/model.skops"
    assert_refused(register({**files, path: attack(files[path], mark)}, system, rows), live, why)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (with_pickled_constant, "its archive has archive/data/constants/"),
        (sized_by_code, r"but has \"__import__\('os'\)\.system"),
        (partial(calling, "torch.os.system"), r"but has 'torch\.os\.system' as 'target'"),
        (partial(calling, "torch.ops.aten.save.default"), r"but has 'torch\.ops\.aten\.save\.default' as 'target'"),
        (partial(calling, "torch.ops.aten.__class__.mro"), r"but has 'torch\.ops\.aten\.__class__\.mro' as 'target'"),
        (
            partial(calling, "torch.ops.aten._convert_indices_from_csr_to_coo.default"),
            r"but has 'torch\.ops\.aten\._conv",
        ),
        (partial(calling, "math.factorial"), r"but has 'math\.factorial' as 'target'"),
        (named_by_code, r"but has 'torch\.os\.system, command' as 'name'"),
        (handing_on, r"but has 'torch\.ops\.aten\.from_file\.default' as 'as_operator'"),
        (lambda _, mark: archive({"archive/data.pkl": pickled(mark)}), r"its archive has archive/data\.pkl"),
    ],
    ids=[
        "a pickled constant",
        "code as a size",
        "a call of the system",
        "a write",
        "what is no operator",
        "an operator that writes beyond its memory",
        "a number without end",
        "code as a name",
        "an operator that is handed on",
        "a pickled module",
    ],
)
def test_a_torch_member_with_more_than_a_graph_is_refused_and_nothing_of_it_runs(
    attack, why, network_files, network, rows, live, mark
):
    path = "members/0/model.pt2"
    assert_refused(register({**network_files, path: attack(network_files[path], mark)}, network, rows), live, why)
    assert not mark.exists()


@pytest.mark.parametrize("where", ["members", "calibrator"])
@pytest.mark.parametrize(
    "outside", ["../../elsewhere.skops", "members/0/../../../elsewhere.skops", "{tmp}/elsewhere.skops"]
)
def test_a_manifest_that_names_a_file_out_of_the_folder_is_refused(where, outside, files, system, rows, live, tmp_path):
    elsewhere = outside.format(tmp=tmp_path)
    (tmp_path / "elsewhere.skops").write_bytes(files["members/0/model.skops"])
    manifest = json.loads(files["manifest.json"])
    if where == "members":
        manifest["members"][0]["files"] = [elsewhere]
    manifest["calibrator"] = elsewhere if where == "calibrator" else None
    version = register({**files, "manifest.json": json.dumps(manifest).encode()}, system, rows)
    assert_refused(version, live, "must be inside its folder, but the manifest names")


@pytest.mark.parametrize(
    "manifest",
    [{"members": [{"kind": "pickle"}]}, {"members": 3}, {"signature": {"classes": [], "shell": []}}, {"weights": []}],
    ids=json.dumps,
)
def test_a_manifest_that_says_something_else_is_refused(manifest, files, system, rows, live):
    changed = json.dumps(json.loads(files["manifest.json"]) | manifest).encode()
    assert_refused(
        register({**files, "manifest.json": changed}, system, rows), live, "must be whole and as it was saved"
    )


def linked(file: Path) -> None:
    """The same content, by a link."""
    elsewhere = file.parent.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda folder, mark: (folder / f"{FIRST}.skops").write_bytes(pickled(mark)), f"changed: {FIRST}.skops"),
        (lambda folder, _: (folder / "served.py").write_text("raise SystemExit"), r"changed: served\.py"),
        (lambda folder, _: (folder / "input_example.json").unlink(), r"missing: input_example\.json"),
        (lambda folder, mark: (folder / f"{FIRST}.pkl").write_bytes(pickled(mark)), f"not on record: {FIRST}.pkl"),
        (lambda folder, _: linked(folder / "served.py"), r"made of plain files, but served\.py is a link"),
    ],
    ids=["a swapped model", "a swapped script", "a file that is gone", "a file more", "a link"],
)
def test_files_that_were_changed_after_the_registration_are_refused_by_name(
    change, why, files, system, rows, live, mark
):
    version = register(files, system, rows)
    change(folder_of(version), mark)
    assert_refused(version, live, why)
    assert not mark.exists()


def test_a_version_whose_registration_died_before_its_record_is_refused_until_it_is_trusted(
    files, system, rows, live, monkeypatch
):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "record", die)
        with pytest.raises(KeyboardInterrupt):
            register(files, system, rows)
    version = client.version(NAME, 2)
    assert_refused(version, live, f"evertune models trust {NAME} 2` records its files as they are now")

    client.trust(version, "ann")
    live.look()
    assert (live.served.version.version, live.trouble) == (2, "")
    np.testing.assert_array_equal(client.load_version(version).predict(rows), system.predict(rows))
    (folder_of(version) / "served.py").write_text("")
    with pytest.raises(UnloadableModelError, match=r"changed: served\.py"):
        client.load_version(version)


def test_what_is_on_record_is_not_trusted_anew(files, system, rows):
    version = register(files, system, rows)
    (folder_of(version) / "served.py").write_text("")
    with pytest.raises(RegistryError, match="must be put on record once"):
        client.trust(version, "ann")
