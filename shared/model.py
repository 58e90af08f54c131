"""The model that Evertune registers: fitted members, weights, calibrator; saved natively, loaded without unpickling.

This file imports nothing of Evertune, so that its source can travel with a registered model ("models from code").

A saved system is a folder with a `manifest.json` and native files, by the kind of each member:

| kind      | what it is                                       | files                                      |
|-----------|--------------------------------------------------|--------------------------------------------|
| `skops`   | an estimator of scikit-learn                     | `model.skops`                              |
| `xgboost` | one of XGBoost, alone or last in a pipeline      | `model.ubj`, `steps.skops` with the steps before |
| `torch`   | a `torch.nn.Module`                              | `model.pt2`, by `torch.export`             |
"""

from __future__ import annotations

import ast
import io
import json
import keyword
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
_PROTOCOL = 2  # of skops: its loaders of earlier ones audit less
_CHUNK = 1024  # rows that go through a torch module at a time: bounds the memory of its activations

# Types beyond skops' own list that a fitted estimator of scikit-learn is made of. Each was reviewed: loading one sets
# plain attributes or array memory. A file can have nothing else called than what is listed, but that with any arguments
# of such types: never add a type or a function that runs what it is given, or touches files.
TRUSTED_TYPES = tuple(
    f"{module}.{name}"
    for module, names in {
        "numpy": "dtype mean",
        "scipy._lib.array_api_compat.numpy._aliases": "asarray",
        "scipy.interpolate._bsplines": "BSpline",
        "sklearn._loss.loss": "HalfTweedieLoss HalfTweedieLossIdentity",
        "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
        "sklearn.compose._column_transformer": "make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
        "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
        "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_regression r_regression",
        "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels": "CompoundKernel ConstantKernel DotProduct ExpSineSquared "
        "Exponentiation Matern Product RBF RationalQuadratic Sum WhiteKernel",
        "sklearn.metrics._dist_metrics": "EuclideanDistance64 ManhattanDistance64 MinkowskiDistance64",
        "sklearn.neighbors._ball_tree": "BallTree",
        "sklearn.neighbors._kd_tree": "KDTree",
        "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
        "sklearn.tree._tree": "Tree",
        "sklearn.utils._bunch": "Bunch",
    }.items()
    for name in names.split()
)


class ModelError(ValueError):
    """A system can't be saved natively, or a folder can't be loaded without unpickling."""


@dataclass(frozen=True)
class Signature:
    """Names of the raw columns in order, shape of one row as a tensor, labels in code order (none: regression)."""

    features: tuple[str, ...]
    shape: tuple[int, ...]
    classes: tuple[Any, ...] = ()

    def align(self, X: pd.DataFrame) -> pd.DataFrame:
        """`X` with the columns in the order of `features`; `X` itself where they are.

        Raises:
            ValueError: a column is missing, unknown or there twice.
        """
        columns = list(X.columns)
        if columns == list(self.features):
            return X
        missing = [c for c in self.features if c not in columns]
        extra = [c for c in columns if c not in self.features]
        twice = sorted({str(c) for c in columns if columns.count(c) > 1})
        if missing or extra or twice:
            faults = {"missing": missing, "unknown": extra, "there twice": twice}
            found = "; ".join(f"{fault}: {', '.join(map(str, names))}" for fault, names in faults.items() if names)
            raise ValueError(f"rows must have exactly the {len(self.features)} columns of the model, but {found}")
        return X[list(self.features)]


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
        rows = X if self.preprocessing is None else self._prepared(X)
        if _is_a(self.estimator, "torch.nn", "Module"):
            out = _forward(self.estimator, rows, signature.shape)
            return _softmax(out, self.name, len(signature.classes)) if signature.classes else out.reshape(len(X))
        if signature.classes:
            return _probabilities(self.estimator, rows, self.name, len(signature.classes))
        return np.asarray(self.estimator.predict(rows), dtype=np.float64).reshape(len(X))

    def _prepared(self, X: pd.DataFrame) -> pd.DataFrame:
        rows = self.preprocessing.transform(X)
        return rows if hasattr(rows, "columns") else type(X)(rows, index=X.index, columns=X.columns)


