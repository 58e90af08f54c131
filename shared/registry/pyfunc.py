"""The system as MLflow's pyfunc, by "models from code": a script that loads the native files, and nothing pickled."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared import model
from shared.registry import graphs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature

ARTIFACT = "system"  # name of the folder of native files among the pyfunc's artifacts

# The end of the script that MLflow runs to load the model; before it stands the source of shared/model.py.
_SERVED = '''

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class ServedSystem(PythonModel):
    """Labels or values of raw rows; with the parameter `output="proba"`, a frame with a probability per class."""

    def load_context(self, context):
        self.system = load(context.artifacts["system"])

    def predict(self, context, model_input: pd.DataFrame, params=None):
        output = (params or {}).get("output", "label")
        numeric = context.model_config["numeric"]  # a column of nulls alone isn't, and text is refused
        rows = model_input.astype({c: "float64" for c in numeric if model_input[c].dtype.kind not in "iuf"})
        if output == "label":
            return self.system.predict(rows)
        if output != "proba":
            raise ValueError(f'`output` must be "label" or "proba", but is {output!r}')
        proba = self.system.predict_proba(rows)
        return pd.DataFrame(proba, columns=[str(c) for c in self.system.signature.classes])


set_model(ServedSystem())
'''


def load(folder: Path) -> model.System:
    """The system of MLflow's model folder, from its native files alone.

    Raises:
        ModelError: as `model.load` does.
    """
    return model.load(folder / "artifacts" / ARTIFACT, graphs.network)


def inputs(folder: Path) -> list[dict[str, Any]]:
    """The columns of raw rows, `name` and `type` of each, as MLflow's signature says."""
    import yaml

    described = yaml.load((folder / "MLmodel").read_text(encoding="utf-8"), yaml.CSafeLoader)
    found: list[dict[str, Any]] = json.loads(described["signature"]["inputs"])
    return found


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """A system saved by `model.save`, as files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write(
    files: Mapping[str, bytes], example: pd.DataFrame, predictions: np.ndarray, run_id: str, model_id: str, tmp: Path
) -> Path:
    """MLflow's model folder, below `tmp`: script, native files, signature, requirements."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    write_files(files, tmp / ARTIFACT)
    script = tmp / "served.py"
    script.write_text(inspect.getsource(model) + _SERVED, encoding="utf-8")
    manifest = json.loads(files["manifest.json"])
    packages = {**manifest["packages"], "mlflow": installed("mlflow")}
    params = {"output": "label"} if manifest["signature"]["classes"] else None
    numeric = [str(name) for name, dtype in example.dtypes.items() if dtype.kind in "iuf"]
    save_model(
        str(tmp / "model"),
        python_model=str(script),
        artifacts={ARTIFACT: str(tmp / ARTIFACT)},
        model_config={"numeric": numeric},
        signature=_signature(example, predictions, params, numeric),
        input_example=example,
        pip_requirements=[f"{package}=={version}" for package, version in packages.items()],
        mlflow_model=Model(run_id=run_id, model_id=model_id),
    )
    return tmp / "model"


def _signature(
    example: pd.DataFrame, predictions: np.ndarray, params: dict[str, str] | None, numeric: list[str]
) -> ModelSignature:
    """What MLflow asks of rows: all columns, text and booleans as such, and any number or none in a numeric one.

    MLflow's own numeric types are too narrow for raw rows: `long` refuses a null or a fraction, `double` whole numbers.
    """
    from mlflow.models import infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    signature = infer_signature(example, predictions, params=params)
    signature.inputs = Schema([ColSpec(AnyType(), c.name) if c.name in numeric else c for c in signature.inputs.inputs])
    return signature
