"""`python -m benchmarks.storage_docs`: `docs/storage.md` and its picture, from the last figures of the storages."""

import json
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.report import RESULTS
from benchmarks.storage import GRPC_OURS, OURS, SIZE

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def write() -> None:
    """Put the figures between the marks of the page, and draw trials per second by workers."""
    table = json.loads((RESULTS / "storage.json").read_text())
    page = DOCS / "storage.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{markdown(table)}\n{END}{after}")
    draw(table, DOCS / "storage.svg")


def markdown(table: dict[str, Any]) -> str:
    rows = [table["columns"], ["---"] * len(table["columns"])]
    rows += [[f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row] for row in table["rows"]]
    where = (
        f"{table['title']}; {table['cores']} cores, Optuna {table['packages']['optuna']}, {table['measured_at'][:10]}."
    )
    lines = (*(f"| {' | '.join(row)} |" for row in rows), "", where, *table["notes"])
    return "\n".join([recommendation(table), "", "![Trials per second by workers](storage.svg)", "", *lines])


def recommendation(table: dict[str, Any]) -> str:
    """Which storage, in a sentence: the fastest on one database at each number of workers."""
    speeds = {(row[0], int(row[1])): row[3] for row in table["rows"] if row[2] == f"{SIZE:,}"}
    ours, proxied = ({n: v for (name, n), v in speeds.items() if name == storage} for storage in (OURS, GRPC_OURS))
    pays = [workers for workers in ours if proxied[workers] > ours[workers]]
    if not pays:
        return (
            f"**No proxy has to be deployed**: up to {max(ours)} workers `{OURS}` alone is the fastest on PostgreSQL."
        )
    return f"**From {min(pays)} workers on a gRPC proxy over `{OURS}` is faster than it alone**; below that, no proxy."


def draw(table: dict[str, Any], path: Path) -> None:
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for storage in dict.fromkeys(row[0] for row in table["rows"]):
        points = [(int(row[1]), row[3]) for row in table["rows"] if row[0] == storage and row[2] == "1,000"]
        axes.plot(*zip(*points, strict=True), marker="o", label=storage)
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="trials per second")
    axes.set_xticks([1, 2, 4, 8, 16, 32], labels=["1", "2", "4", "8", "16", "32"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    write()
