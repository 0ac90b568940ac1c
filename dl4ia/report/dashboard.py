"""What the Optuna dashboard shows besides the trials: notes, pictures, plots.

All of it lies in Optuna's storage, but for the pictures' files. Nothing here is needed by a study:
what was cut off is written by the next run, and what is there is left as it is. The only file that
imports optuna_dashboard.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import FrozenTrial
from torch import nn

from dl4ia.data.dataset import Dataset
from dl4ia.errors import first_line
from dl4ia.report import findings
from dl4ia.report.notes import study_note, trial_note
from dl4ia.search.trials import ended_trials
from dl4ia.selection.finalists import Selection
from dl4ia.session import Session
from dl4ia.training.fit import is_lack_of_memory

NOTE_PART = re.compile(r"dashboard:([0-9]+):note_str:([0-9]+)")
REMARKS = "\n\n---\n\n*Written by dl4ia; what you add below this line is kept.*"


def write_trial_pictures(
    session: Session, trial: optuna.Trial, model: nn.Module, validation: Dataset
) -> None:
    """Keep pictures of what a trial's network makes of validation images, as its artifacts.

    While the trial is running: Optuna takes no artifact of a finished one. A full disk, or memory,
    costs the trial its pictures, no more.
    """
    folder, device = session.trial_pictures, session.objective.device
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store = FileSystemArtifactStore(folder)
        with tempfile.TemporaryDirectory() as temporary:
            for file in session.task.draw_trial(model, validation, device, Path(temporary)):
                upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial)
    except (OSError, MemoryError, RuntimeError) as error:
        if not isinstance(error, OSError) and not is_lack_of_memory(error):
            raise
        trial.set_user_attr("no_pictures", first_line(error))


def write_trial_note(
    study: optuna.Study, metric: str, tracking_uri: str, trial: FrozenTrial, run: str
) -> None:
    """The note of a finished trial, of which MLflow at that address has the run `run`."""
    note = trial_note(trial, metric, tracking_uri, run)
    _write(optuna.Trial(study, trial._trial_id), note)


def trials_without_note(study: optuna.Study, runs: Mapping[str, str]) -> list[FrozenTrial]:
    """Finished trials whose note was cut off, or names another run than MLflow's own.

    runs: number of a trial -> its run, as far as MLflow has it.
    """
    known = study._storage.get_study_system_attrs(study._study_id)
    parts: dict[str, dict[int, str]] = {}  # a trial's id -> its note, which is kept in pieces
    for key, text in known.items():
        if found := NOTE_PART.fullmatch(key):
            parts.setdefault(found[1], {})[int(found[2])] = text

    def is_noted(trial: FrozenTrial) -> bool:
        if f"dashboard:{trial._trial_id}:note_ver" not in known:
            return False
        note = "".join(text for _, text in sorted(parts.get(str(trial._trial_id), {}).items()))
        return runs.get(str(trial.number), "") in note

    return [trial for trial in ended_trials(study) if not is_noted(trial)]


def write_study(session: Session, selection: Selection | None, run: str) -> None:
    """The study's plots and its note, as far as it has come; see `dl4ia.report.notes.study_note`.

    The note is the last, so that where it is whole all is.
    """
    study, metric = session.study, session.task.metric
    if selection is not None:
        from optuna_dashboard import save_plotly_graph_object  # slow to import

        from dl4ia.report import figures  # slow to import

        ablation = findings.ablation_of(study, selection.winner)
        plots = {
            "finalists": ("Finalists", figures.finalists(study, selection, metric)),
            "ablation": (
                f"What each choice of trial {selection.winner} buys",
                figures.ablation(ablation, metric) if ablation else None,
            ),
        }
        for name, (title, figure) in plots.items():
            if figure is not None:
                shown = figures.for_dashboard(figure, title)
                save_plotly_graph_object(study, shown, graph_object_id=name)
    _write(study, study_note(session, selection, run))


def study_is_written(
    session: Session, selection: Selection | None, run: str, runs: Mapping[str, str]
) -> bool:
    """Whether `write_study` and the trials' notes would change nothing; runs: the trials'."""
    from optuna_dashboard import get_note  # slow to import

    note = study_note(session, selection, run) + REMARKS
    if not get_note(session.study).startswith(note):
        return False
    return not trials_without_note(session.study, runs)


def _write(owner: optuna.Study | optuna.Trial, note: str) -> None:
    """Write the note over the last one, but for what the user has added to that."""
    from optuna_dashboard import get_note, save_note  # slow to import

    old = get_note(owner)
    new = note + REMARKS + old.partition(REMARKS)[2]
    if new != old:
        save_note(owner, new)
