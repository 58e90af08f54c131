"""Dataset versions on disk: they come back as they were, are written once, and say so when they can't be."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from shared.config import UseCase, load_use_case
from shared.data.prepare import Prepared, in_memory, prepare
from shared.data.store import is_complete, load_dataset, read_blob, read_profile, write_blob
from shared.domain import DatasetRef
from shared.errors import DataError
from shared.settings import settings

MONDAY, TUESDAY = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC)
ROWS = pd.DataFrame(
    {
        "amount": np.arange(120.0) / 7,
        "city": ["Paris", None, "Berlin"] * 40,
        "member": [True, False] * 60,
        "count": np.arange(120, dtype="int16"),
        "left": ["no", "no", "yes"] * 40,
    }
)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A project with its files and its home in a folder of the test's own."""
    (tmp_path / "obproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EVERTUNE_DATA_ROOT", raising=False)
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def use_case(frame: pd.DataFrame = ROWS, **data) -> UseCase:
    frame.to_parquet("rows.parquet")
    data = {"source": "parquet:rows.parquet", "target": "left", **data}
    tree = {"name": "churn", "title": "Churn", "classical": {"objective": "objectives/churn.py"}}
    return UseCase.model_validate({**tree, "data": data, "tuning": {"metric": "neg_log_loss", "folds": 3}})


def prepared(frame: pd.DataFrame = ROWS, previous: DatasetRef | None = None, **data) -> Prepared:
    return prepare(use_case(frame, **data), previous, TUESDAY if previous else MONDAY)


def test_a_version_comes_back_as_it_was():
    ref = prepared().ref
    parts = [load_dataset(ref), load_dataset(ref, "holdout")]
    assert [len(part.y) for part in parts] == [ref.rows["development"], ref.rows["holdout"]]
    rows = pd.concat([part.X.assign(left=np.array(ref.table.classes)[part.y]) for part in parts])
    back = rows.sort_values("count").reset_index(drop=True)
    pd.testing.assert_frame_equal(back, ROWS.astype({"left": back["left"].dtype}))
    assert (parts[1].fold == -1).all()
    assert set(parts[0].fold) == {0, 1, 2}
    assert DatasetRef.model_validate_json(Path(ref.uri, "manifest.json").read_text()) == ref


def test_what_is_stored_is_what_is_tried_out_in_memory():
    stored, tried = load_dataset(prepared().ref), in_memory(use_case())
    pd.testing.assert_frame_equal(stored.X, tried.X)
    assert (stored.y == tried.y).all()
    assert (stored.fold == tried.fold).all()


def test_the_order_of_the_source_changes_nothing():
    first, second = prepared().ref, prepared(ROWS.sample(frac=1, random_state=1)).ref
    assert first == second
    pd.testing.assert_frame_equal(load_dataset(first).X, in_memory(use_case(ROWS[::-1])).X)


def test_text_columns_are_ready_for_the_encoders():
    X = load_dataset(prepared().ref).X[["city"]]
    assert OneHotEncoder(sparse_output=False).fit_transform(X).shape == (len(X), 3)
    assert np.isnan(OrdinalEncoder().fit_transform(X)).any()


def test_regression_keeps_its_values():
    digits = prepare(load_use_case_of("diabetes"), None, MONDAY).ref
    data = load_dataset(digits)
    assert data.y.dtype == np.float64
    assert data.ref.table.classes == ()
    assert data.y.max() > 300


def load_use_case_of(name: str) -> UseCase:
    return load_use_case(Path(__file__).parents[2] / "configs" / f"{name}.toml")


def test_unchanged_rows_are_not_written_again():
    first = prepared()
    written = Path(first.ref.uri, "development.parquet").stat().st_mtime_ns
    second = prepared(ROWS.astype({"count": "float64"}).sample(frac=1, random_state=2), previous=first.ref)
    assert second.unchanged
    assert (second.ref, second.drift, second.profile) == (first.ref, None, first.profile)
    assert Path(first.ref.uri, "development.parquet").stat().st_mtime_ns == written


def test_growth_makes_a_version_in_which_no_row_has_moved():
    first = prepared(ROWS[:80])
    second = prepared(ROWS, previous=first.ref)
    assert not second.unchanged
    assert second.ref.previous == first.ref.fingerprint
    assert second.drift is not None
    assert second.drift["rows"] == 40
    before, after = (placed(version.ref) for version in (first, second))
    assert (after.loc[before.index] == before).all()


