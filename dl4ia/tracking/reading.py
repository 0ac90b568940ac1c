"""What MLflow is asked: the best trials, and a study's winner to be used."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow.artifacts
from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from sqlalchemy.exc import SQLAlchemyError

from dl4ia.addresses import check_tracked, hide_password
from dl4ia.errors import InputError, first_line
from dl4ia.tracking.search import RUNS_PER_PAGE, of_study, search_runs

if TYPE_CHECKING:
    import torch

MOST_NAMED = 20  # models, where one is missing


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
                f"experiment '{experiment}': MLflow at '{hide_password(uri)}' has no trial of it; "
                f"run 'python studies/{experiment}.py' first, or give another --tracking-uri"
            )
        # A pruned trial has no value: it was stopped on its way to one.
        query = "tags.`dl4ia.kind` = 'trial' AND tags.`dl4ia.state` = 'COMPLETE'"
        query += " AND status = 'FINISHED'"
        query += f" AND {of_study(study)}" if study else ""
        query += f" AND {where}" if where else ""
        order = f"metrics.`{metric}` DESC"
        size = min(most, RUNS_PER_PAGE)
        runs = islice(search_runs(client, found.experiment_id, query, order, size), most)
        return [
            TrackedRun(run.info.run_id, run.data.tags, run.data.metrics, run.data.params)
            for run in runs
        ]


def study_names(uri: str, experiment: str) -> list[str]:
    """Of all studies in an experiment; none where there is no such."""
    with _reading(uri) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        query, order = "tags.`dl4ia.kind` = 'study'", "attributes.start_time"
        runs = search_runs(client, found.experiment_id, query, order, RUNS_PER_PAGE)
        return sorted({run.data.tags["dl4ia.study"] for run in runs})


def load_winner(uri: str, reference: str) -> Winner:
    """The registered model `NAME@ALIAS` or `NAME/VERSION`; nothing in it is unpickled or run.

    Raises InputError where there is none, or it is not one that a study has registered.
    """
    from dl4ia.tracking.models import load_network  # imports torch

    with _reading(uri) as client:
        version = _find_version(client, uri, reference)
        label = f"model {version.name}/{version.version}"
        inputs = client.get_run(version.run_id).inputs if version.run_id else None
        if inputs is None or not inputs.dataset_inputs:
            raise InputError(f"{label}: was not registered by a study; expected one that was")
        source = str(version.source)
        if source.startswith("/") and not Path(source).is_dir():
            raise InputError(
                f"{label}: its files are not in {source} any more; bring them back there, or, "
                "where all of --out was moved, give the study's command once more: it finds them"
            )
        with TemporaryDirectory() as temporary:
            place = source if Path(source).is_dir() else None  # else it is copied from a server
            folder = place or mlflow.artifacts.download_artifacts(
                source, tracking_uri=uri, dst_path=temporary
            )
            signature = Model.load(folder).signature
            network = load_network(Path(folder))
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
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [model.name for model in client.search_registered_models(max_results=MOST_NAMED)]
        models = "a finished study registers its winner, or its command once more"
        if known:
            models = f"it has {', '.join(known)}"
        more = ", …" if len(known) == MOST_NAMED else ""
        raise InputError(
            f"--model {reference}: no model {name!r} in MLflow at '{hide_password(uri)}'; "
            f"{models}{more}"
        ) from error
    if alias:
        return client.get_model_version_by_alias(name, alias)
    return client.get_model_version(name, number)


@contextmanager
def _reading(uri: str) -> Iterator[MlflowClient]:
    """A client of what is there; raises InputError where it is not, or says something is wrong."""
    check_tracked(uri)
    try:
        yield MlflowClient(uri, registry_uri=uri)
    except (MlflowException, SQLAlchemyError, CommandError) as error:
        raise InputError(f"MLflow at '{hide_password(uri)}': {first_line(error)}") from error