@dataclass(frozen=True)
class System:
    """Members blended by `weights` (they sum to 1), then calibrated. `predict` takes raw rows as a frame.

    calibrator: fitted, `predict_proba` of the blended probabilities `(n_rows, n_classes)` as an array, or None.
    """

    signature: Signature
    members: Sequence[Member]
    weights: Sequence[float] = (1.0,)
    calibrator: Any = None

    def __post_init__(self) -> None:
        if not self.members or len(self.members) != len(self.weights):
            raise ValueError(f"a system has one weight per member, but {len(self.weights)} for {len(self.members)}")

    def scores(self, X: pd.DataFrame) -> np.ndarray:
        """Probabilities `(n_rows, n_classes)` in code order, or values `(n_rows,)`.

        Raises:
            ValueError: the columns aren't those of the signature.
        """
        rows = self.signature.align(X)
        parts = [w * m.scores(rows, self.signature) for m, w in zip(self.members, self.weights, strict=True) if w]
        blended: np.ndarray = np.sum(parts, axis=0)
        if self.calibrator is None:
            return blended
        return _probabilities(self.calibrator, blended, "calibrator", len(self.signature.classes))

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """Labels (not codes) `(n_rows,)`, or values `(n_rows,)`."""
        return self.labels(self.scores(X))

    def labels(self, scores: np.ndarray) -> np.ndarray:
        """What `scores` say of each row: the label that is most probable, or the value."""
        classes = self.signature.classes
        if not classes:
            return scores
        one_type = len({type(c) for c in classes}) == 1
        labels: np.ndarray = np.array(classes, dtype=None if one_type else object)[scores.argmax(axis=1)]
        return labels

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """Probabilities `(n_rows, n_classes)` in the order of `signature.classes`.

        Raises:
            ValueError: the system is a regression.
        """
        if not self.signature.classes:
            raise ValueError("a regression has no class probabilities; call `predict`")
        return self.scores(X)


def save(system: System) -> dict[str, bytes]:
    """The system as native files, by relative path: `manifest.json`, skops, XGBoost's UBJSON, `torch.export`.

    Raises:
        ModelError: a part of the system can't be saved without pickle.
    """
    files: dict[str, bytes] = {}
    members = []
    for i, member in enumerate(system.members):
        kind = _kind(member.estimator)
        parts, facts = _KINDS[kind][0](member, system.signature)
        if member.preprocessing is not None:
            parts["preprocessing.skops"] = _dump_skops(member.preprocessing, f"the preprocessing of {member.name!r}")
        paths = {f"members/{i}/{part}": content for part, content in parts.items()}
        members.append({"name": member.name, "kind": kind, "files": list(paths), **facts})
        files |= paths
    if system.calibrator is not None:
        files["calibrator.skops"] = _dump_skops(system.calibrator, "the calibrator")
    manifest = {
        "format": FORMAT,
        "signature": {key: list(map(_plain, value)) for key, value in vars(system.signature).items()},
        "members": members,
        "weights": [float(w) for w in system.weights],
        "calibrator": "calibrator.skops" if system.calibrator is not None else None,
        "packages": _packages({m["kind"] for m in members}),
    }
    return {"manifest.json": json.dumps(manifest, indent=1).encode(), **files}


def exported(archive: bytes) -> Any:
    """The module of a checked `.pt2`, by torch itself."""
    import torch

    return torch.export.load(io.BytesIO(archive)).module(check_guards=False)  # guards are Python that torch runs


def load(folder: str | Path, network: Callable[[bytes], Any] = exported) -> System:
    """The system saved in a folder.

    network: makes a `torch.nn.Module` of a `.pt2` that was found to be plain.

    Raises:
        ModelError: the folder holds no saved system, or one that could only be loaded by running what is in it.
    """
    root = Path(folder).resolve()
    manifest = _manifest(root)
    try:
        return _system(manifest, lambda name: _read(root, name), network)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as err:
        raise ModelError(f"a saved system must have all its files, but hasn't: {err}") from err
    except (ModelError, MemoryError, OSError, ImportError):
        raise  # what is short or missing here isn't the model's fault
    except Exception as err:
        raise ModelError(f"a saved system must be whole and as it was saved, but isn't: {err!r}") from err


