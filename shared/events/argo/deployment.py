"""The chain on Argo Workflows, deployed: verified, compiled, compared with what is there, created in its order."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from shared.events.argo.cluster import Cluster, Target, delete, deployed
from shared.events.argo.template import Change, change, check_events
from shared.events.argo.verify import check_database, check_settings, read_cluster
from shared.events.configs import write_configs
from shared.events.due import check_members
from shared.events.graph import ROOT_FLOW, Graph
from shared.settings import project_root

Planned = Callable[[Target, Sequence[Change]], None]


def deploy_chain(
    project: Graph, targets: Sequence[Target], *, apply: bool = True, on_planned: Planned = lambda *_: None
) -> None:
    """Deploy what differs from what is there. Nothing changes before all targets are verified and compiled.

    project: all of its flows. The chain among them is deployed; what is there of flows that are gone is deleted.
    apply: False only looks. on_planned: told of each target and its changes, before they are made.

    Raises:
        ConfigError, ObjectiveError: a use case, or a setting of Metaflow, would fail on the cluster.
        FlowError: a flow doesn't compile, would wait for ever, or is refused by the cluster.
        ServiceError: the database or the cluster can't be reached.
    """
    chain = project.chain(ROOT_FLOW)
    verify(chain, targets)
    with _clusters(targets) as clusters:
        planned = [(cluster, plan(chain, cluster, keep=project.flows)) for cluster in clusters]
        for cluster, changes in planned:
            on_planned(cluster.target, changes)
            if apply:
                _apply(chain, cluster, changes)


def undeploy_chain(targets: Sequence[Target], *, on_planned: Planned = lambda *_: None) -> None:
    """Take all flows of the targets away; runs that have begun go on. on_planned: as of `deploy_chain`.

    Raises:
        FlowError: Metaflow or the cluster refuses it.
        ServiceError: the cluster can't be reached.
    """
    for target in targets:
        changes = [Change(there.template, "deleted") for there in deployed(target.scope).values()]
        on_planned(target, changes)
        _delete(changes)


def verify(chain: Graph, targets: Sequence[Target]) -> None:
    """Refuse what would fail on the cluster, without asking it.

    Raises:
        ConfigError, ObjectiveError, ServiceError: as `deploy_chain` does.
    """
    for target in targets:
        check_members(target.use_case, chain)
    check_settings([target.use_case for target in targets], read_cluster())
    check_database()


def plan(chain: Graph, cluster: Cluster, keep: Container[str] = ()) -> list[Change]:
    """What deploying changes, in the order of the chain; the flows are compiled, and their events verified.

    keep: names of flows outside of the chain that stay; what else is there is deleted.

    Raises:
        FlowError, ServiceError: as `deploy_chain` does.
    """
    there = {found.template.name: found for found in deployed(cluster.target.scope).values()}
    templates = {template.flow: template for template in cluster.compile([*chain.flows.values()])}
    check_events(chain, templates)
    wanted = [change(template, there.pop(template.name, None)) for template in templates.values()]
    gone = [Change(left.template, "deleted") for left in there.values() if left.template.flow not in keep]
    return wanted + gone


def _apply(chain: Graph, cluster: Cluster, changes: Sequence[Change]) -> None:
    """Deploy what changes, each flow after those that it waits for. What goes does so last, and no event is lost."""
    settled = [change.template.flow for change in changes if change.kind == "unchanged"]
    while flows := chain.ready(settled, settled):
        cluster.create(flows)
        settled += [flow.name for flow in flows]
    _delete(changes)


def _delete(changes: Sequence[Change]) -> None:
    for gone in changes:
        if gone.kind == "deleted":
            delete(gone.template)


@contextmanager
def _clusters(targets: Sequence[Target]) -> Iterator[list[Cluster]]:
    """The targets' flows, their Configs in files that last as long as this does."""
    with TemporaryDirectory(prefix="evertune-deploy-") as folder:
        files = [write_configs(target.use_case, Path(mkdtemp(dir=folder))) for target in targets]
        yield [Cluster(target, project_root(), configs) for target, configs in zip(targets, files, strict=True)]
