"""Everything that a study needs, checked and opened: nothing is written before all is checked."""

import logging
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import torch

from dl4ia.addresses import (
    check_folder,
    check_storage,
    check_tracking,
    database_in,
    exists,
    hide_password,
)
from dl4ia.command_line.flag_types import ALL, LONGEST_STUDY_NAME
from dl4ia.command_line.flags import StudyArguments
from dl4ia.data.dataset import Dataset, Source
from dl4ia.data.splits import fingerprint as split_fingerprint
from dl4ia.data.splits import make_splits
from dl4ia.environment import describe_environment
from dl4ia.errors import InputError
from dl4ia.search.narrowing import left_out, narrowed, spelled
from dl4ia.search.objective import Objective
from dl4ia.search.points import read_points
from dl4ia.search.records import dataset_record
from dl4ia.search.storage import open_storage
from dl4ia.search.study import (
    Identity,
    check_identity,
    check_points,
    enqueue_points,
    open_study,
    study_id,
)
from dl4ia.search.turns import Turns
from dl4ia.search_space import Point, SpaceModule
from dl4ia.search_space import fingerprint as space_fingerprint
from dl4ia.tasks.task import Task
from dl4ia.tracking.runs import DatasetRecord
from dl4ia.training.precision import describe_precision, training_precision

if TYPE_CHECKING:
    from dl4ia.tracking.writing import Tracker


@dataclass(frozen=True)
class Length:
    """Epochs of a full trial, and of the winner's retrainings."""

    trial: int
    retraining: int

    def or_asked(self, arguments: StudyArguments) -> "Length":
        """These defaults, but for what the user asked for: a trial's length is the other's too."""
        trial = arguments.epochs or self.trial
        default = arguments.epochs or self.retraining
        return Length(trial, arguments.retraining_epochs or default)


class SearchTime:
    """How long trials may be begun: `--timeout`, counted from when this command begins to search.

    A command that takes the records over, and searches once more, has what is left.
    """

    def __init__(self, timeout: float | None, until: float | None) -> None:
        """timeout: seconds. until: for a worker, when its study's time is over."""
        self._timeout, self._until = timeout, until

    def end(self) -> float | None:
        """Seconds since 1970, set by the first call; None where there is no limit."""
        if self._until is None and self._timeout is not None:
            self._until = time.time() + self._timeout
        return self._until


@dataclass(frozen=True)
class Session:
    """An open study and what belongs to it."""

    name: str
    arguments: StudyArguments
    retraining_epochs: int
    task: Task
    source: Source
    whole: SpaceModule
    searched: SpaceModule  # what `--within` leaves of it
    dataset: Dataset  # the training images
    identity: Identity
    environment: dict[str, str]
    storage: str
    tracking_uri: str
    study: optuna.Study
    objective: Objective
    turns: Turns
    search_time: SearchTime

    @cached_property
    def tracker(self) -> "Tracker":
        """MLflow, whose database is made if it is missing; what only trains never asks for it."""
        from dl4ia.tracking.writing import Tracker  # slow to import

        artifacts = self.arguments.out / "artifacts" / "mlflow"
        return Tracker(self.tracking_uri, self.task.name, artifacts, study_id(self.study))

    @property
    def data(self) -> DatasetRecord:
        """The training data, for MLflow."""
        return dataset_record(
            self.identity, self.source.description, len(self.dataset), self.task.classes
        )

    @property
    def page(self) -> Path:
        """The report page."""
        return self.arguments.out / "reports" / self.name / "index.html"

    @property
    def trial_pictures(self) -> Path:
        """Where the trials' pictures are kept for the Optuna dashboard."""
        return self.arguments.out / "artifacts" / "optuna"

    @property
    def front_picture(self) -> Path:
        """The Pareto front of several objectives."""
        return self.arguments.out / "artifacts" / self.name / "pareto_front.png"

    @property
    def validation(self) -> str:
        """Of what a trial's value is a mean, in words."""
        splits = self.objective.splits
        others = " of other patients" if self.arguments.split_by == "patient" else ""
        if groups := self.dataset.groups:
            known = [
                groups[image] in trained
                for split in splits
                for trained in [{groups[image] for image in split.train}]
                for image in split.validation
            ]
            if any(known):
                others = f" ({sum(known) / len(known):.0%} of patients who are trained on too)"
        folds = f", {len(splits)} folds" if len(splits) > 1 else ""
        return f"{len(splits[0].validation)} images{others}{folds}"


