"""Tables of figures: shown on the terminal, kept in `benchmarks/results/`."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from shared.training import threads

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("metaflow", "optuna", "mlflow", "scikit-learn", "torch", "xgboost")


@dataclass(frozen=True)
class Table:
    """Rows of figures under their column names."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    notes: Sequence[str] = field(default=())


def show(table: Table) -> None:
    printed = RichTable(*table.columns, title=table.title, title_justify="left")
    for row in table.rows:
        printed.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    console = Console()
    console.print(printed)
    for note in table.notes:
        console.print(note)


def keep(table: Table) -> None:
    """Write a table, with the machine it was measured on, to `results/<name>.json`."""
    content = asdict(table) | {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": threads.cores(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{table.name}.json").write_text(json.dumps(content, indent=2) + "\n")
