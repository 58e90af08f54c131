"""Saving natively and loading without unpickling."""

from __future__ import annotations

import io
import json
import os
import pickletools
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import Birch
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, StackingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC

from shared.model import FORMAT, Member, ModelError, Signature, System, load, save

ROOT = Path(__file__).parents[2]
IRIS = load_iris(return_X_y=True, as_frame=True)
DIABETES = [part[:60] for part in load_diabetes(return_X_y=True, as_frame=True)]
KINDS = ("setosa", "versicolor", "virginica")


def write(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def of_one(estimator, data=IRIS, classes=KINDS, preprocessing=None, calibrator=None) -> System:
    X = data[0]
    signature = Signature(tuple(X.columns), (X.shape[1],), classes)
    return System(signature, [Member("one", estimator, preprocessing)], [1.0], calibrator)


CLASSIFIERS = {
    "linear": make_pipeline(StandardScaler(), LogisticRegression()),
    "calibrated kernel": CalibratedClassifierCV(make_pipeline(StandardScaler(), SVC()), cv=3),
    "isotonic": CalibratedClassifierCV(SVC(), method="isotonic", cv=3),
    "forest": ExtraTreesClassifier(5, random_state=0),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=3),
    "neighbors": KNeighborsClassifier(),
    "perceptron": MLPClassifier((4,), max_iter=20),
    "columns": make_pipeline(
        ColumnTransformer(
            [("q", QuantileTransformer(n_quantiles=10), [0, 1]), ("o", OneHotEncoder(handle_unknown="ignore"), [2, 3])]
        ),
        LogisticRegression(),
    ),
}
REGRESSORS = {
    "splines": make_pipeline(SimpleImputer(), SplineTransformer(3), PolynomialFeatures(1), Ridge()),
    "target": TransformedTargetRegressor(KernelRidge(kernel="rbf"), transformer=PowerTransformer()),
    "process": GaussianProcessRegressor(1.0 * RBF() + WhiteKernel()),
    "stack": StackingRegressor([("ridge", Ridge()), ("other", Ridge(10.0))], cv=2),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_of_scikit_learn_predicts_the_same_bits_after_loading(name, tmp_path):
    system = of_one(CLASSIFIERS[name].fit(*IRIS))
    loaded = load(write(save(system), tmp_path))
    np.testing.assert_array_equal(loaded.scores(IRIS[0]), system.scores(IRIS[0]))
    assert loaded.predict(IRIS[0][:3]).tolist() == system.predict(IRIS[0][:3]).tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_of_scikit_learn_predicts_the_same_bits_after_loading(name, tmp_path):
    system = of_one(REGRESSORS[name].fit(*DIABETES), DIABETES, ())
    np.testing.assert_array_equal(load(write(save(system), tmp_path)).scores(DIABETES[0]), system.scores(DIABETES[0]))


@pytest.mark.parametrize("steps", [None, [], [StandardScaler()]], ids=["alone", "alone in a pipeline", "after a step"])
def test_xgboost_is_saved_in_its_own_format(steps, tmp_path):
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=3, n_jobs=1)
    estimator = (model if steps is None else make_pipeline(*steps, model)).fit(*IRIS)
    system = of_one(estimator)
    files = save(system)
    assert "members/0/model.ubj" in files
    assert ("members/0/steps.skops" in files) == bool(steps)
    loaded = load(write(files, tmp_path))
    np.testing.assert_array_equal(loaded.scores(IRIS[0]), system.scores(IRIS[0]))
    assert loaded.members[0].estimator.get_params().keys() == estimator.get_params().keys()


def test_xgboost_values_are_the_same_after_loading(tmp_path):
    from xgboost import XGBRegressor

    system = of_one(XGBRegressor(n_estimators=3, n_jobs=1).fit(*DIABETES), DIABETES, ())
    np.testing.assert_array_equal(load(write(save(system), tmp_path)).scores(DIABETES[0]), system.scores(DIABETES[0]))


@pytest.mark.parametrize(("saved", "loaded"), [(1, 1), (10**9, os.cpu_count()), (-1, -1), (None, None)])
def test_a_manifest_asks_for_no_more_threads_than_there_are_cores(saved, loaded, tmp_path):
    from xgboost import XGBRegressor

    files = save(of_one(XGBRegressor(n_estimators=1, n_jobs=1).fit(*DIABETES), DIABETES, ()))
    manifest = json.loads(files["manifest.json"])
    manifest["members"][0]["n_jobs"] = saved
    files["manifest.json"] = json.dumps(manifest).encode()
    assert load(write(files, tmp_path)).members[0].estimator.n_jobs == loaded


def net():
    from torch import manual_seed, nn

    manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def network() -> System:
    return of_one(net(), preprocessing=StandardScaler().fit(IRIS[0]))


@pytest.fixture(scope="module")
def network_files(network) -> dict[str, bytes]:
    return save(network)