def open_session(
    task: Task, source: Source, whole: SpaceModule, length: Length, arguments: StudyArguments
) -> Session:
    """Check flags and addresses, read the data, and then create or continue the study.

    Raises InputError for whatever the user must mend, before anything is written (but the decoded
    images that a source may keep).
    """
    device, environment = open_device(arguments.device)
    precision = training_precision(device, task.trains_in_low_precision)
    environment["precision"] = describe_precision(precision, device)
    name = arguments.study_name or f"{task.name}-{source.name}"[:LONGEST_STUDY_NAME]
    storage = arguments.storage or database_in(arguments.out, "optuna.db")
    tracking_uri = arguments.tracking_uri or database_in(arguments.out, "mlflow.db")
    if storage == tracking_uri:
        raise InputError(
            f"--storage and --tracking-uri are both {hide_password(storage)}; expected two "
            "databases"
        )
    _check_flags(arguments, task, whole)
    searched = narrowed(whole, arguments.within)
    points = _points_of(arguments, whole, searched)
    check_folder(arguments.out)
    if not arguments.worker:  # whose study has asked; what is away for a moment does not end it
        check_tracking(tracking_uri)
        check_storage(storage)
    dataset = source.train()
    groups = _groups_to_split_by(arguments.split_by, source, dataset)
    splits = make_splits(task.strata(dataset), arguments.folds, arguments.seed, groups)
    identity = Identity(
        task=task.name,
        metric=task.metric,
        data=source.name,
        data_fingerprint=dataset.fingerprint(),
        preparation=source.preparation,
        split_fingerprint=split_fingerprint(splits),
        space_fingerprint=space_fingerprint(searched.SPACE),
        epochs=length.trial,
        folds=arguments.folds,
        seed=arguments.seed,
        split_by=arguments.split_by,
        objectives=",".join(arguments.objectives),
        most_weights=arguments.most_weights,
        within=spelled(whole, searched),
    )
    opening = Turns(storage, "all")  # one process at a time makes tables, whatever its study
    if exists(storage):
        with opening.take("open"):
            check_identity(storage, name, identity)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Ctrl-C in the middle of a query is answered in one line, not also as a cursor left open.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    # Of a server that dies in the middle of a query one line is said too, and not also that.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with opening.take("open"):
        check_identity(storage, name, identity)
        if points and not arguments.most_weights:
            check_points(storage, name, searched, points, arguments.trials)
        study = open_study(open_storage(storage), name, identity, searched)
        if points:
            enqueue_points(study, points)
    return Session(
        name=name,
        arguments=arguments,
        retraining_epochs=length.retraining,
        task=task,
        source=source,
        whole=whole,
        searched=searched,
        dataset=dataset,
        identity=identity,
        environment=environment,
        storage=storage,
        tracking_uri=tracking_uri,
        turns=Turns(storage, name),
        search_time=SearchTime(arguments.timeout, arguments.until),
        study=study,
        objective=Objective(
            task,
            searched.SPACE,
            dataset,
            splits,
            length.trial,
            arguments.seed,
            device,
            environment,
            arguments.most_weights,
            arguments.objectives[1:],
        ),
    )


def _check_flags(arguments: StudyArguments, task: Task, whole: SpaceModule) -> None:
    """Raise InputError for those that do not go together, or not with this study."""
    if arguments.objectives and arguments.objectives[0] != task.metric:
        raise InputError(
            f"--objectives {','.join(arguments.objectives)}: expected {task.metric} first, which "
            "this study is about"
        )
    if arguments.knee and not arguments.objectives:
        raise InputError("--knee: expected --objectives too, such as weights besides the metric")
    if arguments.ablate and arguments.objectives and not arguments.knee:
        raise InputError("--ablate: needs a winner; expected --knee beside several --objectives")
    unknown = set(arguments.ablate).difference(ALL, whole.SPACE)
    if unknown:
        raise InputError(
            f"--ablate {','.join(sorted(unknown))}: no hyperparameter of this study; expected some "
            f"of {', '.join(whole.SPACE)}"
        )
    if arguments.gpus_per_worker is not None and not (arguments.ray or arguments.worker):
        raise InputError(
            "--gpus-per-worker: expected --ray too; without it workers are dealt out over the GPUs"
        )
    if arguments.gpus_per_worker and arguments.device == "cpu":
        raise InputError(
            f"--gpus-per-worker {arguments.gpus_per_worker:g}: --device cpu trains on none; "
            "expected 0, or another --device"
        )


def _points_of(
    arguments: StudyArguments, whole: SpaceModule, searched: SpaceModule
) -> dict[str, Point]:
    """Those of `--points`, checked; a worker leaves them to the process that has started it."""
    if arguments.points is None or arguments.worker:
        return {}
    points = read_points(arguments.points, whole.SPACE)
    for label, point in points.items():
        if outside := left_out(searched.SPACE, point):
            raise InputError(
                f"--points {arguments.points}: {label}: --within leaves out {', '.join(outside)}; "
                "expected points inside: give it more, or take this one out of the file"
            )
    return points


def _groups_to_split_by(split_by: str, source: Source, dataset: Dataset) -> tuple[str, ...] | None:
    """N patients that may not be divided; None where images may be split one by one."""
    if split_by == "image":
        return None
    if dataset.groups is None:
        raise InputError(
            f"--split-by patient: {source.name!r} does not say whose its images are; expected "
            "a gland folder with patients.csv beside Train/ and Test/, its first line "
            "split,image,patient and the others such as Train,image_01.png,7: add it, or give "
            "--split-by image"
        )
    return dataset.groups


def open_device(name: str) -> tuple[torch.device, dict[str, str]]:
    """The device that `--device` asks for, and what a result made on it is made with.

    Raises InputError where there is no such device.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device cuda: torch finds no GPU here; expected one, or --device cpu")
    if available and name != "cpu" and not _has_kernels():
        said = f"this build of torch has nothing for {torch.cuda.get_device_name()}"
        if name == "cuda":
            raise InputError(f"--device cuda: {said}; expected a build that has, or --device cpu")
        print(f"{said}: training on the processor", flush=True)
        available = False
    device = torch.device("cuda" if available and name != "cpu" else "cpu")
    return device, describe_environment() | {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def _has_kernels() -> bool:
    """Whether torch was built for the GPU; where not, the first computation on it fails."""
    if torch.version.hip:  # whose architectures are named otherwise
        return True
    major, minor = torch.cuda.get_device_capability()
    for built in torch.cuda.get_arch_list():  # such as sm_86, sm_90a, compute_120
        kind, _, number = built.partition("_")
        its_major, its_minor = divmod(int(re.sub(r"\D", "", number)), 10)
        if kind == "compute" and (its_major, its_minor) <= (major, minor):  # compiled as it runs
            return True
        if its_major == major and its_minor <= minor:
            return True
    return False
