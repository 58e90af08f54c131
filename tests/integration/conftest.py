"""A small model of real rows, for tests of what keeps and serves models."""

from __future__ import annotations

import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.model import Member, Signature, System


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return load_iris(as_frame=True).data


@pytest.fixture(scope="module")
def system(rows) -> System:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, load_iris().target)
    return System(Signature(tuple(rows.columns), (4,), ("setosa", "versicolor", "virginica")), [Member("one", model)])
