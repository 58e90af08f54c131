"""What a study has so far, for those who look at it from outside of a flow."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.config import did_you_mean
from shared.domain import TrialSummary, model_name
from shared.errors import FlowError
from shared.flow.hpo import check_registry, start_anew
from shared.storage.ledger import Ledger, LedgerEntry

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from metaflow import Run


@dataclass(frozen=True)
class Result:
    """What tuning has led to, so far or in the end.

    study: its name. state: due, claimed (at work), done or failed, as `evertune status` shows it. best: the best trial;
    None as long as there is none. trials: one row per trial, as `optuna.Study.trials_dataframe` gives them. model: URI
    of the model version that was made of the best trial. pathspec: of the run. tuned_by: of the run that has worked on
    the study last. All but pathspec are None of `data_prep`, and as long as a run that was triggered hasn't begun.
    """

    pathspec: str | None
    study: str | None = None
    state: str | None = None
    best: TrialSummary | None = None
    trials: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    model: str | None = None
    tuned_by: str | None = None
    namespace: str | None = None

    @property
    def idle(self) -> bool:
        """Whether the run found its study done, and had nothing to do."""
        return self.study is not None and self.tuned_by != self.pathspec

    @property
    def run(self) -> Run | None:
        """Metaflow's run; None where there is none yet.

        Raises:
            MetaflowNotFound: this machine's folder, or the metadata service, doesn't know it.
        """
        from metaflow import Run, namespace

        if self.namespace is not None:
            namespace(self.namespace)
        return Run(self.pathspec, _namespace_check=self.namespace is not None) if self.pathspec else None


def read_result(use_case: str, variant: str, run: str | None, namespace: str | None, *, begins: bool = False) -> Result:
    """Of the study that a run has begun, or else of the one that was asked for last. begins: it may do so yet.

    Raises:
        FlowError: no study of the variant was ever asked for.
    """
    entries = studies(use_case, variant)
    own = next((entry for entry in entries if run and entry.run == run), None)
    if own is None and begins:
        return Result(run, namespace=namespace)
    if not entries:
        raise FlowError(f"no {variant} study of {use_case!r} was ever asked for; start one with run()")
    entry = own or entries[0]
    outcome = entry.outcome if entry.state == "done" else {}
    trials, best = look(entry.study)
    return Result(
        pathspec=run or entry.run,
        study=entry.study,
        state=entry.state,
        best=TrialSummary.model_validate(outcome["top"][0]) if outcome else best,
        trials=trials,
        model=f"models:/{outcome['model']}/{outcome['version']}" if outcome.get("version") else None,
        tuned_by=entry.run,
        namespace=namespace,
    )


def find_study(use_case: str, variant: str, name: str) -> LedgerEntry:
    """A study on record.

    Raises:
        FlowError: there is none of that name.
    """
    found = {entry.study: entry for entry in studies(use_case, variant)}
    if name not in found:
        raise FlowError(
            f"a {variant} study of {use_case!r} is needed, but {name!r} is none{did_you_mean(name, [*found])}; "
            f"on record: {', '.join(found) or 'none'}"
        )
    return found[name]


def studies(use_case: str, variant: str) -> list[LedgerEntry]:
    """The studies of a variant, the one that was asked for last first."""
    found = [entry for entry in Ledger().entries(use_case) if entry.variant == variant]
    return sorted(found, key=lambda entry: entry.asked_at, reverse=True)


def forget(entry: LedgerEntry) -> None:
    """Delete a study: its trials, that it was done, and the model versions that were made of it and aren't live.

    Raises:
        RegistryError, ServiceError: the registry or the database can't be reached.
    """
    from shared.registry import client, promotion

    check_registry()  # first: without the study its versions aren't found again
    model = model_name(entry.use_case, entry.variant)
    start_anew(entry.study)
    promotion.point_challenger(model)
    for version in client.versions(model):
        if version.lineage.get("study") == entry.study:
            promotion.retire(version)


def look(name: str) -> tuple[pd.DataFrame, TrialSummary | None]:
    """A study's trials, as `optuna.Study.trials_dataframe` gives them, and the best one so far.

    No rows before its first trial. No best one before the first is complete, nor of several directions: there the flow
    picks one in the end.
    """
    import optuna
    import pandas as pd

    from shared.storage import PostgresStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with closing(PostgresStorage()) as storage:
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            return pd.DataFrame(), None
        return study.trials_dataframe(), None if len(study.directions) > 1 else _best(study)


def _best(study: optuna.Study) -> TrialSummary | None:
    from shared.tuning.select import summary

    try:
        return summary(study.best_trial)
    except ValueError:  # none is complete
        return None
