"""Profiles fit a card and JSON; drift tells growth from a shift; the card shows both."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from shared.data.profile import MOST_FEATURES, MOST_PIXELS, drift, profile, stability_index
from shared.domain import DatasetRef, Table
from shared.flow.charts import data as charts
from shared.flow.charts.theme import as_spec

N = 400


def rows(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": rng.integers(18, 90, N), "income": rng.lognormal(10, 1, N), "city": ["a", "b"] * 200})
    frame["member"] = rng.random(N) < 0.5
    return frame.assign(visits=np.where(rng.random(N) < 0.25, np.nan, rng.poisson(3, N)))


def table(frame: pd.DataFrame, *, classes: tuple = ("no", "yes"), shape: tuple[int, ...] = ()) -> Table:
    task = "classification" if classes else "regression"
    dtypes = tuple(str(dtype) for dtype in frame.dtypes)
    shape = shape or (frame.shape[1],)
    return Table(features=tuple(frame), dtypes=dtypes, target="left", task=task, classes=classes, shape=shape)


def profiled(frame: pd.DataFrame, **changes) -> dict:
    target = pd.Series(["no", "yes", "no", "no"] * (len(frame) // 4), name="left")
    return profile(frame, target, table(frame, **changes), {"development": 300, "holdout": 100})


def test_a_profile_is_json_and_counts_what_is_missing():
    found = json.loads(json.dumps(profiled(rows())))
    assert found["missing"] == {"visits": int(rows()["visits"].isna().sum())}
    assert found["target"]["counts"] == {"no": 300, "yes": 100}
    assert found["features"]["city"]["counts"] == {"a": 200, "b": 200}
    assert sum(found["features"]["age"]["counts"]) == N
    assert found["features"]["age"]["mean"] == pytest.approx(rows()["age"].mean())


@pytest.mark.parametrize(
    "column",
    [[None] * N, [np.inf, np.nan] * (N // 2), [7] * N, [1e150, -1e150] * (N // 2), ["x"] * N, [True, None] * (N // 2)],
    ids=["empty", "infinite", "constant", "huge", "one word", "truth or nothing"],
)
def test_odd_columns_have_a_profile_and_a_picture(column):
    found = profiled(pd.DataFrame({"odd": column}))
    assert sum(found["features"]["odd"]["shares"]) == pytest.approx(1)
    assert as_spec(charts.features(found["features"], {}))["concat"]


def test_wide_tables_and_images_are_capped():
    wide = pd.DataFrame(np.random.default_rng(0).random((8, MOST_FEATURES + 50))).rename(columns=str)
    assert len(profiled(wide)["features"]) == MOST_FEATURES
    images = profiled(wide.iloc[:, :100], shape=(1, 10, 10))
    assert len(images["features"]) == MOST_PIXELS
    assert [image["label"] for image in images["samples"]] == ["no", "no", "yes", "yes"]
    assert max(max(image["pixels"]) for image in images["samples"]) <= 255


def test_images_keep_the_pixels_that_vary_most():
    flat = pd.DataFrame(np.zeros((8, 36))).rename(columns=str)
    flat["17"] = [0, 9] * 4
    assert "17" in profiled(flat, shape=(1, 6, 6))["features"]


def test_the_same_rows_have_not_moved():
    moved = drift(rows(), pd.Series(["no", "yes", "no", "no"] * 100), profiled(rows()))
    assert moved["rows"] == 0
    assert moved["target"] == 0
    assert set(moved["features"].values()) == {0.0}


@pytest.mark.parametrize("column", ["age", "income", "city", "visits"])
def test_a_shifted_column_stands_out(column):
    shifted = {"age": 95, "income": 1e9, "city": "c", "visits": np.nan}
    frame = rows(seed=1)
    frame.loc[: N // 2, column] = shifted[column]
    moved = drift(frame, pd.Series(["no", "yes", "no", "no"] * 100), profiled(rows()))
    assert moved["features"][column] > 0.25
    assert all(index < 0.15 for name, index in moved["features"].items() if name != column)


def test_columns_that_come_and_go_are_named():
    frame = rows().drop(columns="age").assign(height=1.0)
    moved = drift(frame, pd.Series(["no"] * N), profiled(rows()))
    assert (moved["added"], moved["removed"]) == (["height"], ["age"])


def test_a_column_that_turns_to_text_has_moved():
    moved = drift(rows().assign(age="old"), pd.Series(["no"] * N), profiled(rows()))
    assert moved["features"]["age"] > 1


def test_the_stability_index_is_the_published_sum():
    assert stability_index([0.5, 0.5], [0.4, 0.6]) == pytest.approx(-0.1 * np.log(0.8) + 0.1 * np.log(1.2))


def ref(frame: pd.DataFrame, **changes) -> DatasetRef:
    return DatasetRef(
        use_case="churn", fingerprint="f" * 64, uri="/data", table=table(frame, **changes), folds=5, source="csv:x.csv",
        rows={"development": 300, "holdout": 100}, created_at=datetime(2026, 1, 31, tzinfo=UTC), previous="e" * 64,
    )  # fmt: skip


def test_the_card_shows_what_moved_and_what_is_missing():
    frame = rows(seed=1).assign(income=1.0)
    found = profiled(frame)
    moved = drift(frame, pd.Series(["no", "yes", "no", "no"] * 100), profiled(rows()))
    said = charts.headline(ref(frame), moved, unchanged=False)
    assert said.endswith("It follows `eeeeeeeeeeee`; 1 of 5 features shifted.")
    assert charts.missing_rows(found)[0][0] == "visits"
    assert as_spec(charts.shifts(moved))["title"]["text"] == "Since the previous version: shifted"
    components = charts.card("Churn", ref(frame), found, moved, unchanged=False)
    assert json.dumps([component.render() for component in components])


def test_the_card_of_unchanged_data_says_so():
    frame = rows()
    assert charts.headline(ref(frame), None, unchanged=True).startswith("Nothing changed: version `ffffffffffff`")


def test_the_card_of_images_has_a_sample_per_class():
    frame = pd.DataFrame(np.random.default_rng(0).random((N, 16))).rename(columns=str)
    found = profiled(frame, shape=(1, 4, 4))
    spec = as_spec(charts.samples(found["samples"], found["shape"]))
    pictures = spec["data"]["values"]
    assert {picture["class"] for picture in pictures} == {"no", "yes"}
    assert all(picture["url"].startswith("data:image/png;base64,") for picture in pictures)
