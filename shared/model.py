"""The model that Evertune registers: fitted members, their weights, a calibrator; saved natively, loaded without unpickling.

This file imports nothing of Evertune, so that its source can travel with a registered model ("models from code").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Signature:
    """Names of the raw columns in order, the shape of one row as a tensor, the labels in code order (none: regression)."""

    features: tuple[str, ...]
    shape: tuple[int, ...]
    classes: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Member:
    """One fitted model of the system.

    estimator: fitted, with scikit-learn's interface on frames; or a `torch.nn.Module` in eval mode (`float32
    (n_rows, *shape)` → logits `(n_rows, n_classes)`, or values `(n_rows,)` or `(n_rows, 1)`).
    preprocessing: fitted transformer of the raw frame to one with the same columns, or None.
    """

    name: str
    estimator: Any
    preprocessing: Any = None

    def scores(self, X: pd.DataFrame, signature: Signature) -> np.ndarray:
        """Class probabilities `(n_rows, n_classes)` in code order, or values `(n_rows,)`."""
        raise NotImplementedError


@dataclass(frozen=True)
class System:
    """Members blended by `weights` (they sum to 1), then calibrated. `predict` takes raw rows as a frame."""

    signature: Signature
    members: Sequence[Member]
    weights: Sequence[float] = (1.0,)
    calibrator: Any = None

    def scores(self, X: pd.DataFrame) -> np.ndarray:
        """Probabilities `(n_rows, n_classes)` in code order, or values `(n_rows,)`."""
        raise NotImplementedError

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """Labels (not codes) `(n_rows,)`, or values `(n_rows,)`."""
        raise NotImplementedError


def save(system: System) -> dict[str, bytes]:
    """The system as native files, by relative path: `manifest.json`, skops, XGBoost's UBJSON, `torch.export`."""
    raise NotImplementedError


def load(folder: str) -> System:
    """The system saved in a folder."""
    raise NotImplementedError