def test_unchanged_rows_are_checked_against_a_new_metric():
    rare = ROWS.assign(left=ROWS["left"].where(~ROWS["count"].between(3, 7), "maybe"))  # no row of them is in fold 0
    first = prepared(rare)
    config = use_case(rare)
    ranked = config.model_copy(update={"tuning": config.tuning.model_copy(update={"metric": "roc_auc_ovr"})})
    with pytest.raises(DataError, match=r"needs rows of 3 classes to give a score, but fold 0 of 3 lacks maybe"):
        prepare(ranked, first.ref, TUESDAY)


def placed(ref: DatasetRef) -> pd.Series:
    parts = [load_dataset(ref), load_dataset(ref, "holdout")]
    return pd.concat([pd.Series(part.fold, index=part.X["count"]) for part in parts])


def test_a_time_split_is_remembered():
    ref = prepared(ROWS, target="left", time="count").ref
    data = load_dataset(ref)
    assert data.ordered
    assert "count" not in data.X
    assert len(list(data.splits())) == 3
    assert data.X["amount"].max() < load_dataset(ref, "holdout").X["amount"].min()


@pytest.mark.parametrize("name", ["development.parquet", "holdout.parquet", "profile.json", "manifest.json"])
def test_a_lost_file_is_written_again(name: str):
    first = prepared().ref
    Path(first.uri, name).unlink()
    assert not is_complete(first)
    second = prepared(previous=first)
    assert not second.unchanged
    assert is_complete(second.ref)
    assert second.ref.previous is None


def test_half_a_file_is_no_version_and_loading_it_says_so():
    ref = prepared().ref
    file = Path(ref.uri, "development.parquet")
    file.write_bytes(file.read_bytes()[:200])
    assert not is_complete(ref)
    with pytest.raises(DataError, match=r"development\.parquet, but it can't be read .*; run DataPrepFlow again"):
        load_dataset(ref)


def test_a_missing_file_says_how_to_get_it_back():
    ref = prepared().ref
    Path(ref.uri, "holdout.parquet").unlink()
    with pytest.raises(DataError, match="or point EVERTUNE_DATA_ROOT to where the version is"):
        load_dataset(ref, "holdout")
    Path(ref.uri, "profile.json").write_text("{")
    with pytest.raises(DataError, match=r"must have a whole file .*profile\.json"):
        read_profile(ref)


def test_the_data_root_may_be_a_uri_or_a_relative_folder(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    for root, folder in ((f"file://{workplace}/store", workplace / "store"), ("near", workplace / "near")):
        monkeypatch.setenv("EVERTUNE_DATA_ROOT", root)
        settings.cache_clear()
        ref = prepared().ref
        assert (folder / "churn" / ref.fingerprint / "manifest.json").is_file()
        assert len(load_dataset(ref).y) == ref.rows["development"]


def test_a_folder_that_cannot_be_written_is_named(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    (workplace / "file").touch()
    monkeypatch.setenv("EVERTUNE_DATA_ROOT", str(workplace / "file"))
    settings.cache_clear()
    with pytest.raises(DataError, match=r"must go to a folder that can be written, but .*; set EVERTUNE_DATA_ROOT to"):
        prepared()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else():
    ref = prepared().ref
    write_blob(ref, "scores", b"old")
    with pytest.raises(TypeError):
        write_blob(ref, "scores", "text, not bytes")  # type: ignore[arg-type]
    assert read_blob(ref, "scores") == b"old"
    assert [path.name for path in Path(ref.uri, "blobs").iterdir()] == ["scores"]


def test_blobs_are_kept_beside_the_version():
    ref = prepared().ref
    assert read_blob(ref, "oof/abc") is None
    write_blob(ref, "oof/abc", b"one")
    write_blob(ref, "oof/abc", b"two")
    assert read_blob(ref, "oof/abc") == b"two"
    assert [path.name for path in Path(ref.uri, "blobs", "oof").iterdir()] == ["abc"]


def test_images_without_the_internet_say_what_to_do(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nothing answers
    monkeypatch.setattr("urllib.request._opener", None)  # urllib keeps its first proxies for the whole process
    with pytest.raises(
        DataError, match=r"(?s)torchvision:FashionMNIST is downloaded at its first use, but that failed"
    ) as err:
        in_memory(load_use_case_of("fashion_mnist"))
    assert "connect this machine to the internet once" in str(err.value)
    assert str(settings().home / "downloads") in str(err.value)
