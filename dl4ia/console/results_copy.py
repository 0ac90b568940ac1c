"""A study as a database of its own, to be published or gone on with elsewhere."""

import re
import tempfile
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from dl4ia.addresses import hide_password
from dl4ia.errors import InputError, first_line

OF_A_PROCESS = re.compile(r"(process \d+) on \S+")


def check_copy(study: optuna.Study, url: str, file: Path) -> None:
    """Raise InputError where a copy of `study`, from the database at `url`, would cost trials.

    An earlier copy may have been gone on with, or be in use.
    """
    if not file.exists() or _is_the_same(url, file):
        return
    elsewhere = "give another --to"
    beside = [file.with_name(file.name + end) for end in ("-wal", "-journal")]
    if any(each.exists() and each.stat().st_size for each in beside):
        raise InputError(
            f"{file}: another program uses it, or one was killed while it did; end it, or open the "
            f"study there once more, or {elsewhere}"
        )
    try:
        known = optuna.load_study(study_name=study.study_name, storage=f"sqlite:///{file}")
    except (KeyError, RuntimeError, StorageInternalError, SQLAlchemyError) as error:
        raise InputError(
            f"{file}: is no copy of study {study.study_name!r} ({first_line(error)}); {elsewhere}"
        ) from error
    ours = {_begun(trial) for trial in study.get_trials(deepcopy=False)}
    further = [
        trial
        for trial in known.get_trials(deepcopy=False)
        if trial.datetime_start is not None and _begun(trial) not in ours
    ]
    known._storage.remove_session()
    if further:
        raise InputError(
            f"{file}: the study was gone on with there, {len(further)} of its trials are not in "
            f"{hide_password(url)}; ask for its results with --storage sqlite:///{file}, or "
            f"{elsewhere}"
        )


def write_copy(study: optuna.Study, url: str, file: Path) -> None:
    """Replace `file`, or leave it where it is the study's own database; `check_copy` first.

    Without the dashboard's notes, which the study's next run writes again, and without the names of
    hosts. Raises InputError where it cannot be written.
    """
    if _is_the_same(url, file):
        return
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".") as temporary:
            new = Path(temporary) / file.name
            _write(study, RDBStorage(f"sqlite:///{new}"))
            new.replace(file)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise InputError(f"{file}: cannot be written ({first_line(error)})") from error


def _write(study: optuna.Study, storage: RDBStorage) -> None:
    copied = optuna.create_study(
        storage=storage, study_name=study.study_name, directions=study.directions
    )
    for key, value in study._storage.get_study_system_attrs(study._study_id).items():
        if not key.startswith("dashboard:"):
            storage.set_study_system_attr(copied._study_id, key, value)
    for key, value in study.user_attrs.items():
        copied.set_user_attr(key, value)
    trials = tqdm(study.get_trials(), unit="trial", disable=None, leave=False)
    copied.add_trials(_without_host(trial) for trial in trials)
    storage.engine.dispose()


def _without_host(trial: FrozenTrial) -> FrozenTrial:
    told = {key: value for key, value in trial.user_attrs.items() if key != "process"}
    for key in ("interrupted", "failure"):
        if key in told:
            told[key] = OF_A_PROCESS.sub(r"\1", told[key])
    trial._user_attrs = told
    return trial


def _begun(trial: FrozenTrial) -> tuple[int, str]:
    return trial.number, str(trial.datetime_start)


def _is_the_same(url: str, file: Path) -> bool:
    path = url.removeprefix("sqlite:///")
    return path != url and Path(path).resolve() == file.resolve()
