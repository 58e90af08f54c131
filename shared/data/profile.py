"""What a dataset version looks like, in numbers that fit a card, and how far it moved from the previous one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from shared.domain import Table

MOST_FEATURES = 500
MOST_PIXELS = 24
MOST_VALUES = 12
BINS = 20
PER_CLASS = 2

Json = dict[str, Any]


def profile(rows: pd.DataFrame, target: pd.Series, table: Table, counts: Mapping[str, int]) -> Json:
    """JSON-able profile of all rows: their number, missing values, the target's and the features' distributions.

    Of images, it keeps the pixels that vary most and a few samples of each class.

    Args:
        rows: features `(n_rows, n_features)`.
        target: labels as text, or values `(n_rows,)`.
        counts: rows per split.
    """
    missing = rows.isna().sum()
    return {
        "rows": {"all": len(rows), **counts},
        "columns": list(table.features),
        "missing": {str(name): int(n) for name, n in missing[missing > 0].items()},
        "target": _describe(target, most=max(len(table.classes), MOST_VALUES)),
        "features": {name: _describe(rows[name]) for name in _profiled(rows, table)},
        "samples": _samples(rows, target) if is_image(table) else [],
        "shape": list(table.shape),
    }


def drift(rows: pd.DataFrame, target: pd.Series, previous: Json) -> Json:
    """How the rows moved from a previous profile: rows more or fewer, columns come or gone, each column's shift.

    A shift is a population stability index (see `stability_index`): below 0.1 stable, above 0.25 shifted.
    """
    was, now = previous["columns"], list(rows.columns)
    return {
        "rows": len(rows) - previous["rows"]["all"],
        "added": [name for name in now if name not in set(was)],
        "removed": [name for name in was if name not in set(now)],
        "target": _shift(target, previous["target"]),
        "features": {n: _shift(rows[n], described) for n, described in previous["features"].items() if n in rows},
    }


def stability_index(expected: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Population stability index of two distributions over the same bins: Σ (actual − expected) · ln(actual/expected).

    Shares below 1e-4 count as 1e-4. Source: Siddiqi, "Credit Risk Scorecards", Wiley 2006, chapter 8, also for the
    rule of thumb (0.1 and 0.25); of equal distributions it is about χ²(bins − 1) · (1/n + 1/m), so small data
    move by chance (Yurdakul, "Statistical properties of population stability index", 2018).
    """
    e, a = (np.maximum(np.asarray(shares, dtype=np.float64), 1e-4) for shares in (expected, actual))
    return float(((a - e) * np.log(a / e)).sum())


def is_image(table: Table) -> bool:
    return len(table.shape) == 3


def _shift(column: pd.Series, was: Json) -> float:
    return stability_index(was["shares"], _shares(column, was))


def _profiled(rows: pd.DataFrame, table: Table) -> list[str]:
    if not is_image(table):
        return list(table.features[:MOST_FEATURES])
    varying = np.argsort(-rows.to_numpy(dtype=np.float32).var(axis=0), kind="stable")[:MOST_PIXELS]
    return [table.features[i] for i in sorted(varying)]


def _describe(column: pd.Series, most: int = MOST_VALUES) -> Json:
    """A column in figures. `shares` are those of its bins (deciles, or values and the rest), the missing ones last."""
    described = _describe_numbers(column) if _is_number(column) else _describe_values(column, most)
    return described | {"shares": _shares(column, described)}


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _describe_numbers(column: pd.Series) -> Json:
    x = _finite(column)
    if not len(x):
        return {"kind": "numbers", "edges": [0.0, 1.0], "counts": [0], "cuts": []}
    counts, edges = np.histogram(x, bins=_bins(x))
    figures = {"min": x.min(), "max": x.max(), "mean": x.mean(), "std": x.std()}
    return {
        "kind": "numbers",
        **{name: float(value) for name, value in figures.items()},
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "cuts": np.unique(np.quantile(x, np.arange(0.1, 1, 0.1))).tolist(),
    }


def _bins(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Edges of the histogram: one bin per value where the values are few whole numbers, else equal widths."""
    low, high = x.min(), x.max()
    if high - low < BINS and not (x % 1).any():
        return np.arange(low - 0.5, high + 1)
    return np.linspace(low, high, BINS + 1) if low < high else np.array([low - 0.5, low + 0.5])


def _describe_values(column: pd.Series, most: int) -> Json:
    counts = column.dropna().astype(str).value_counts().head(most)
    named = {str(name): int(n) for name, n in counts.items()}
    return {"kind": "values", "distinct": int(column.nunique()), "counts": named}


def _shares(column: pd.Series, bins: Json) -> list[float]:
    """Share of the rows in each described bin, in the bin of all other values (text only), and missing."""
    if bins["kind"] == "numbers":
        x = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        codes, n_bins = np.searchsorted(bins["cuts"], x[~np.isnan(x)], side="right"), len(bins["cuts"]) + 1
    else:
        named = pd.Index(list(bins["counts"]), dtype=object)
        codes, n_bins = named.get_indexer(column.dropna().astype(str).astype(object)), len(named) + 1
        codes = np.where(codes < 0, len(named), codes)
    counts = np.append(np.bincount(codes, minlength=n_bins), len(column) - len(codes))
    return [float(share) for share in counts / max(len(column), 1)]


def _finite(column: pd.Series) -> npt.NDArray[np.float64]:
    x: npt.NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return x[np.isfinite(x)]


def _samples(rows: pd.DataFrame, target: pd.Series) -> list[Json]:
    """The first images of each class: `pixels` in the order of the features, from 0 (dark) to 255."""
    heads = target.groupby(target.to_numpy(), sort=True).head(PER_CLASS).sort_values(kind="stable")
    images = rows.loc[heads.index[: PER_CLASS * MOST_VALUES]].to_numpy(dtype=np.float64)
    bright = (255 * images / max(float(images.max()), 1e-9)).round().astype(int)
    return [{"label": str(label), "pixels": pixels.tolist()} for label, pixels in zip(heads, bright, strict=False)]