def test_a_network_predicts_the_same_after_loading_for_any_number_of_rows(network, network_files, tmp_path):
    loaded = load(write(network_files, tmp_path))
    for n in (1, 2, 150):
        np.testing.assert_allclose(loaded.scores(IRIS[0][:n]), network.scores(IRIS[0][:n]), atol=1e-6)


def layered(kind: str):
    """A network on 8 features whose graph has operators, sizes and names of another kind."""
    from torch import einsum, nn, no_grad
    from torch.nn.functional import interpolate

    class Net(nn.Module):
        def __init__(self, forward, **layers):
            super().__init__()
            self.layers, self.way = nn.ModuleDict(layers), forward

        def forward(self, x):
            return self.way(x, **self.layers)

    def attention(x, first, last):
        rows = x.reshape(x.shape[0], 2, 4)
        return last(first(rows, rows, rows)[0].mean(1))

    def recurrent(x, first, last):
        return last(first(x.unsqueeze(-1))[0][:, -1])

    def without_gradient(x, last):
        with no_grad():
            return last(x.abs())

    def images(x, last):
        return last(interpolate(x.reshape(x.shape[0], 1, 2, 4), scale_factor=2.0, mode="bilinear").flatten(1))

    def sizes(x, last):
        return last(x.view(2 * x.shape[0], 4).view(x.shape[0], 8)) / (2 * x.shape[0] + 1)

    narrow = nn.Linear(8, 3)
    return {
        "attention": Net(attention, first=nn.MultiheadAttention(4, 2, batch_first=True), last=nn.Linear(4, 3)),
        "recurrent": Net(recurrent, first=nn.LSTM(1, 5, batch_first=True), last=nn.Linear(5, 3)),
        "einsum": Net(lambda x, last: einsum("bi,ci->bc", x, last.weight), last=narrow),
        "without gradient": Net(without_gradient, last=narrow),
        "images": Net(images, last=nn.Linear(32, 3)),
        "formulas of sizes": Net(sizes, last=narrow),
        "text as an argument": nn.Sequential(nn.Linear(8, 8), nn.GELU("tanh"), nn.LayerNorm(8), narrow),
    }[kind].eval()


@pytest.mark.parametrize(
    "kind",
    ["attention", "recurrent", "einsum", "without gradient", "images", "formulas of sizes", "text as an argument"],
)
def test_a_network_of_torchs_own_layers_is_taken_whatever_they_are(kind, tmp_path):
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 8)), columns=list("abcdefgh"))
    system = System(Signature(tuple(rows.columns), (8,), KINDS), [Member("one", layered(kind))])
    loaded = load(write(save(system), tmp_path))
    for n in (1, 5):
        np.testing.assert_allclose(loaded.scores(rows[:n]), system.scores(rows[:n]), atol=1e-6)


def test_a_saved_network_tells_nothing_of_the_machine_that_made_it(network_files):
    graph = json.loads(
        zipfile.ZipFile(io.BytesIO(network_files["members/0/model.pt2"])).read("archive/models/model.json")
    )
    assert str(ROOT) not in json.dumps(graph)


def test_a_loaded_network_can_be_saved_again(network, network_files, tmp_path):
    again = load(write(save(load(write(network_files, tmp_path / "first"))), tmp_path / "second"))
    np.testing.assert_allclose(again.scores(IRIS[0]), network.scores(IRIS[0]), atol=1e-6)


def test_a_blend_with_preprocessing_and_calibrator_comes_back_whole(network, tmp_path):
    from xgboost import XGBClassifier

    X, y = IRIS
    members = [
        Member(
            "classical", XGBClassifier(n_estimators=3, n_jobs=1).fit(X, y), QuantileTransformer(n_quantiles=10).fit(X)
        ),
        *network.members,
    ]
    weights = [0.4, 0.6]
    blend = System(network.signature, members, weights).scores(X)
    base = FrozenEstimator(LogisticRegression().fit(blend, y))
    system = System(network.signature, members, weights, CalibratedClassifierCV(base).fit(blend, y))
    files = save(system)
    loaded = load(write(files, tmp_path))
    np.testing.assert_allclose(loaded.scores(X), system.scores(X), atol=1e-6)
    assert [member.name for member in loaded.members] == ["classical", "one"]
    assert {"torch", "xgboost", "skops", "numpy"} <= json.loads(files["manifest.json"])["packages"].keys()


def test_nothing_that_is_saved_is_a_pickle(network_files):
    files = {**network_files, **save(of_one(ExtraTreesClassifier(2).fit(*IRIS)))}
    assert [name for name, content in unpacked(files) if is_pickle(content)] == []


def unpacked(files: dict[str, bytes]):
    """Files and, of archives, what is in them, at any depth."""
    for name, content in files.items():
        if zipfile.is_zipfile(io.BytesIO(content)):
            archive = zipfile.ZipFile(io.BytesIO(content))
            yield from unpacked({f"{name}/{part}": archive.read(part) for part in archive.namelist()})
        else:
            yield name, content


def is_pickle(content: bytes) -> bool:
    """Whether every opcode up to a STOP is one of pickle's; of any protocol."""
    try:
        return bool(list(pickletools.genops(content)))
    except (ValueError, struct.error):
        return False


