"""Networks as MLflow keeps them: exported graphs, never pickles."""

from copy import deepcopy
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.pytorch
import numpy as np
from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from dl4ia.errors import InputError
from dl4ia.tracking.exported import check_program

if TYPE_CHECKING:
    import torch

# Numbers: a pair of 128 x 128 with four channels, in JSON 7 MB and less than a second. MLflow keeps
# no example of more.
LARGEST_JSON_EXAMPLE = 140_000


def export_network(model: "torch.nn.Module", example: np.ndarray, run: str, folder: Path) -> Model:
    """Save `model` in `folder` for CPUs, in evaluation mode, and return MLflow's description."""
    import torch

    # The copy leaves the caller's model where it is; the layout must not be frozen into the graph.
    model = deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    with torch.inference_mode():
        output = model(torch.from_numpy(example))
    shapes = (-1, *example.shape[1:]), (-1, *output.shape[1:])
    inputs, outputs = (Schema([TensorSpec(np.dtype("float32"), shape)]) for shape in shapes)
    saved = Model(run_id=run)
    mlflow.pytorch.save_model(
        model,
        str(folder),
        mlflow_model=saved,
        signature=ModelSignature(inputs, outputs),
        # In a tuple the example is kept in the exported program only, not as JSON as well.
        input_example=example if example.size <= LARGEST_JSON_EXAMPLE else (example,),
        pip_requirements=[f"{p}=={installed_version(p).split('+')[0]}" for p in ("torch", "numpy")],
        serialization_format="pt2",
    )
    # Otherwise a machine with a GPU refuses to load what was exported on a CPU.
    saved.flavors["python_function"]["config"]["device"] = "cpu"
    return saved


def load_network(folder: Path) -> "torch.nn.Module":
    """The exported program below a model's folder, and never a pickled one."""
    flavor = Model.load(str(folder)).flavors.get("pytorch", {})
    file = folder / "data" / "model.pt2"
    if flavor.get("model_data") != "data" or flavor.get("code") or not file.is_file():
        raise InputError(f"{folder}: is not an exported network; expected the winner of a study")
    check_program(file)
    # A pickle is refused inside the archive too, whatever the user allows MLflow elsewhere.
    allowed = MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get_raw()
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION.set(False)
    try:
        network: torch.nn.Module = mlflow.pytorch.load_model(str(folder))
    finally:
        MLFLOW_ALLOW_PICKLE_DESERIALIZATION.unset()
        if allowed is not None:
            MLFLOW_ALLOW_PICKLE_DESERIALIZATION.set(allowed)
    return network
