"""The steps of data preparation: start → prepare → end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from metaflow import FlowSpec, card, current, step

from shared.flow.run import pathspec

if TYPE_CHECKING:
    from shared.domain import DatasetRef


class DataSteps(FlowSpec):
    """Make a dataset version of what the source holds. Artifacts: `dataset`, `unchanged`, `profile`, `drift`.

    `requested` is what the flows after it are asked for, by the flow's Parameter `request` or an event's payload.
    """

    @step
    def start(self) -> None:
        """Say what is prepared, and refuse a request that the flows after it would refuse."""
        from shared.flow.config import use_case_of
        from shared.flow.request import requested

        self.requested = requested(self)
        data = use_case_of(self).data
        print(f"source {data.source}, target {data.target}")
        self.next(self.prepare)

    @step
    def prepare(self) -> None:
        """Read the source, check and split its rows, and store them unless nothing changed."""
        from shared.data.prepare import prepare
        from shared.flow import platform
        from shared.flow.config import use_case_of
        from shared.flow.plan import use_case_tag
        from shared.storage.ledger import Ledger

        use_case, ledger = use_case_of(self), Ledger()
        prepared = prepare(use_case, ledger.newest_dataset(use_case.name), datetime.now(tz=UTC))
        if prepared.unchanged:
            ledger.see_dataset(prepared.ref)
        else:
            ledger.record_dataset(prepared.ref, run=pathspec())
            platform.register_dataset(self, prepared.ref)
        self.dataset, self.unchanged = prepared.ref, prepared.unchanged
        self.profile, self.drift = prepared.profile, prepared.drift
        fingerprint = f"fingerprint:{self.dataset.fingerprint[:12]}"
        current.run.add_tags([use_case_tag(use_case), fingerprint, *(["unchanged"] * self.unchanged)])
        print(summary(self.dataset, unchanged=self.unchanged))
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self) -> None:
        """Show the version: its rows, its target, its features, and what changed."""
        from shared.flow.charts import data

        current.card.extend(
            data.card(self.use_case.title, self.dataset, self.profile, self.drift, unchanged=self.unchanged)
        )


def summary(ref: DatasetRef, *, unchanged: bool) -> str:
    """One line on a dataset version for the log."""
    parts = f"{ref.rows['development']:,} development / {ref.rows['holdout']:,} holdout"
    since = f"unchanged since {ref.created_at:%Y-%m-%d %H:%M} UTC" if unchanged else f"written to {ref.uri}"
    return f"{sum(ref.rows.values()):,} rows, {parts}, fingerprint {ref.fingerprint[:12]}; {since}"
