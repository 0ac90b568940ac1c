"""What MLflow is told of a study: takes plain data and decides nothing.

One process writes a study, by one `Tracker`, and each trial when it has ended.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from alembic.util import CommandError
from filelock import FileLock
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
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from dl4ia.addresses import hide_password
from dl4ia.errors import InputError, TrackingError, first_line
from dl4ia.text import metric_name
from dl4ia.tracking.moving import follow_move
from dl4ia.tracking.runs import WRITTEN_AT_ONCE, DatasetRecord, Kind, RunRecord, Status
from dl4ia.tracking.search import of_study, search_runs

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_PARAMETER, LONGEST_TAG = 6000, 8000  # characters, MLflow's limits
DESCRIPTION = "mlflow.note.content"
STUDY_ID = "dl4ia.study_id"
TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # else its pages expect prompts


def _told(method: Callable[P, T]) -> Callable[P, T]:
    """Where MLflow fails, it is a `TrackingError`, which who only trains knows without MLflow."""

    @wraps(method)
    def told(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(*arguments, **named)
        except (MlflowException, RequestException) as error:  # a file's upload raises the latter
            raise TrackingError(first_line(error)) from error.__cause__ or error

    return told


class Tracker:
    """Writes runs into one experiment at one address. Methods raise `TrackingError`."""

    def __init__(self, uri: str, experiment: str, artifacts: Path, study_id: str = "") -> None:
        """Open the database, creating it (3 s) and the experiment where they are missing.

        Files go under `artifacts`, or where the server at an http address keeps its own. study_id:
        of the one study that is written, whose runs alone are found: another may have the name, or
        have had it.

        Raises:
            InputError: the database is broken or out of date, or the experiment was deleted.
        """
        self._study_id, shown = study_id, hide_password(uri)
        try:
            database = Path(uri.removeprefix("sqlite:///"))
            if uri.startswith("sqlite:///"):
                _create_database(database)
            self._client = MlflowClient(uri, registry_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            if found is not None and uri.startswith("sqlite:///"):
                follow_move(database, found.artifact_location, artifacts)
            if found is None:
                folder = str(artifacts.resolve()) if uri.startswith("sqlite:") else None
                self._experiment = self._create_experiment(experiment, folder)
                return
        except (MlflowException, SQLAlchemyError, CommandError) as error:
            raise InputError(
                f"MLflow at '{shown}' cannot be opened: {first_line(error)}; repair it, "
                "or give another address"
            ) from error
        if found.lifecycle_stage != "active":
            raise InputError(
                f"MLflow experiment '{experiment}' at '{shown}' was deleted; restore it "
                f"with 'mlflow experiments restore -x {found.experiment_id}', or use another name"
            )
        self._experiment = found.experiment_id

    def _create_experiment(self, name: str, folder: str | None) -> str:
        """Its id, also where another process has just made it."""
        try:
            return str(self._client.create_experiment(name, folder, TRAINING))
        except MlflowException as error:
            found = self._client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)

    @_told
    def find(self, study: str, kind: Kind, tag: str = "dl4ia.trial") -> dict[str, str]:
        """The value of `tag` (or "") -> id, of the runs of that kind; the newest of several.

        What is RUNNING was cut off while it was written, and is left out; but a study may be.
        """
        runs = self._search(study, kind, "" if kind == "study" else "status != 'RUNNING'")
        return {run.data.tags.get(tag, ""): run.info.run_id for run in runs}

    @_told
    def discard_unfinished(
        self, study: str, kinds: Iterable[Kind] = WRITTEN_AT_ONCE, row: str = ""
    ) -> None:
        """Delete the runs that `find` leaves out, with the models that they had begun to log.

        row: of that "dl4ia.row" alone. Only while no other process writes what is deleted.
        """
        condition = "status = 'RUNNING'" + (f" AND tags.`dl4ia.row` = '{row}'" if row else "")
        for kind in kinds:
            for run in list(self._search(study, kind, condition)):
                made = f"source_run_id = '{run.info.run_id}'"
                for model in self._client.search_logged_models([self._experiment], made):
                    self._client.delete_logged_model(model.model_id)
                self._client.delete_run(run.info.run_id)

    def _search(self, study: str, kind: Kind, condition: str) -> Iterator[Run]:
        query = f"{of_study(study)} AND tags.`dl4ia.kind` = '{kind}'"
        query += f" AND tags.`{STUDY_ID}` = '{self._study_id}'" if self._study_id else ""
        query += f" AND {condition}" if condition else ""
        yield from search_runs(self._client, self._experiment, query, "start_time ASC")

    @_told
    def write(self, record: RunRecord, dataset: DatasetRecord | None, parent: str | None) -> str:
        """Create a run, with everything `record` says, as a child of run `parent`; return its id.

        A run that cannot be written whole is deleted again.
        """
        tags = {**record.tags, "dl4ia.kind": record.kind, "dl4ia.study": record.study}
        if self._study_id:
            tags[STUDY_ID] = self._study_id
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        tags |= {"mlflow.source.name": "dl4ia", "mlflow.source.type": "LOCAL"}
        if "dl4ia.commit" in tags:
            tags["mlflow.source.git.commit"] = tags["dl4ia.commit"]
        if record.description:
            tags[DESCRIPTION] = record.description
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
            with suppress(Exception):  # as of a server that is away: what is raised is the first
                self._client.delete_run(run)
            raise
        return run

    @_told
    def close(
        self,
        run: str,
        status: Status,
        end: datetime | None = None,
        metrics: Mapping[str, float] = MappingProxyType({}),
        description: str = "",
    ) -> None:
        """End a run at `end` (None: now), adding final metrics and its page's description."""
        ended = _milliseconds(end or datetime.now())
        values = [_metric(name, value, ended, 0) for name, value in metrics.items()]
        labels = [RunTag(DESCRIPTION, _shortened(description, LONGEST_TAG))] if description else []
        self._client.log_batch(run, values, tags=labels)
        self._client.set_terminated(run, status, ended)

    @_told
    def reopen(self, run: str) -> None:
        """Call a run RUNNING again (MLflow keeps its last end time until it is closed again)."""
        self._client.update_run(run, "RUNNING")

    @_told
    def log_files(self, run: str, files: Iterable[Path], folder: str) -> None:
        """Copy files into the run's `folder`, "pictures" for example."""
        for file in files:
            self._client.log_artifact(run, str(file), folder)

    @_told
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
        from dl4ia.tracking.models import export_network  # slow to import

        self._drop_cut_off_versions(name)
        # MLflow's log_model works at its global address, and loads and runs the model once more.
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "model")
            exported = export_network(model, example, run, folder)
            logged = self._client.create_logged_model(self._experiment, name, source_run_id=run)
            exported.model_id, exported.artifact_path = logged.model_id, logged.artifact_location
            exported.save(str(folder / "MLmodel"))
            self._client.log_model_artifacts(logged.model_id, str(folder))
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
        return self._register(logged, run, name, tags, description)

    def _drop_cut_off_versions(self, name: str) -> None:
        """Delete the versions whose run was cut off, and deleted since.

        One that has no run, as where somebody has registered it by hand, is none of these.
        """
        for version in self._client.search_model_versions(f"name = '{name}'"):
            if not version.run_id:
                continue
            try:
                run = self._client.get_run(version.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # as after `mlflow gc`
                    raise
                continue
            if run.info.lifecycle_stage == "deleted":
                self._client.delete_model_version(name, version.version)

    def _register(
        self, logged: LoggedModel, run: str, name: str, tags: Mapping[str, str], description: str
    ) -> str:
        try:
            self._client.create_registered_model(
                name, description=f"The winners of the study {name}; its champion is the newest."
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Not "models:/<id>": an SQLite registry would look that up at MLflow's global address.
        source, labels, model_id = logged.artifact_location, dict(tags), logged.model_id
        registered = self._client.create_model_version(
            name,
            source,
            run,
            labels,
            description=description,
            await_creation_for=0,  # else a server is asked, and the user told, for how long
            model_id=model_id,
        )
        self._client.set_registered_model_alias(name, "champion", registered.version)
        link = json.dumps([{"name": name, "version": registered.version}])
        self._client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
        return str(registered.version)


def _create_database(path: Path) -> None:
    """Make a missing database whole or not at all: MLflow cannot mend a migration cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.making.lock")):
        if not path.exists() or path.stat().st_size == 0:
            _make_database(path)


def _make_database(path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    for leftover in (part, part.with_name(f"{part.name}-journal")):
        leftover.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
    part.replace(path)


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
    return Metric(metric_name(name), _finite(value), time, epoch)


def _finite(value: float) -> float:
    """MLflow stores NaN (and skips it in filters), but turns infinity into 1.8e308."""
    return value if math.isfinite(value) else math.nan


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
