"""What is started for what is due to follow by events."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.events.due import Due, first_flows
from shared.events.graph import Flow, Graph

GRAPH = Graph.of(
    Flow("Data", Path("d")),
    Flow("Left", Path("l"), frozenset({"Data"})),
    Flow("Right", Path("r"), frozenset({"Data"})),
    Flow("Both", Path("b"), frozenset({"Left", "Right"})),
)


@pytest.mark.parametrize(
    ("due", "started"),
    [
        ([], []),
        (["Both"], ["Both"]),  # all that it waits for is done
        (["Left"], ["Left", "Right"]),  # else Both, which waits for both events, would never start
        (["Left", "Right"], ["Left", "Right"]),
        (["Left", "Both"], ["Left", "Right"]),  # Both comes after Left
    ],
)
def test_the_first_flows_lead_to_all_that_is_due(due: list[str], started: list[str]):
    asked = [Due(GRAPH.flows[name], f"study of {name}", "it is due") for name in due]

    assert [flow.name for flow in first_flows(asked, GRAPH)] == started
