"""The chain's graph: what may start when, and what a failure stops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import FlowError
from shared.events.graph import Flow, Graph, read_graph

REPOSITORY = Path(__file__).parents[2]


def flow(name: str, *upstreams: str) -> Flow:
    return Flow(name, Path(f"flows/{name.lower()}/flow.py"), frozenset(upstreams))


@pytest.fixture
def diamond() -> Graph:
    return Graph.of(flow("System", "Classical", "Deep"), flow("Deep", "Prep"), flow("Classical", "Prep"), flow("Prep"))


def names(flows: list[Flow]) -> list[str]:
    return sorted(f.name for f in flows)


def test_the_flows_of_this_project_declare_the_chain():
    graph = read_graph(REPOSITORY).chain("DataPrepFlow")

    assert {name: set(flow.upstreams) for name, flow in graph.flows.items()} == {
        "DataPrepFlow": set(),
        "ClassicalHPOFlow": {"DataPrepFlow"},
        "DeepHPOFlow": {"DataPrepFlow"},
        "SystemTuneFlow": {"ClassicalHPOFlow", "DeepHPOFlow"},
    }
    assert {flow.variant for flow in graph.flows.values()} >= {"classical", "deep"}
    assert all({"use_case", "project_config"} <= flow.configs for flow in graph.flows.values())


def test_flows_come_after_what_they_wait_for(diamond: Graph):
    first, *_, last = diamond.flows

    assert (first, last) == ("Prep", "System")


@pytest.mark.parametrize(
    ("finished", "started", "expected"),
    [
        ([], [], ["Prep"]),
        ([], ["Prep"], []),  # it still runs
        (["Prep"], ["Prep"], ["Classical", "Deep"]),  # side by side
        (["Prep", "Classical"], ["Prep", "Classical", "Deep"], []),  # one of the two is not enough
        (["Prep", "Classical", "Deep"], ["Prep", "Classical", "Deep"], ["System"]),
        (["Prep", "Classical", "Deep"], ["Prep", "Classical", "Deep", "System"], []),  # once only
    ],
)
def test_a_flow_is_ready_when_all_that_it_waits_for_has_finished(diamond: Graph, finished, started, expected):
    assert names(diamond.ready(finished, started)) == expected


@pytest.mark.parametrize(
    ("failed", "stopped"), [("Prep", ["Classical", "Deep", "System"]), ("Deep", ["System"]), ("System", [])]
)
def test_a_failure_stops_everything_downstream_and_nothing_else(diamond: Graph, failed, stopped):
    assert sorted(diamond.downstream_of(failed)) == stopped


def test_a_chain_leaves_out_flows_that_wait_for_others_too():
    graph = Graph.of(
        flow("Prep"), flow("Other"), flow("Mine", "Prep"), flow("Both", "Prep", "Other"), flow("Late", "Both")
    )

    assert [*graph.chain("Prep").flows] == ["Prep", "Mine"]


def test_a_chain_needs_its_first_flow():
    with pytest.raises(FlowError, match=r"begins with DataPrepFlow, but there are only Prep; add that flow"):
        Graph.of(flow("Prep")).chain("DataPrepFlow")


@pytest.mark.parametrize(
    ("flows", "message"),
    [
        ([], r"no flows/<name>/flow.py here"),
        ([flow("A", "B"), flow("B", "A")], r"must not wait for each other, but \w → \w → \w"),
        ([flow("A"), flow("B", "C")], r"flows/b/flow.py: .* but C is none; it has: A, B"),
        (
            [flow("A"), Flow("A", Path("flows/a2/flow.py"))],
            r"must be unique, but A is in flows/a/flow.py and in flows/a2",
        ),
    ],
)
def test_declarations_that_make_no_chain_are_refused(flows, message):
    with pytest.raises(FlowError, match=message):
        Graph.of(*flows)


def test_a_flow_that_cant_be_imported_is_named(tmp_path: Path):
    path = tmp_path / "flows" / "broken" / "flow.py"
    path.parent.mkdir(parents=True)
    path.write_text("import a_package_that_is_not_installed\n")

    with pytest.raises(
        FlowError, match=r"broken/flow.py: must import .*a_package_that_is_not_installed.*; try `python"
    ):
        read_graph(tmp_path)


def test_upstreams_of_another_project_or_branch_count_by_their_flow(tmp_path: Path):
    path = tmp_path / "flows" / "late" / "flow.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from metaflow import FlowSpec, step, trigger_on_finish\n"
        "@trigger_on_finish(flows=['p.prod.Early', {'name': 'Late'}])\n"
        "class Self(FlowSpec):\n"
        "    @step\n    def start(self): self.next(self.end)\n"
        "    @step\n    def end(self): pass\n"
    )

    with pytest.raises(FlowError, match=r"but Early, Late is none"):
        read_graph(tmp_path)


def test_reading_flows_leaves_torch_export_importable() -> None:
    code = "import shared.events.metaflow_api, torch._dynamo"
    subprocess.run([sys.executable, "-c", code], check=True)