def test_the_test_knows_a_pickle_when_it_sees_one():
    import torch

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    assert any(is_pickle(content) for _, content in unpacked({"weights.pt": buffer.getvalue()}))


class OwnScaler(StandardScaler):
    """A type of the user's own."""


def test_an_estimator_of_an_unknown_type_is_refused_by_name():
    estimator = make_pipeline(OwnScaler(), LogisticRegression()).fit(*IRIS)
    with pytest.raises(ModelError, match=r"member 'one' .*holds .*OwnScaler; build it of scikit-learn's own"):
        save(of_one(estimator))


def test_an_estimator_that_skops_does_not_support_is_refused_by_name():
    estimator = make_pipeline(Birch(), LogisticRegression()).fit(*IRIS)
    with pytest.raises(ModelError, match=r"member 'one' can't be saved without pickle: .*Birch.*; build it of"):
        save(of_one(estimator))


def test_a_network_that_branches_on_values_is_refused():
    from torch import nn

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(
        ModelError, match=r"member 'one' must be a module that torch\.export takes.*keep Python's branches"
    ):
        save(of_one(Branching()))


def test_a_skops_file_with_a_type_that_was_not_reviewed_is_not_loaded(tmp_path):
    files = save(of_one(LogisticRegression(max_iter=999).fit(*IRIS)))
    files["members/0/model.skops"] = skops.io.dumps(OwnScaler())
    with pytest.raises(ModelError, match=r"reviewed types only, but holds .*OwnScaler"):
        load(write(files, tmp_path))


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("archive/data/sample_inputs/model.pt", b"pickle"),
        ("archive/data/weights/model.pt", b"pickle"),
        ("archive/data/constants/custom_obj_0", b"pickle"),
        ("archive/data/aotinductor/model/model.so", b"code"),
        ("archive/data/constants/model_constants_config.json", b'{"config": {"a": {"use_pickle": true}}}'),
    ],
)
def test_a_network_with_more_than_a_graph_and_tensors_in_its_archive_is_not_loaded(
    part, content, network_files, tmp_path
):
    source = zipfile.ZipFile(io.BytesIO(network_files["members/0/model.pt2"]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in source.namelist():
            if name != part:
                archive.writestr(name, source.read(name))
        archive.writestr(part, content)
    with pytest.raises(ModelError, match=f"its archive has {part}"):
        load(write({**network_files, "members/0/model.pt2": buffer.getvalue()}, tmp_path))


def test_a_manifest_that_names_files_elsewhere_is_not_followed(tmp_path):
    files = save(of_one(LogisticRegression(max_iter=999).fit(*IRIS)))
    (tmp_path / "secret.skops").write_bytes(files["members/0/model.skops"])
    files["manifest.json"] = files["manifest.json"].replace(b"members/0/model.skops", b"../secret.skops")
    with pytest.raises(ModelError, match=r"must be inside its folder, but the manifest names '\.\./secret\.skops'"):
        load(write(files, tmp_path / "model"))


def test_a_folder_without_a_manifest_is_no_system(tmp_path):
    with pytest.raises(ModelError, match=r"must hold the manifest\.json of a saved system"):
        load(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(ModelError, match=f"must be {FORMAT}, but is {FORMAT + 1}; load it with the version"):
        load(tmp_path)


def test_a_classical_system_is_saved_and_loaded_without_importing_torch_or_xgboost(tmp_path):
    script = f"""
import sys
from pathlib import Path
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from shared.model import Member, Signature, System, load, save
X, y = load_iris(return_X_y=True, as_frame=True)
system = System(Signature(tuple(X), (4,), (0, 1, 2)), [Member("one", LogisticRegression(max_iter=999).fit(X, y))])
for name, content in save(system).items():
    path = Path({str(tmp_path)!r}, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
assert (load({str(tmp_path)!r}).scores(X) == system.scores(X)).all()
print(sorted({{"torch", "xgboost", "mlflow"}} & sys.modules.keys()))
from importlib.util import find_spec
assert find_spec("torch"), "torch must be importable again"
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_while_one_thread_does_without_torch_another_finds_it():
    """As where one server loads the champions of two use cases at once."""
    script = """
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from shared import model
def imported(_):
    with ThreadPoolExecutor() as threads:
        print(bool(threads.submit(find_spec, "torch").result()))
    try:
        find_spec("torch")
    except ModuleNotFoundError as err:
        print(err)
model.import_module = imported
model._skops()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\ntorch is not wanted here\n", "")


def test_labels_of_numpy_types_are_saved_as_plain_ones(tmp_path):
    X, y = IRIS
    signature = Signature(tuple(X.columns), (4,), tuple(np.array([10, 20, 30])))
    system = System(signature, [Member("one", LogisticRegression(max_iter=999).fit(X, y))])
    loaded = load(write(save(system), tmp_path))
    assert loaded.signature.classes == (10, 20, 30)
    assert isinstance(pd.Series(loaded.predict(X)).iloc[0], np.integer)
