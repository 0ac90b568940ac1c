"""What MLflow is told of a study, and asked of it again: the only file that imports mlflow.

The Optuna study is the truth; MLflow is written from it, one batch a trial, and can be rebuilt from
it. So this file takes plain data and decides nothing. Importing it costs 3 s; make one `Tracker`
before any worker starts, and write each trial when it has ended.
"""

import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed_version
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dl4ia.addresses import check_tracked
from dl4ia.errors import InputError, first_line
from dl4ia.exported import check_program

if TYPE_CHECKING:
    import torch

# Read while MLflow is imported: it sends no usage reports home, and prints no links.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow.artifacts
import mlflow.pytorch
from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError

# A new database is no news, and neither are its migrations.
logging.getLogger("mlflow").setLevel(os.environ.get("MLFLOW_LOGGING_LEVEL", "WARNING").upper())
# It logs a failing database's whole traceback and then raises; the caller says it in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

TrackingError = MlflowException  # raised by every method of Tracker when MLflow cannot be written

Kind = Literal["study", "trial", "repeat", "winner", "replication"]
WRITTEN_AT_ONCE: tuple[Kind, ...] = ("trial", "repeat", "winner")
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

RUNS_PER_PAGE = 1000
LONGEST_PARAMETER, LONGEST_TAG = 6000, 8000  # characters, MLflow's limits
LARGEST_JSON_EXAMPLE = 10_000  # numbers; a 256 x 256 pair in JSON takes 3 s and 20 MB


@dataclass(frozen=True)
class RunRecord:
    """Everything MLflow is to know of one run."""

    name: str
    kind: Kind
    study: str
    tags: Mapping[str, str]  # "dl4ia.trial": "7" is what `Tracker.find` returns the run by
    parameters: Mapping[str, object]
    metrics: Mapping[str, float]  # final values
    history: Mapping[str, Sequence[float]]  # metric name -> one value an epoch, from epoch 1
    start: datetime  # naive times are local, as Optuna's are
    end: datetime | None  # None: still running
    status: Status


@dataclass(frozen=True)
class DatasetRecord:
    """The data that a run has read."""

    name: str
    digest: str  # at most 36 characters
    source: str
    profile: Mapping[str, object]
    context: str  # "training", for example


