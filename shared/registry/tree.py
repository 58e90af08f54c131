"""Lineage as a tree of sentences, for the terminal and for the card; nothing is looked up here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import groupby
from typing import TYPE_CHECKING, Any

from shared.registry.lineage import is_known
from shared.storage.records import ModelRecord

if TYPE_CHECKING:
    from rich.tree import Tree

SHOWN = ("scikit-learn", "xgboost", "torch", "numpy", "evertune")  # of the packages


@dataclass(frozen=True)
class Branch:
    """A line, and what is below it."""

    text: str
    below: Sequence[Branch] = ()


def drawn(branch: Branch) -> Tree:
    """A tree for a console, or for a page in letters of one width."""
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(escape(branch.text), highlight=False)
    for below in branch.below:
        tree.add(drawn(below))
    return tree


def of_version(record: ModelRecord, members: Mapping[str, ModelRecord | None]) -> Branch:
    """What a version was made of. members: the versions that a system's members were registered as, where on record."""
    origin, root = record.lineage, f"{record.model} version {record.version}"
    if not is_known(origin):
        who = f" by {origin['trusted_by']}, {_when(record)}" if origin else ""
        return Branch(root, [Branch(f"what it was made of isn't on record: its files were trusted{who}")])
    runs = Branch(f"run {origin['runs']['made']}, {_when(record)}")
    upstream = [_member(name, origin, members.get(name)) for name in origin["upstream"]]
    return Branch(root, [runs, _study(origin), *upstream, _dataset(origin), _code(origin["environment"])])


def of_dataset(records: Iterable[ModelRecord]) -> list[Branch]:
    """What was made of each dataset version: its models, and their versions."""
    ordered = sorted(records, key=lambda r: (r.lineage["dataset"]["fingerprint"], r.model, r.version))
    return [
        Branch(
            f"dataset version {fingerprint[:12]}",
            [Branch(model, [_made(record) for record in made]) for model, made in groupby(of, lambda r: r.model)],
        )
        for fingerprint, of in groupby(ordered, lambda r: str(r.lineage["dataset"]["fingerprint"]))
    ]


def _made(record: ModelRecord) -> Branch:
    origin = record.lineage
    trial, study = origin["trial"]["number"], origin["study"]["name"]
    return Branch(f"version {record.version}: trial {trial} of {study}, run {origin['runs']['made']}")


def _study(origin: Mapping[str, Any]) -> Branch:
    trial, study, objective = origin["trial"], origin["study"], origin["objective"]
    source = [Branch(f"objective {objective['label']}, {objective['hash'][:12]}")] if objective else []
    return Branch(
        f"study {study['name']}, trial {trial['number']}",
        [Branch(f"parameters {_values(trial['params'])}"), Branch(f"seed {study['seed']}"), *source],
    )


def _member(name: str, origin: Mapping[str, Any], record: ModelRecord | None) -> Branch:
    """A member, with the run and the study of the version that its own flow has registered."""
    facts, choice = origin["upstream"][name], origin["trial"]["user_attrs"]["system"]["members"].get(name)
    used = f"weight {choice['weight']:.3g}" if choice else "not used"
    below = [Branch(f"parameters {_values(choice['params'])}")] if choice else []
    below += [Branch(f"objective {facts['objective']['label']}, {facts['objective']['hash'][:12]}")]
    below += [Branch(f"study {facts['study']}, best trial {facts['trial']}"), Branch(f"run {facts['run']}")]
    version = f", registered as {facts['model']} version {facts['version']}" if facts["version"] else ""
    environment = record.lineage.get("environment") if record else None
    return Branch(f"member {name}: {used}{version}", [*below, *([_code(environment)] if environment else [])])


def _dataset(origin: Mapping[str, Any]) -> Branch:
    dataset, run = origin["dataset"], origin["runs"].get("prepared")
    rows = ", ".join(f"{n} {split}" for split, n in dataset["rows"].items())
    before = dataset["previous"]
    return Branch(
        f"dataset version {dataset['fingerprint'][:12]}",
        [
            Branch(f"source {dataset['source']}", [Branch(file) for file in dataset["files"]]),
            Branch(f"rows: {rows}"),
            *([Branch(f"run {run}")] if run else []),
            *([Branch(f"after {before[:12]}")] if before else []),
        ],
    )


def _code(environment: Mapping[str, Any]) -> Branch:
    packages = environment["packages"]
    shown = {name: packages[name] for name in SHOWN if name in packages}
    return Branch(
        f"code at commit {environment['commit'][:12]}",
        [
            Branch(f"package lock {environment['lock'][:12] or 'unknown'}"),
            Branch(f"{len(packages)} packages: {', '.join(f'{name} {v}' for name, v in shown.items())}"),
            Branch(f"Python {environment['python']} on {environment['cpu']}"),
        ],
    )


def _when(record: ModelRecord) -> str:
    """PostgreSQL gives a time in the time zone of its session."""
    return f"{record.recorded_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _values(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in params.items()) or "none"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
