"""The chain on Argo Workflows, deployed: verified, compiled, compared with what is there, created in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from shared.events.argo.cluster import Cluster, Target, delete, deployed
from shared.events.argo.template import Change, change, check_events
from shared.events.argo.verify import check_database, check_settings, read_cluster
from shared.events.configs import write_configs
from shared.events.due import check_members
from shared.events.graph import Graph
from shared.settings import project_root

Planned = Callable[[Target, Sequence[Change]], None]


def deploy_chain(
    graph: Graph, targets: Sequence[Target], *, apply: bool = True, on_planned: Planned = lambda *_: None
) -> None:
    """Deploy what differs from what is there. Nothing changes before all targets are verified and compiled.

    apply: False only looks. on_planned: told of each target and its changes, before they are made.

    Raises:
        ConfigError, ObjectiveError: a use case, or a setting of Metaflow, would fail on the cluster.
        FlowError: a flow doesn't compile, would wait for ever, or is refused by the cluster.
        ServiceError: the database or the cluster can't be reached.
    """
    verify(graph, targets)
    with _clusters(targets) as clusters:
        planned = [(cluster, plan(graph, cluster)) for cluster in clusters]
        for cluster, changes in planned:
            on_planned(cluster.target, changes)
            if apply:
                _apply(graph, cluster, changes)


def undeploy_chain(targets: Sequence[Target], *, on_planned: Planned = lambda *_: None) -> None:
    """Take all flows of the targets away; runs that have begun go on. on_planned: as of `deploy_chain`.

    Raises:
        FlowError: Metaflow or the cluster refuses it.
        ServiceError: the cluster can't be reached.
    """
    for target in targets:
        changes = [Change(there.template, "deleted") for there in deployed(target.scope).values()]
        on_planned(target, changes)
        for gone in changes:
            delete(gone.template)


def verify(graph: Graph, targets: Sequence[Target]) -> None:
    """Refuse what would fail on the cluster, without asking it.

    Raises:
        ConfigError, ObjectiveError, ServiceError: as `deploy_chain` does.
    """
    for target in targets:
        check_members(target.use_case, graph)
    check_settings([target.use_case for target in targets], read_cluster())
    check_database()


def plan(graph: Graph, cluster: Cluster) -> list[Change]:
    """What deploying changes, in the order of the chain; the flows are compiled, and their events verified.

    Raises:
        FlowError, ServiceError: as `deploy_chain` does.
    """
    there = deployed(cluster.target.scope)
    templates = {template.flow: template for template in cluster.compile([*graph.flows.values()])}
    check_events(graph, templates)
    return [change(template, there.get(name)) for name, template in templates.items()]


def _apply(graph: Graph, cluster: Cluster, changes: Sequence[Change]) -> None:
    """Deploy what changes, each flow after those that it waits for."""
    settled = [change.template.flow for change in changes if change.kind == "unchanged"]
    while flows := graph.ready(settled, settled):
        cluster.create(flows)
        settled += [flow.name for flow in flows]


@contextmanager
def _clusters(targets: Sequence[Target]) -> Iterator[list[Cluster]]:
    """The targets' flows, their Configs in files that last as long as this does."""
    with TemporaryDirectory(prefix="evertune-deploy-") as folder:
        files = [write_configs(target.use_case, Path(mkdtemp(dir=folder))) for target in targets]
        yield [Cluster(target, project_root(), configs) for target, configs in zip(targets, files, strict=True)]