def _system(manifest: Mapping[str, Any], read: Callable[[str], bytes], network: Callable[[bytes], Any]) -> System:
    members = []
    for facts in manifest["members"]:
        parts = {Path(name).name: read(name) for name in facts["files"]}
        preprocessing = _load_skops(parts["preprocessing.skops"]) if "preprocessing.skops" in parts else None
        members.append(Member(facts["name"], _KINDS[facts["kind"]][1](parts, facts, network), preprocessing))
    signature = Signature(**{key: tuple(value) for key, value in manifest["signature"].items()})
    calibrator = _load_skops(read(manifest["calibrator"])) if manifest["calibrator"] else None
    return System(signature, members, manifest["weights"], calibrator)


def _read(root: Path, name: str) -> bytes:
    path = (root / name).resolve()  # where links lead to
    if not path.is_relative_to(root):
        raise ModelError(f"{root}: a model's files must be inside its folder, but the manifest names {name!r}")
    return path.read_bytes()


def _manifest(root: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(_read(root, "manifest.json"))
    except (OSError, ValueError) as err:
        raise ModelError(f"{root}: must hold the manifest.json of a saved system, but {err}") from err
    if manifest.get("format") != FORMAT:
        raise ModelError(
            f"{root}: the model's format must be {FORMAT}, but is {manifest.get('format')!r}; "
            "load it with the version of Evertune that saved it"
        )
    return manifest


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _packages(kinds: set[str]) -> dict[str, str]:
    """Installed versions of what loading needs."""
    names = ["numpy", "pandas", "scikit-learn", "skops", *sorted(kinds & {"torch", "xgboost"})]
    return {name: version(name).partition("+")[0] for name in names}


def _kind(estimator: Any) -> str:
    if _is_a(estimator, "torch.nn", "Module"):
        return "torch"
    return "xgboost" if _is_a(_split(estimator)[1], "xgboost", "XGBModel") else "skops"


def _is_a(value: Any, module: str, name: str) -> bool:
    """`isinstance` without importing: a value of a module that isn't imported can't exist."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _probabilities(estimator: Any, rows: Any, owner: str, n_classes: int) -> np.ndarray:
    """Probabilities `(n_rows, n_classes)`, zero for the classes that the estimator was not fitted on."""
    if not hasattr(estimator, "predict_proba"):
        raise ValueError(
            f"{owner}: a classifier must have `predict_proba`, but {type(estimator).__name__} has none; "
            "wrap it in sklearn.calibration.CalibratedClassifierCV"
        )
    found = np.asarray(estimator.predict_proba(rows))
    proba = found.astype(np.float64, copy=False)
    if found.dtype != np.float64:  # float32 rows sum to 1 within 1e-7 only, which scikit-learn's log loss warns of
        proba = proba / proba.sum(axis=1, keepdims=True)
    if proba.shape[1] == n_classes:
        return proba
    aligned = np.zeros((len(proba), n_classes))
    aligned[:, np.asarray(estimator.classes_, dtype=np.int64)] = proba
    return aligned


def _dump_estimator(member: Member, _: Signature) -> tuple[dict[str, bytes], dict[str, Any]]:
    return {"model.skops": _dump_skops(member.estimator, f"member {member.name!r}")}, {}


def _load_estimator(parts: Mapping[str, bytes], *_: Any) -> Any:
    return _load_skops(parts["model.skops"])


def _dump_skops(value: Any, owner: str) -> bytes:
    skops = _skops()
    remedy = (
        "build it of scikit-learn's own estimators, XGBoost (alone or last in a pipeline) or torch, "
        "or add the type to TRUSTED_TYPES in shared/model.py once it is reviewed"
    )
    try:
        content: bytes = skops.dumps(value)
        types = skops.get_untrusted_types(data=content)
    except Exception as err:
        raise ModelError(f"{owner} can't be saved without pickle: {err}; {remedy}") from err
    unknown = sorted(set(types) - set(TRUSTED_TYPES))
    if unknown:
        raise ModelError(
            f"{owner} must be of types that load without running code, but holds {', '.join(unknown)}; {remedy}"
        )
    return content


def _load_skops(content: bytes) -> Any:
    skops = _skops()
    protocol = json.loads(archive_parts(content)["schema.json"])["protocol"]
    if protocol < _PROTOCOL:
        raise ModelError(f"a skops file must be of protocol {_PROTOCOL} at least, but is of {protocol}; don't load it")
    unknown = sorted(set(skops.get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
    if unknown:
        raise ModelError(f"a skops file must hold reviewed types only, but holds {', '.join(unknown)}; don't load it")
    return skops.loads(content, trusted=TRUSTED_TYPES)


def _skops() -> Any:
    """skops.io, imported without torch, which scikit-learn's `all_estimators` would import where it is installed."""
    if {"skops.io", "torch"} & sys.modules.keys():
        return import_module("skops.io")
    blocker = _Blocker("torch")
    sys.meta_path.insert(0, blocker)
    try:
        return import_module("skops.io")
    finally:
        sys.meta_path.remove(blocker)


@dataclass(eq=False)
class _Blocker:
    """A finder of modules for which one package is not installed; to the thread that made it, as others may need it."""

    package: str
    thread: int = field(default_factory=get_ident)

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == self.package and get_ident() == self.thread:
            raise ModuleNotFoundError(f"{name} is not wanted here", name=name)


def _split(estimator: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The steps of a pipeline before the last, and the last; an estimator that is no pipeline has no steps."""
    if not _is_a(estimator, "sklearn.pipeline", "Pipeline"):
        return [], estimator
    return estimator.steps[:-1], estimator.steps[-1][1]


def _dump_xgboost(member: Member, _: Signature) -> tuple[dict[str, bytes], dict[str, Any]]:
    steps, model = _split(member.estimator)
    parts = {"model.ubj": bytes(model.get_booster().save_raw("ubj"))}
    if steps:
        parts["steps.skops"] = _dump_skops(member.estimator[:-1], f"the steps of member {member.name!r}")
    step = member.estimator.steps[-1][0] if model is not member.estimator else None
    return parts, {"class": type(model).__name__, "n_jobs": model.n_jobs, "step": step}


def _load_xgboost(parts: Mapping[str, bytes], facts: Mapping[str, Any], _: Any) -> Any:
    import xgboost

    known = {
        c.__name__: c
        for c in (xgboost.XGBClassifier, xgboost.XGBRegressor, xgboost.XGBRFClassifier, xgboost.XGBRFRegressor)
    }
    n_jobs = facts["n_jobs"]
    model = known[facts["class"]](n_jobs=n_jobs and min(n_jobs, os.cpu_count() or 1))
    model.load_model(bytearray(parts["model.ubj"]))
    if facts["step"] is None:
        return model
    from sklearn.pipeline import Pipeline

    steps = _load_skops(parts["steps.skops"]).steps if "steps.skops" in parts else []
    return Pipeline([*steps, (facts["step"], model)])


def _forward(module: Any, rows: pd.DataFrame, shape: tuple[int, ...]) -> np.ndarray:
    """What the module puts out for rows, as float64 on the CPU."""
    import torch

    values = np.require(rows.to_numpy(dtype=np.float32), requirements=["C", "W"]).reshape(-1, *shape)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        parts = [module(part.to(device)) for part in torch.from_numpy(values).split(_CHUNK)]
        out: np.ndarray = torch.cat(parts).double().cpu().numpy()
    return out


def _softmax(logits: np.ndarray, owner: str, n_classes: int) -> np.ndarray:
    if logits.ndim != 2 or logits.shape[1] != n_classes:
        raise ValueError(
            f"{owner}: the module must put out logits of shape (n_rows, {n_classes}), but they are {logits.shape}; "
            "make its last layer as wide as there are classes"
        )
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return proba


def _dump_torch(member: Member, signature: Signature) -> tuple[dict[str, bytes], dict[str, Any]]:
    import torch

    module = deepcopy(member.estimator).cpu().eval()
    example = torch.zeros(2, *signature.shape)
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    except Exception as err:
        reason = str(err).partition("\n")[0]
        raise ModelError(
            f"member {member.name!r} must be a module that torch.export takes, but: {reason}; "
            "keep Python's branches on tensor values and fixed row counts out of `forward`"
        ) from err
    program.example_inputs = None  # torch would pickle them into the archive
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return {"model.pt2": _plain_archive(buffer.getvalue())}, {}


def _load_torch(parts: Mapping[str, bytes], _: Any, network: Callable[[bytes], Any]) -> Any:
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")  # for good: other threads load, too
    return network(_plain_archive(parts["model.pt2"]))


_PART = re.compile(
    r"archive/(data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|\.data/\w+)"
)
# What a graph may call. torch looks its functions up by these names, from `torch`, `math` or `operator` on, and
# `torch.os.system` is one. Of its own operators some read and write files, or memory that isn't theirs: torch doesn't
# check all indices. So each of these was reviewed: it writes to its own result alone, all of it, within its bounds.
_OPERATOR_NAMES = """
abs acos acosh asin asinh atan atan2 atanh ceil cos cosh erf erfc exp exp2 expm1 floor frac log log10 log1p log2 neg
reciprocal round rsqrt sign sin sinh sqrt square tan tanh trunc isnan isinf isfinite nan_to_num logical_not
add add_ sub sub_ mul mul_ div div_ rsub pow fmod remainder floor_divide maximum minimum where lerp addcmul addcdiv
eq ne lt le gt ge logical_and logical_or logical_xor __and__ __or__ __xor__ clamp clamp_ clamp_min clamp_max clip
sum mean max min amax amin argmax argmin prod std var std_mean var_mean median logsumexp cumsum cumprod all any norm
linalg_norm linalg_vector_norm sort topk diff cosine_similarity cdist fft_fft fft_ifft fft_rfft fft_irfft
cat stack split split_with_sizes chunk unbind narrow select slice squeeze unsqueeze reshape view view_as flatten
unflatten permute transpose t movedim swapaxes expand expand_as repeat tile roll flip unfold tril triu pad
constant_pad_nd index index_select gather masked_fill masked_fill_ clone contiguous detach alias lift_fresh_copy to
type_as _to_copy _assert_tensor_metadata sym_size zeros ones full arange linspace eye scalar_tensor zeros_like
ones_like full_like new_zeros new_ones new_full fill_ zero_
linear bilinear matmul mm bmm mv addmm baddbmm einsum conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d batch_norm layer_norm group_norm instance_norm rms_norm dropout dropout_ alpha_dropout
feature_dropout feature_alpha_dropout embedding one_hot lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell
rnn_relu_cell scaled_dot_product_attention max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
upsample_bicubic2d upsample_trilinear3d pixel_shuffle pixel_unshuffle channel_shuffle
relu relu_ relu6 leaky_relu leaky_relu_ gelu silu silu_ mish mish_ elu elu_ celu celu_ selu selu_ hardswish
hardswish_ hardsigmoid hardsigmoid_ hardtanh hardtanh_ softplus softshrink hardshrink threshold threshold_ prelu glu
sigmoid sigmoid_ log_sigmoid tanh_ softmax log_softmax
"""
_OPERATORS = frozenset(_OPERATOR_NAMES.split())
_FUNCTION = re.compile(
    r"torch\.ops\.aten\.\w+\.(?!\w*out)\w+|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt)"
    r"|torch\.ops\.higher_order\.(cond|scan|map_impl|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)
_FORMULA_LETTERS = 1000
# Sizes are formulas, which sympy evaluates as Python.
_ARITHMETIC = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|Abs|And|Or|Not|Where|\w*Div|CeilToInt|FloorToInt|TruncToInt"
    r"|ToFloat|FloatPow|RoundToInt|OpaqueUnaryFn_\w+|PythonMod|ModularIndexing|PowByNatural|Equality|Unequality|Eq|Ne|Lt|Le|Gt|Ge|(Strict)?(Less|Greater)Than"
)
# Texts that are no names: values, which stay texts, and paths of parameters.
_FREE = {"as_string", "as_strings", "as_float", "as_floats", "parameter_name", "buffer_name", "tensor_constant_name"}
_FREE |= {"fqn", "type", "torch_version"}
_SPEC = {"builtins.tuple", "builtins.list", "builtins.dict", "null", "[]", "type", "context", "children_spec"}


def _plain_archive(content: bytes) -> bytes:
    """A `.pt2` of a graph and raw tensors alone, written anew without what torch notes for people: traces and paths.

    Raises:
        ModelError: the archive has more in it: pickles, custom objects, compiled code, or Python in its graph.
    """
    parts, plain = archive_parts(content), io.BytesIO()
    for name, part in parts.items():
        pickled = name.endswith("_config.json") and _has_pickles(part)
        if pickled or (name.endswith("sample_inputs/model.pt") and part) or not _PART.fullmatch(name):
            raise ModelError(
                f"a torch member must be a graph and plain tensors, but its archive has {name}, which is "
                "unpickled or run when loaded; use plain tensors as parameters and buffers"
            )
    with zipfile.ZipFile(plain, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, _plain_graph(part) if name.endswith("models/model.json") else part)
    return plain.getvalue()


def archive_parts(content: bytes) -> dict[str, bytes]:
    """What is in an archive, each part as it is: nothing packed, so that it can't grow beyond the archive's size.

    Raises:
        ModelError: a part is packed, there twice, or one with others.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = archive.infolist()
        packed = any(part.compress_type != zipfile.ZIP_STORED for part in found)
        if packed or sum(part.file_size for part in found) > len(content) or len(found) > len(set(archive.namelist())):
            raise ModelError(
                "an archive must hold its parts once each and unpacked, but this one doesn't; don't load it"
            )
        return {part.filename: archive.read(part) for part in found}


def _plain_graph(content: bytes) -> bytes:
    """The graph of a `.pt2` without metadata, whose text can't be run as Python.

    Raises:
        ModelError: it calls what isn't one of torch's operators, or has Python in a name or a formula.
    """
    graph = json.loads(content)
    graph["guards_code"] = []
    for key, text in _texts(graph):
        if not _is_plain(key, text):
            raise ModelError(
                f"the graph of a torch member must be of torch's own operators on plain values, but has {text[:80]!r} "
                f"as {key or 'a name'!r}; use torch.nn's layers and functions in `forward`, "
                "or add an operator to _OPERATOR_NAMES in shared/model.py once it is reviewed"
            )
    return json.dumps(graph).encode()


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a graph and the key that it is at, with the keys themselves, after its metadata is dropped."""
    if isinstance(node, dict):
        if {"target", "graph"} & node.keys():
            node["metadata"] = {}
        for name, value in node.items():
            yield "", name
            yield from _texts(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str):
        yield key, node


def _is_plain(key: str, text: str) -> bool:
    """Whether a text can only be what it should be. torch writes names into Python, those of keywords too."""
    if key in ("target", "as_operator"):
        return _FUNCTION.fullmatch(text) is not None and _is_there(text)
    if key == "expr_str" or (key == "" and text.startswith("Symbol(")):
        return _is_formula(text)
    if key in ("in_spec", "out_spec"):
        return text == "" or {spec for pair in _texts(json.loads(text)) for spec in pair} <= _SPEC | {""}
    if key in _FREE:
        return re.fullmatch(r"[\w .,:+>-]*", text) is not None
    return text == "" or (text.isidentifier() and text.isascii() and not keyword.iskeyword(text))


def _is_there(function: str) -> bool:
    """Whether a function of `torch.ops.aten` is one of the reviewed operators, and not what Python puts beside them."""
    import torch

    if not function.startswith("torch.ops.aten."):
        return True
    name, overload = function.split(".")[3:]
    known, kind = getattr(torch.ops.aten, name, None), type(torch.ops.aten.add.Tensor)
    return name in _OPERATORS and isinstance(getattr(known, overload, None), kind)


def _is_formula(text: str) -> bool:
    """Whether a formula is short, and made of sympy's arithmetic alone, without powers that grow beyond all bounds."""
    allowed = (ast.Expression, ast.Call, ast.keyword, ast.Constant, ast.Name, ast.Load, ast.UnaryOp, ast.USub)
    if len(text) > _FORMULA_LETTERS:
        return False
    nodes = list(ast.walk(ast.parse(text, mode="eval")))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    powers = [node for node in nodes if isinstance(node, ast.Call) and "Pow" in ast.unparse(node.func)]
    return (
        all(isinstance(node, allowed) for node in nodes)
        and all(map(_ARITHMETIC.fullmatch, names))
        and all(re.fullmatch(r"[\w.+-]*", text) for text in texts)
        and all(re.fullmatch(r"\w+\(.*, Integer\((-1|2|3)\)\)", ast.unparse(power)) for power in powers)
    )


def _has_pickles(config: bytes) -> bool:
    payloads = json.loads(config)["config"].values()
    return not all(p["use_pickle"] is False and re.fullmatch(r"(weight|tensor)_\d+", p["path_name"]) for p in payloads)


_KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "skops": (_dump_estimator, _load_estimator),
    "xgboost": (_dump_xgboost, _load_xgboost),
    "torch": (_dump_torch, _load_torch),
}
