"""MLflow written anew from Optuna's storage, as far as it lacks anything."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError

from dl4ia.addresses import check_tracking, hide_password
from dl4ia.environment import describe_environment
from dl4ia.errors import InputError, TrackingError, first_line
from dl4ia.report.dashboard import write_trial_note
from dl4ia.search.study import Identity, find_study, study_id
from dl4ia.search.turns import KEEP, Turns
from dl4ia.selection.finalists import completed_since
from dl4ia.text import plural
from dl4ia.tracking.runs import DatasetRecord
from dl4ia.tracking.writing import Tracker
from dl4ia.workflow.recording import (
    closed_if_cut_off,
    open_parent,
    write_repeats,
    write_trials,
)


@dataclass(frozen=True)
class StoredStudy:
    """A study without its images; a `dl4ia.workflow.recording.Recorded`."""

    name: str
    study: optuna.Study
    identity: Identity
    environment: dict[str, str]
    data: DatasetRecord
    tracker: Tracker


def sync_study(name: str, storage: str, tracking_uri: str, out: Path) -> str:
    """Write what MLflow lacks of the study's trials and repeats; what was done, in one line.

    The winner is left to the study's own command, which has the images that its model is exported
    with. Raises InputError where there is no such study, or another process is writing it.
    """
    check_tracking(tracking_uri)
    study = find_study(storage, name)
    identity = Identity.recorded(study.user_attrs["identity"])
    known = {"name": identity.data, "digest": identity.data_fingerprint, "source": identity.data,
             "profile": identity.preparation, "context": "training"}  # fmt: skip
    with Turns(storage, name).take(KEEP, wait=False) as mine:
        if not mine:
            raise InputError(f"study {name!r}: another process keeps its records; wait for it")
        recorded = StoredStudy(
            name,
            study,
            identity,
            describe_environment(),
            DatasetRecord(**known | study.user_attrs.get("data", {})),
            Tracker(tracking_uri, identity.task, out / "artifacts" / "mlflow", study_id(study)),
        )
        try:
            parent = open_parent(recorded)
            with closed_if_cut_off(lambda: recorded.tracker.close(parent, "KILLED")):
                written = recorded.tracker.find(name, "trial")
                before = len(written)
                note = partial(write_trial_note, study, identity.metric, tracking_uri)
                write_trials(recorded, parent, written, note)
                repeats = write_repeats(recorded, parent)
            recorded.tracker.close(parent, "FINISHED" if _has_ended(study) else "KILLED")
        except (TrackingError, StorageInternalError) as error:
            raise InputError(
                f"MLflow at {hide_password(tracking_uri)}, or the study's storage, failed "
                f"({first_line(error)}); the study {name!r} is intact: the same command goes on"
            ) from error
    trials = len(written) - before
    return f"{name}: {plural(trials, 'trial')} and {plural(repeats, 'repeat')} written"


def _has_ended(study: optuna.Study) -> bool:
    """Whether its winner, or its front, is of all trials that it has completed."""
    return not {"selection", "front"}.isdisjoint(study.user_attrs) and not completed_since(study)
