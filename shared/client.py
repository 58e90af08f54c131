"""`HPORunner`: tunes from a script or a notebook, on this machine or by what is deployed on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast

from shared.config import ComputeConfig, Part, UseCase, did_you_mean, load_use_case
from shared.errors import ConfigError, FlowError
from shared.events.background import Background
from shared.events.graph import Graph, read_graph
from shared.flow.environment import prepare_environment
from shared.flow.request import Request
from shared.flow.results import Result, find_study, forget, read_result
from shared.settings import project_root, settings
from shared.tuning.objective import STORED, Objective

if TYPE_CHECKING:
    from shared.events.argo.trigger import Triggered
    from shared.events.chain import Chain
    from shared.events.graph import Flow
    from shared.events.runner import ChainRunner
    from shared.storage.ledger import LedgerEntry

STARTS = Lock()

Function = Callable[..., Any]
Code = str | Path | Function | Sequence[Function]


class Tuning(Background):
    """A flow that was started on this machine: `status`, `run`, `progress`, `log()`, `cancel()`, and its result."""

    def __init__(self, runner: ChainRunner, read: Callable[[str | None], Result]) -> None:
        super().__init__(runner)
        self._read = read

    @property
    def best(self) -> float | None:
        """The best value so far, of the first direction."""
        return self.progress.best if self.progress else None

    async def result(self) -> Result:
        """Wait for the end. Cancelling the waiting cancels the run.

        Raises:
            FlowError: it failed, or was cancelled.
        """
        await self.ended()
        return await asyncio.to_thread(self._read, self.run)


class HPORunner:
    """Tunes one flow of a use case.

        runner = HPORunner("breast_cancer", n_trials=20)
        result = runner.run()
        result.best.params, result.trials

    use_case: name of `configs/<use_case>.toml`, its path, or a `UseCase`. flow: its folder in flows/: `classical_hpo`,
    `deep_hpo`, `system_tune` or `data_prep`. objective: in place of the config's, the path of a file, or functions,
    such as `build` or `[build, fit_plan]`, whose source is written to a file. n_trials, workers: in place of the
    config's. request: more of this kind, also for the flows that follow, such as `{"system": {"n_trials": 5}}`.
    compute_pool: of the pods. branch, production: of the deployment that `trigger` starts, by default your own branch.
    namespace: Metaflow's, in which runs are looked up; None is all.

    Raises:
        ConfigError: there is no such config or flow.
        FlowError: the flow, or the config, doesn't know what is asked for.
        ObjectiveError: the objective breaks the contract, or can't be written to a file.
    """

    def __init__(
        self,
        use_case: str | Path | UseCase,
        flow: str = "classical_hpo",
        *,
        objective: Code | None = None,
        n_trials: int | None = None,
        workers: int | Literal["auto"] | None = None,
        request: Mapping[str, Any] | None = None,
        compute_pool: str | None = None,
        branch: str | None = None,
        production: bool = False,
        namespace: str | None = None,
    ) -> None:
        prepare_environment()
        self._use_case = use_case if isinstance(use_case, UseCase) else load_use_case(use_case)
        self._graph = read_graph(project_root())
        self._flow = self._find(flow)
        self._branch, self._production, self._namespace = branch, production, namespace
        self._compute_pool = compute_pool
        self._run: str | None = None
        self._triggered: Triggered | None = None
        self._request = Request.of(request or {})
        self._ask(n_trials=n_trials, workers=workers)
        self._request.applied(self._use_case)
        self._objective = self._load(objective) if objective is not None else None

    def run(self, *, with_: Sequence[str] = (), study: str | None = None) -> Result:
        """Tune on this machine, or with `with_=["kubernetes"]` by pods that this machine starts, and wait for the end.

        with_: Metaflow's decorators for all steps. study: as `resume` has it.

        Raises:
            FlowError: the flow failed, or another chain of the use case is running on this machine.
        """
        started = self.start(with_=with_, study=study)
        started.wait()
        return self._concluded(started.run)

    async def run_async(self, *, with_: Sequence[str] = (), study: str | None = None) -> Tuning:
        """`run`, without waiting for the end: awaited, it gives the handle of what has been started.

        Raises:
            FlowError: another chain of the use case is running on this machine.
        """
        return await asyncio.to_thread(self.start, with_=with_, study=study)

    def start(
        self,
        *,
        with_: Sequence[str] = (),
        study: str | None = None,
        on_change: Callable[[Chain], None] = lambda _: None,
    ) -> Tuning:
        """`run_async` where there is no event loop. on_change: called with the chain's record after each event."""
        from shared.events.argo.verify import check_database, check_settings, read_cluster
        from shared.events.chain import refuse_a_second_chain
        from shared.events.runner import ChainRunner

        if any(decorator.partition(":")[0] == "kubernetes" for decorator in with_):
            check_settings([self._pooled()], read_cluster(), deployed=False)
            check_database()
        elif self._compute_pool:
            raise ConfigError(f"a compute pool is of pods, but {self._compute_pool!r} is asked of none; leave it out")
        parameters = self._parameters(study)
        runner = ChainRunner(
            self._pooled(),
            Graph.of(replace(self._flow, upstreams=frozenset())),
            root=project_root(),
            parameters=parameters,
            options={"decospecs": list(with_)},
            watch_signals=False,
            on_change=on_change,
        )
        with STARTS:  # one after the other, each on record when the next one looks
            refuse_a_second_chain(self._use_case.name)
            return Tuning(runner, self._concluded)

    def trigger(self, *, deploy: bool = False, study: str | None = None) -> Triggered:
        """Start the flow where it is deployed, and return at once. `data_prep` is started by the event `new_data`.

        deploy: the chain first, where it differs from what is deployed. study: as `resume` has it.

        Raises:
            FlowError: it isn't deployed; an event is published whether that is so or not.
            ServiceError: the cluster or the pods' database can't be reached; of `data_prep`, Argo Events' webhook.
        """
        from shared.events.argo.cluster import Target
        from shared.events.argo.deployment import deploy_chain
        from shared.events.argo.trigger import publish, submit
        from shared.events.argo.verify import check_database

        if self._compute_pool and not deploy:
            raise ConfigError(
                f"a compute pool is part of what is deployed, but {self._compute_pool!r} is asked of one run; use "
                "trigger(deploy=True), or name it in [compute.*] and run `evertune deploy`"
            )
        if self._flow.variant:
            check_database()  # the pods' one: where an objective's source goes, and a result comes from
        target = Target(self._pooled(), self._branch, self._production)
        if deploy:
            deploy_chain(self._graph, [target])
        parameters = self._parameters(study)
        if self._flow.variant is None:
            return publish(target, parameters)
        self._triggered = submit(target, self._flow.name, parameters)
        self._run = self._triggered.run
        return self._triggered

    def resume(self, study: str, *, with_: Sequence[str] = ()) -> Result:
        """Go on with a study, by the objective and on the dataset version that it has; see `run`.

        One that is done is tuned on only where more trials are asked for than it has.

        Raises:
            FlowError: there is no such study of this flow, or the config asks another question by now.
        """
        return self.run(with_=with_, study=study)

    def result(self) -> Result:
        """What the run that was started last has led to, or else the study that was asked for last, so far.

        Raises:
            FlowError: no study of the flow was ever asked for.
        """
        if self._flow.variant is None:
            return Result(self._run, namespace=self._namespace)
        begins = self._triggered is not None and self._triggered.status == "running"
        return read_result(self._use_case.name, self._flow.variant, self._run, self._namespace, begins=begins)

    def forget(self, study: str) -> None:
        """Delete a study of the flow, its trials, and the model versions that were made of it and aren't live.

        Raises:
            FlowError: there is no such study.
        """
        if self._flow.variant is None:
            raise FlowError(f"{self._flow.name} tunes nothing, so there is no study to forget")
        forget(find_study(self._use_case.name, str(self._flow.variant), study))

    def _concluded(self, run: str | None) -> Result:
        self._run, self._triggered = run, None
        return self.result()

    def _find(self, folder: str) -> Flow:
        flows = {flow.path.parent.name: flow for flow in self._graph.flows.values()}
        if folder not in flows:
            raise ConfigError(
                f"`flow` must be a folder of flows/, but is {folder!r}{did_you_mean(folder, [*flows])}; "
                f"there are: {', '.join(flows)}"
            )
        variant = flows[folder].variant
        if variant and getattr(self._use_case, variant) is None:
            raise ConfigError(
                f"{folder} tunes what configs/{self._use_case.name}.toml says in [{variant}], but there is no such "
                "table; add it, or take another flow"
            )
        return flows[folder]

    def _ask(self, **asked: Any) -> None:
        """Ask for more of the flow's own variant."""
        variant, names = self._flow.variant, [name for name, value in asked.items() if value is not None]
        if names and variant is None:
            raise FlowError(
                f"{self._flow.name} tunes nothing, but is asked for {', '.join(names)}; ask it of the flows that "
                'follow, by request={"classical": {"n_trials": 10}}'
            )
        if variant:
            self._request = self._request.asking(variant, **asked)

    def _load(self, code: Code) -> Objective:
        """The objective of a file or of functions, checked against the config."""
        from shared.tuning.functions import write_functions
        from shared.tuning.study import check_objective

        name, variant = self._use_case.name, self._flow.variant
        if variant not in self._use_case.members:
            raise FlowError(f"{self._flow.name} of {name!r} has no objective of its own; leave `objective` out")
        if not isinstance(code, str | Path):
            functions = [code] if callable(code) else code
            code = write_functions(functions, settings().home / "objectives", f"{name}_{variant}")
        objective = Objective.load(code)
        check_objective(self._use_case, variant, getattr(self._use_case, variant), objective)
        return objective

    def _pooled(self) -> UseCase:
        """The use case, with the compute pool that is asked for."""
        if self._compute_pool is None:
            return self._use_case
        part, tables = cast("Part", self._flow.variant or "data"), self._use_case.compute
        table = tables.get(part, ComputeConfig()).model_copy(update={"compute_pool": self._compute_pool})
        return self._use_case.model_copy(update={"compute": {**tables, part: table}})

    def _parameters(self, study: str | None) -> dict[str, str]:
        """The flow's Parameters; the objective's source is on record then. study: to go on with."""
        if study and self._flow.variant is None:
            raise FlowError(f"{self._flow.name} tunes nothing, so it can't go on with {study!r}; leave the study out")
        entry = find_study(self._use_case.name, str(self._flow.variant), study) if study else None
        request = self._request
        if digest := self._source(entry):
            request = request.asking(str(self._flow.variant), objective=STORED + digest)
        if entry:
            self._check_goes_on(entry, request)
        text = request.text()
        return ({"request": text} if text else {}) | ({"dataset": entry.fingerprint} if entry else {})

    def _source(self, entry: LedgerEntry | None) -> str | None:
        """Hash of the objective's source on record: the one that was given, or that of a study to go on with."""
        if self._objective:
            from shared.storage.ledger import Ledger

            return Ledger().save_source(self._objective.source)
        if entry is None or entry.variant == "system":
            return None
        from shared.flow.replay import read_study

        return read_study(entry)[0].objective_hash

    def _check_goes_on(self, entry: LedgerEntry, request: Request) -> None:
        """What the flow would do is to go on with the study.

        Raises:
            FlowError: it is to tune another one.
        """
        from shared.events.due import plan_of

        plan = plan_of(request.applied(self._use_case, self._flow.variant), self._flow, entry.fingerprint)
        if plan.study.name != entry.study:
            raise FlowError(
                f"{entry.study} can't go on, since the objective, or metric, directions or folds of "
                f"configs/{self._use_case.name}.toml, have changed: they make it {plan.study.name}; restore them"
            )
