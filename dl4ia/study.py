"""The search: an Optuna study that can be stopped at any moment and goes on where it was.

The storage is the one record. A study's identity (data, split, space, metric, training length) is
written into it and compared on every start: what does not match is refused, never mixed.
"""

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dl4ia.addresses import CONNECTION_SECONDS, exists, hide_password
from dl4ia.environment import is_alive, is_dead
from dl4ia.errors import InputError, TrialFailure, first_line
from dl4ia.objective import Objective, derive_seed
from dl4ia.search_space import SpaceModule, check_point

StorageError = optuna.exceptions.StorageInternalError
RANDOM_TRIALS = 8  # after the named points, before the sampler begins to model
REDUCTION = 4  # Hyperband: of the trials that reach a quarter of the epochs, a quarter go on
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Identity:
    """What must be the same for two runs of a command to be the same study."""

    task: str
    metric: str
    data: str
    data_fingerprint: str
    preparation: dict[str, str | float]
    split_fingerprint: str
    space_fingerprint: str
    epochs: int
    folds: int
    seed: int
    # As in the studies recorded before there was a choice.
    split_by: str = "image"
    objectives: str = ""  # of several: their names, with commas between


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage; on SQLite without waiting for the disk at every write.

    With a write-ahead log and `synchronous=NORMAL` a power cut may lose the last moments, a killed
    process nothing (sqlite.org/wal.html).
    """
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=_engine_arguments(url))
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, ImportError, StorageError) as error:
        raise InputError(
            f"--storage {hide_password(url)}: cannot be used ({first_line(error)}); name another "
            "database"
        ) from error


def _engine_arguments(url: str) -> dict[str, Any]:
    if not url.startswith("sqlite"):
        return {"connect_args": {"connect_timeout": CONNECTION_SECONDS}}

    def connect() -> Any:
        import sqlite3

        connection = sqlite3.connect(
            str(sqlalchemy.make_url(url).database), timeout=60, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return {"creator": connect}


def open_study(
    storage: optuna.storages.RDBStorage,
    name: str,
    identity: Identity,
    searched: SpaceModule,
) -> optuna.Study:
    """Create the study, its named points enqueued first, or go on with it.

    Call `check_identity` first.
    """
    named_points = searched.REPORT_MODELS | searched.REFERENCE_MODELS
    for label, point in named_points.items():
        check_point(searched.SPACE, point, label)
    further = [name for name in identity.objectives.split(",")[1:] if name]
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(further)],
        load_if_exists=True,
    )
    if "identity" not in study.user_attrs:
        study.set_user_attr("identity", asdict(identity))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([f"val_{identity.metric}", *further])
    enqueued = {trial.user_attrs.get("point") for trial in study.get_trials(deepcopy=False)}
    for label, point in named_points.items():
        if label not in enqueued:
            attributes = {"point": label}
            if label in searched.REPORT_MODELS:
                attributes["report_model"] = label
            study.enqueue_trial(dict(point), user_attrs=attributes)
    _run_interrupted_again(study)
    known = len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(
        n_startup_trials=len(named_points) + RANDOM_TRIALS,
        # A fixed seed would begin its stream again on every start and repeat the first trials.
        seed=derive_seed(identity.seed, "sampler", known),
    )
    study.pruner = optuna.pruners.HyperbandPruner(
        # One bracket: a second one would be of trials that are never pruned, two fifths of them.
        min_resource=identity.epochs // REDUCTION + 1,
        max_resource=identity.epochs,
        reduction_factor=REDUCTION,
    )
    return study


def check_identity(url: str, name: str, identity: Identity) -> None:
    """Raise InputError where `name` is another study already, or is being run; writes nothing."""
    if not exists(url):
        return
    storage = open_storage(url)
    if name not in optuna.get_all_study_names(storage):
        return
    study = optuna.load_study(study_name=name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    known = study.user_attrs.get("identity", {})
    if not known and not trials:
        return  # it was cut off while it was created
    known = {"split_by": Identity.split_by, "objectives": Identity.objectives} | known
    differences = [
        f"{key} is {known.get(key)!r} there and {value!r} here"
        for key, value in asdict(identity).items()
        if known.get(key) != value
    ]
    if differences:
        raise InputError(
            f"study {name!r} is another one: {'; '.join(differences)}; "
            "give another --study-name, or the same data and flags"
        )
    for trial in trials:
        process = trial.user_attrs.get("process")
        if trial.state == TrialState.RUNNING and process is not None and is_alive(process):
            raise InputError(
                f"study {name!r} is being run by process {process['pid']}; wait for it or stop it"
            )


def _run_interrupted_again(study: optuna.Study) -> None:
    """Fail the trials whose process is dead, and enqueue every interrupted point once more."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        process = trial.user_attrs.get("process")
        if process is None or is_dead(process):
            study.tell(trial.number, state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    for trial in trials:
        if is_interrupted(trial) and trial.number not in retried:
            kept = ("seed", "point", "report_model")
            attributes = {key: trial.user_attrs[key] for key in kept if key in trial.user_attrs}
            point = trial.system_attrs.get("fixed_params", {}) | trial.params
            study.enqueue_trial(point, user_attrs=attributes | {"retry_of": trial.number})


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial was cut off: it says nothing of its point, and does not count."""
    return trial.state == TrialState.FAIL and "failure" not in trial.user_attrs


def first_value(trial: FrozenTrial) -> float:
    """A completed trial's validation metric, of several objectives the first."""
    values: list[float] = trial.values
    return values[0]


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards `--trials`: completed, pruned, or failed for a reason."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return [trial for trial in trials if not is_interrupted(trial)]


def search(
    study: optuna.Study,
    objective: Objective,
    trials: int,
    timeout: float | None,
    after_trial: Callable[[FrozenTrial], None],
) -> None:
    """Run trials until `trials` of the study have finished, or `timeout` seconds have passed."""

    def stop_when_done(study: optuna.Study, trial: FrozenTrial) -> None:
        after_trial(trial)
        if len(finished_trials(study)) >= trials:
            study.stop()

    if len(finished_trials(study)) >= trials:
        return
    try:
        study.optimize(
            objective, timeout=timeout, catch=(TrialFailure,), callbacks=[stop_when_done]
        )
    except UnboundLocalError as error:
        # Optuna 5.0's own, where Ctrl-C comes while it tells a trial's end.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