class Tracker:
    """Writes runs into one experiment at one address. Methods raise `TrackingError`."""

    def __init__(self, uri: str, experiment: str, artifacts: Path) -> None:
        """Open the database, creating it (3 s) and the experiment where they are missing.

        Files go under `artifacts`, or where the server at an http address keeps its own.

        Raises:
            InputError: the database is broken or out of date, or the experiment was deleted.
        """
        try:
            if uri.startswith("sqlite:///"):
                _create_database(Path(uri.removeprefix("sqlite:///")))
            self._client = MlflowClient(uri, registry_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                folder = str(artifacts.resolve()) if uri.startswith("sqlite:") else None
                self._experiment = self._client.create_experiment(experiment, folder)
                return
        except (MlflowException, SQLAlchemyError, CommandError) as error:
            raise InputError(
                f"MLflow at '{uri}' cannot be opened: {first_line(error)}; repair it, or give"
                " another address"
            ) from error
        if found.lifecycle_stage != "active":
            raise InputError(
                f"MLflow experiment '{experiment}' at '{uri}' was deleted; restore it with"
                f" 'mlflow experiments restore -x {found.experiment_id}', or use another name"
            )
        self._experiment = found.experiment_id

    def find(self, study: str, kind: Kind, tag: str = "dl4ia.trial") -> dict[str, str]:
        """The value of `tag` (or "") -> id, of the runs of that kind; the newest of several.

        What is RUNNING was cut off while it was written, and is left out; but a study may be.
        """
        runs = self._search(study, kind, "" if kind == "study" else "status != 'RUNNING'")
        return {run.data.tags.get(tag, ""): run.info.run_id for run in runs}

    def discard_unfinished(self, study: str) -> None:
        """Delete the runs that `find` leaves out. Only while no other process writes the study."""
        for kind in WRITTEN_AT_ONCE:
            for run in list(self._search(study, kind, "status = 'RUNNING'")):
                self._client.delete_run(run.info.run_id)

    def _search(self, study: str, kind: Kind, condition: str) -> Iterator[Run]:
        query = f"{_of_study(study)} AND tags.`dl4ia.kind` = '{kind}'"
        query += f" AND {condition}" if condition else ""
        yield from _search(self._client, self._experiment, query, "start_time ASC")

    def write(self, record: RunRecord, dataset: DatasetRecord | None, parent: str | None) -> str:
        """Create a run, with everything `record` says, as a child of run `parent`; return its id.

        A run that cannot be written whole is deleted again.
        """
        tags = {**record.tags, "dl4ia.kind": record.kind, "dl4ia.study": record.study}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        tags = {key: _shortened(value, LONGEST_TAG) for key, value in tags.items()}
        parameters = [
            Param(key, _shortened(str(value), LONGEST_PARAMETER))
            for key, value in record.parameters.items()
        ]
        start = _milliseconds(record.start)
        created = self._client.create_run(self._experiment, start, tags, record.name)
        run: str = created.info.run_id
        try:
            if dataset is not None:
                self._client.log_inputs(run, [_dataset_input(dataset)])
            self._client.log_batch(run, _metrics(record), parameters)  # in as many calls as needed
            if record.end is not None:
                self._client.set_terminated(run, record.status, _milliseconds(record.end))
        except BaseException:  # Ctrl-C too
            self._client.delete_run(run)
            raise
        return run

    def close(
        self,
        run: str,
        status: Status,
        end: datetime | None = None,
        metrics: Mapping[str, float] = MappingProxyType({}),
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """End a run at `end` (None: now), adding final metrics and tags."""
        ended = _milliseconds(end or datetime.now())
        values = [_metric(name, value, ended, 0) for name, value in metrics.items()]
        labels = [RunTag(key, _shortened(value, LONGEST_TAG)) for key, value in tags.items()]
        self._client.log_batch(run, values, tags=labels)
        self._client.set_terminated(run, status, ended)

    def reopen(self, run: str) -> None:
        """Call a run RUNNING again (MLflow keeps its last end time until it is closed again)."""
        self._client.update_run(run, "RUNNING")

    def log_files(self, run: str, files: Iterable[Path], folder: str) -> None:
        """Copy files into the run's `folder`, "pictures" for example."""
        for file in files:
            self._client.log_artifact(run, str(file), folder)

    def register_model(
        self,
        run: str,
        model: "torch.nn.Module",
        example: np.ndarray,
        name: str,
        tags: Mapping[str, str],
        description: str,
    ) -> str:
        """Export `model` as a new version of `name`, its champion; return the version.

        `example` is float32 (N >= 2, C, H, W): what is exported takes any N, but only its C, H, W.
        """
        # MLflow's log_model works at its global address, and loads and runs the model once more.
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "model")
            exported = _export(model, example, run, folder)
            logged = self._client.create_logged_model(self._experiment, name, source_run_id=run)
            exported.model_id, exported.artifact_path = logged.model_id, logged.artifact_location
            exported.save(str(folder / "MLmodel"))
            self._client.log_model_artifacts(logged.model_id, str(folder))
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
        return self._register(logged, run, name, tags, description)

    def _register(
        self, logged: LoggedModel, run: str, name: str, tags: Mapping[str, str], description: str
    ) -> str:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Not "models:/<id>": an SQLite registry would look that up at MLflow's global address.
        source, labels, model_id = logged.artifact_location, dict(tags), logged.model_id
        registered = self._client.create_model_version(
            name, source, run, labels, description=description, model_id=model_id
        )
        self._client.set_registered_model_alias(name, "champion", registered.version)
        link = json.dumps([{"name": name, "version": registered.version}])
        self._client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
        return str(registered.version)


@dataclass(frozen=True)
class TrackedRun:
    """What MLflow knows of a run: text, but for the last value of each metric."""

    id: str
    tags: dict[str, str]
    metrics: dict[str, float]
    parameters: dict[str, str]


@dataclass(frozen=True)
class Winner:
    """A registered model of a study, to be used; `network` computes on the CPU."""

    name: str  # with its version, for messages
    network: "Callable[[torch.Tensor], torch.Tensor]"  # (N, *input) float32 -> (N, *output) logits
    input: tuple[int, ...]  # C, H, W
    output: tuple[int, ...]  # classes, or classes, H, W
    data: dict[str, Any]  # the training data's profile: how they are prepared, names of classes


def best_trials(
    uri: str, experiment: str, metric: str, most: int, study: str | None, where: str | None
) -> list[TrackedRun]:
    """The `most` completed trials of an experiment that have the highest `metric`, best first.

    where: a further condition in MLflow's language, such as "params.architecture = 'unet'".
    Raises InputError where there is no such database or experiment, or `where` is not understood.
    """
    with _reading(uri) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage != "active":
            raise InputError(
                f"experiment '{experiment}': MLflow at '{uri}' has no trial of it; run "
                f"'python studies/{experiment}.py' first, or give another --tracking-uri"
            )
        # A pruned trial has no value: it was stopped on its way to one.
        query = "tags.`dl4ia.kind` = 'trial' AND tags.`dl4ia.state` = 'COMPLETE'"
        query += " AND status = 'FINISHED'"
        query += f" AND {_of_study(study)}" if study else ""
        query += f" AND {where}" if where else ""
        order = f"metrics.`{metric}` DESC"
        size = min(most, RUNS_PER_PAGE)
        runs = islice(_search(client, found.experiment_id, query, order, size), most)
        return [
            TrackedRun(run.info.run_id, run.data.tags, run.data.metrics, run.data.params)
            for run in runs
        ]


def load_winner(uri: str, reference: str) -> Winner:
    """The registered model `NAME@ALIAS` or `NAME/VERSION`; nothing in it is unpickled or run.

    Raises InputError where there is none, or it is not one that a study has registered.
    """
    with _reading(uri) as client:
        version = _find_version(client, uri, reference)
        label = f"model {version.name}/{version.version}"
        inputs = client.get_run(version.run_id).inputs if version.run_id else None
        if inputs is None or not inputs.dataset_inputs:
            raise InputError(f"{label}: was not registered by a study; expected one that was")
        source = str(version.source)
        if source.startswith("/") and not Path(source).is_dir():
            raise InputError(
                f"{label}: its files are not in {source} any more; bring them back there"
            )
        folder = Path(mlflow.artifacts.download_artifacts(source, tracking_uri=uri))
        signature = Model.load(str(folder)).signature
        network = _load_network(folder)
    (shape,), (answer,) = (
        [spec.shape[1:] for spec in side.inputs] for side in (signature.inputs, signature.outputs)
    )
    profile = json.loads(inputs.dataset_inputs[0].dataset.profile or "{}")
    return Winner(label, network, tuple(shape), tuple(answer), profile)


def _find_version(client: MlflowClient, uri: str, reference: str) -> ModelVersion:
    match = re.fullmatch(r"([^/]+)(?:@([^/@]+)|/([0-9]+))", reference)
    if match is None:
        raise InputError(
            f"--model {reference}: expected NAME@ALIAS or NAME/VERSION, such as "
            "segmentation-warwick@champion"
        )
    name, alias, number = match.groups()
    known = [model.name for model in client.search_registered_models()]
    if name not in known:
        models = f"it has {', '.join(known)}" if known else "a finished study registers its winner"
        raise InputError(f"--model {reference}: no model {name!r} in MLflow at '{uri}'; {models}")
    if alias:
        return client.get_model_version_by_alias(name, alias)
    return client.get_model_version(name, number)


def _load_network(folder: Path) -> "torch.nn.Module":
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


@contextmanager
def _reading(uri: str) -> Iterator[MlflowClient]:
    """A client of what is there; raises InputError where it is not, or says something is wrong."""
    check_tracked(uri)
    try:
        yield MlflowClient(uri, registry_uri=uri)
    except (MlflowException, SQLAlchemyError, CommandError) as error:
        raise InputError(f"MLflow at '{uri}': {first_line(error)}") from error


def _search(
    client: MlflowClient, experiment: str, query: str, order: str, page_size: int = RUNS_PER_PAGE
) -> Iterator[Run]:
    page: str | None = ""
    while page is not None:
        runs = client.search_runs(
            [experiment],
            query,
            max_results=page_size,
            order_by=[order],
            page_token=page or None,
        )
        yield from runs
        page = runs.token or None


def _of_study(study: str) -> str:
    quote = "'" if '"' in study else '"'
    return f"tags.`dl4ia.study` = {quote}{study}{quote}"


def _create_database(path: Path) -> None:
    """Make a missing database whole or not at all: MLflow cannot mend a migration cut off."""
    if path.exists() and path.stat().st_size > 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for leftover in (part, part.with_name(f"{part.name}-journal")):
        leftover.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
    part.replace(path)


def _export(model: "torch.nn.Module", example: np.ndarray, run: str, folder: Path) -> Model:
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


def _dataset_input(dataset: DatasetRecord) -> DatasetInput:
    source, profile = json.dumps({"uri": dataset.source}), json.dumps(dict(dataset.profile))
    entity = Dataset(dataset.name, dataset.digest, "local", source, profile=profile)
    return DatasetInput(entity, [InputTag("mlflow.data.context", dataset.context)])


def _metrics(record: RunRecord) -> list[Metric]:
    """Final values, and every epoch's, spread evenly over the time that the run took."""
    start = _milliseconds(record.start)
    end = _milliseconds(record.end or datetime.now())
    metrics = [_metric(name, value, end, 0) for name, value in record.metrics.items()]
    for name, values in record.history.items():
        for epoch, value in enumerate(values, start=1):
            time = start + (end - start) * epoch // len(values)
            metrics.append(_metric(name, value, time, epoch))
    return metrics


def _metric(name: str, value: float, time: int, epoch: int) -> Metric:
    """With the name that MLflow allows: a class may be called anything."""
    return Metric(re.sub(r"[^\w./ :-]", "_", name), _finite(value), time, epoch)


def _finite(value: float) -> float:
    """MLflow stores NaN (and skips it in filters), but turns infinity into 1.8e308."""
    return value if math.isfinite(value) else math.nan


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
