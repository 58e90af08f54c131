"""Good sources are read alike; each bad one gets an error that says the rule, the value and the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shared.config import UseCase
from shared.data.prepare import in_memory
from shared.data.sources import as_pixels, read
from shared.errors import DataError

ROWS = pd.DataFrame({"a": np.arange(60.0), "b": ["x", "y", "z"] * 20, "left": ["no", "yes"] * 30})


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, where relative paths start."""
    (tmp_path / "obproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use_case(source: str, target: str = "left", metric: str = "neg_log_loss", folds: int = 3, **data) -> UseCase:
    tree = {"name": "churn", "title": "Churn", "classical": {"objective": "objectives/churn.py"}}
    data = {"source": source, "target": target, **data}
    return UseCase.model_validate({**tree, "data": data, "tuning": {"metric": metric, "folds": folds}})


def csv(frame: pd.DataFrame, name: str = "rows.csv") -> str:
    frame.to_csv(name, index=False)
    return f"csv:{name}"


def test_csv_parquet_and_globs_give_the_same_rows(project: Path):
    ROWS.to_parquet("rows.parquet")
    (project / "parts").mkdir()
    for i, part in enumerate((ROWS[:25], ROWS[25:])):
        part.to_csv(f"parts/{i}.csv", index=False)
        part.to_parquet(f"parts/{i}.parquet")
    whole = in_memory(use_case(csv(ROWS)))
    uri = f"parquet:file://{project}/parts/*.parquet"
    for source in ("parquet:rows.parquet", "csv:parts/*.csv", "parquet:parts", uri):
        other = in_memory(use_case(source))
        assert other.ref.fingerprint == whole.ref.fingerprint
        pd.testing.assert_frame_equal(other.X, whole.X)


def test_files_are_read_in_the_order_of_their_names_and_rows_takes_the_first(project: Path):
    (project / "parts").mkdir()
    ROWS[30:].to_csv("parts/2.csv", index=False)
    ROWS[:30].to_csv("parts/10.csv", index=False)
    assert read(use_case("csv:parts/*.csv", rows=40).data).frame["a"].tolist() == list(range(40))


def test_a_star_stays_in_its_folder_and_two_go_deeper(project: Path):
    (project / "parts" / "old").mkdir(parents=True)
    ROWS[:30].to_csv("parts/new.csv", index=False)
    ROWS[30:].to_csv("parts/old/old.csv", index=False)
    counts = [
        len(read(use_case(f"csv:{glob}").data).frame) for glob in ("parts/*.csv", "parts/*/*.csv", "parts/**/*.csv")
    ]
    assert counts == [30, 30, 60]


def test_a_column_that_is_whole_in_one_file_and_missing_in_the_next_is_one_column():
    csv(ROWS.assign(n=1)[:30], "0.csv")
    csv(ROWS.assign(n=[None] * 60, b=None)[30:], "1.csv")
    frame = read(use_case("csv:*.csv").data).frame
    assert frame["n"].isna().sum() == 30
    assert frame["b"].isna().sum() == 30


def test_categories_become_values_and_a_saved_index_is_left_out():
    shuffled = ROWS.assign(b=ROWS["b"].astype("category")).sample(frac=1, random_state=0)
    shuffled.to_parquet("rows.parquet")
    frame = read(use_case("parquet:rows.parquet").data).frame
    assert list(frame) == ["a", "b", "left"]
    assert frame["b"].dtype == ROWS["b"].dtype


def test_digits_keep_the_shape_of_an_image():
    table = in_memory(use_case("sklearn:digits", target="target")).ref.table
    assert table.shape == (1, 8, 8)
    assert table.features[9] == "pixel_1_1"
    assert table.classes == tuple(range(10))


def test_pixels_are_named_by_row_and_column_and_stored_channels_first():
    gray = as_pixels(np.arange(12).reshape(2, 2, 3), np.array([0, 1]))
    assert gray.shape == (1, 2, 3)
    assert gray.frame["pixel_1_2"].tolist() == [5, 11]
    color = as_pixels(np.arange(24).reshape(2, 2, 2, 3), np.array([0, 1]))
    assert color.shape == (3, 2, 2)
    assert color.frame["pixel_2_0_1"].tolist() == [5, 17]
    assert color.frame.columns[0] == "pixel_0_0_0"


def test_whole_numbered_classes_are_integers_however_they_are_stored():
    data = in_memory(use_case(csv(ROWS.assign(left=[0.0, 1.0] * 30))))
    assert data.ref.table.classes == (0, 1)
    assert set(data.y) == {0, 1}


def test_a_time_column_orders_the_folds_and_is_no_feature():
    days = pd.date_range("2026-01-01", periods=60).astype(str)
    data = in_memory(use_case(csv(ROWS.assign(day=days)), time="day"))
    assert data.ordered
    assert "day" not in data.X
    assert all(data.X["a"][train].max() < data.X["a"][valid].min() for train, valid in data.splits())


def test_repeated_rows_stay_in_one_fold():
    data = in_memory(use_case(csv(pd.concat([ROWS, ROWS.assign(left=ROWS["left"][::-1].to_numpy())]))))
    assert (data.X.assign(fold=data.fold).groupby("a")["fold"].nunique() == 1).all()


SOURCES = [
    ("an unknown scheme", "sklern:digits", "but is 'sklern:digits'; did you mean 'sklearn'?"),
    ("no scheme", "digits.csv", "the schemes are sklearn:<name>, torchvision:<name>, csv:<path or glob>"),
    ("an unknown data set", "sklearn:digit", "but is sklearn:digit; did you mean 'digits'?; valid here: breast_cancer"),
    ("an unknown image set", "torchvision:mnist", "valid here: CIFAR10, CIFAR100, FashionMNIST"),
    ("a file that isn't there", "csv:nowhere.csv", "must match at least one file, but nothing is at"),
    ("a glob that matches nothing", "parquet:nowhere/*.parquet", "relative paths start at the project's root"),
]


@pytest.mark.parametrize(("source", "message"), [case[1:] for case in SOURCES], ids=[case[0] for case in SOURCES])
def test_a_source_that_cannot_be_found_is_named(source: str, message: str):
    with pytest.raises(DataError) as err:
        in_memory(use_case(source))
    assert message in str(err.value)


def test_an_empty_file_is_refused(project: Path):
    (project / "empty.csv").touch()
    with pytest.raises(DataError, match=r"csv:empty\.csv must name readable csv files, but: Empty CSV file"):
        in_memory(use_case("csv:empty.csv"))


@pytest.mark.parametrize(("text", "column"), [("a,target\ncafé 2,1\n", "a"), ("café,target\n2,1\n", "caf\ufffd")])
def test_a_csv_that_is_not_utf8_is_refused_with_file_and_column(project: Path, text: str, column: str):
    (project / "latin.csv").write_text(text, encoding="latin-1")
    says = rf"must be UTF-8, but .*latin\.csv isn't in the column '{column}'; save it as UTF-8"
    with pytest.raises(DataError, match=says):
        in_memory(use_case("csv:latin.csv"))


def test_a_file_that_is_not_parquet_is_refused(project: Path):
    (project / "rows.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"parquet:rows\.parquet must name readable parquet files, but: "):
        in_memory(use_case("parquet:rows.parquet"))


def test_files_with_different_columns_are_refused():
    csv(ROWS, "0.csv")
    csv(ROWS.rename(columns={"b": "c"}), "1.csv")
    with pytest.raises(DataError, match=r"must have the same columns, but .*1\.csv differs from .*0\.csv in: b, c"):
        in_memory(use_case("csv:*.csv"))


def test_files_that_disagree_on_a_type_are_refused():
    csv(ROWS, "0.csv")
    csv(ROWS.assign(a="many"), "1.csv")
    with pytest.raises(DataError, match=r"must agree on the types of their columns, but .*; mend the odd file"):
        in_memory(use_case("csv:*.csv"))


def test_lists_in_a_column_are_refused():
    ROWS.assign(c=[[1, 2]] * 60).to_parquet("rows.parquet")
    with pytest.raises(DataError, match=r"one value per row, but 'c' holds list<.*>; flatten it"):
        in_memory(use_case("parquet:rows.parquet"))


FRAMES = [
    ("a header only", ROWS[:0], {}, "must give at least one row and one column, but csv:rows.csv gives 0 rows"),
    (
        "no target",
        ROWS,
        {"target": "lefd"},
        "configs/churn.toml: `data.target` must be a column of csv:rows.csv, but is 'lefd'; did you mean 'left'?; "
        "it has: a, b, left",
    ),
    ("no time", ROWS, {"time": "day"}, "`data.time` must be a column of csv:rows.csv, but is 'day'"),
    ("a time in words", ROWS, {"time": "b"}, "but 'b' holds text such as 'x'; write dates as 2026-01-31"),
    ("a target alone", ROWS[["left"]], {}, "must have a column besides target and time, but has only left"),
    ("our own column", ROWS.assign(__fold=1), {}, "__fold is the name of Evertune's own column; rename that"),
    ("one class", ROWS.assign(left="no"), {}, "needs at least 2 classes, but 'left' has only 'no' in all 60 rows"),
    ("fractions as classes", ROWS, {"target": "a"}, "each class must be in every training fold"),
    ("numbers as classes", ROWS.assign(a=ROWS["a"] + 0.5), {"target": "a"}, "holds fractions such as 0.5; take a reg"),
    ("text as numbers", ROWS, {"metric": "r2"}, "needs a numeric target, but 'left' holds text such as 'no'"),
    (
        "infinite values",
        ROWS.assign(a=[np.inf, *range(59)]),
        {"target": "a", "metric": "r2"},
        "the target must be finite, but 'a' is infinite in 1 rows",
    ),
    (
        "missing targets",
        ROWS.assign(left=["no", None, "yes"] * 20),
        {},
        "`data.target` must have a value in every row, but 'left' is missing in 20 of 60 rows",
    ),
    ("a lonely class", ROWS.assign(left=["rare"] + ["no"] * 59), {}, "trained without rare; use fewer folds"),
    (
        "too few rows",
        ROWS[:8],
        {"folds": 8, "metric": "r2", "target": "a"},
        "each of the 8 folds needs at least 2 rows",
    ),
    ("too small a holdout", ROWS, {"holdout": 0.0001}, "`data.holdout` = 0.0001 must hold out at least one row"),
]


@pytest.mark.parametrize(
    ("frame", "changes", "message"), [case[1:] for case in FRAMES], ids=[case[0] for case in FRAMES]
)
def test_rows_that_cannot_be_learned_from_are_refused(frame: pd.DataFrame, changes: dict, message: str):
    with pytest.raises(DataError) as err:
        in_memory(use_case(csv(frame), **changes))
    assert message in str(err.value)


def test_columns_of_the_same_name_are_refused(project: Path):
    (project / "rows.csv").write_text("a,a,left\n1,2,no\n3,4,yes\n")
    with pytest.raises(DataError, match=r"columns must have different names, but csv:rows\.csv repeats a; rename"):
        in_memory(use_case("csv:rows.csv"))


@pytest.mark.usefixtures("project")
def test_text_of_csv_may_have_many_lines_wherever_pyarrow_cuts_the_file():
    n_rows, lines = 2**16, "a\n" * 16
    Path("rows.csv").write_text("n,t\n" + f'1,"{lines}"\n' * n_rows)
    frame = read(use_case("csv:rows.csv").data).frame
    assert frame["t"].tolist() == [lines] * n_rows
