"""The winner of a finished search: scored once, pictured, registered."""

import csv
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from dl4ia.addresses import this_command
from dl4ia.data.dataset import Dataset
from dl4ia.errors import InputError, first_line
from dl4ia.evaluation import test_lock
from dl4ia.evaluation.retraining import Retraining
from dl4ia.evaluation.scoring import score, summary, table
from dl4ia.report.findings import interval
from dl4ia.search.records import winner_record
from dl4ia.search.trials import trial_of
from dl4ia.search.turns import KEEP
from dl4ia.selection.finalists import Selection
from dl4ia.session import Session
from dl4ia.text import plural
from dl4ia.training.precision import exactly
from dl4ia.workflow.ahead import Ahead
from dl4ia.workflow.retrainings import (
    folder_of,
    retrain,
    retrain_report_model,
    train_missing,
    validation_history,
)

SCORES = "test_scores.csv"  # of every seed and image
EXAMPLE_IMAGES = 2  # of the exported model; one would freeze its batch size


def check_winner(session: Session, selection: Selection) -> None:
    """Raise InputError where the test set was opened for something else; see `test_lock`."""
    if not scoring_is_done(session, selection):
        test_lock.check_test_lock(
            session.study, _candidate(session, selection), session.arguments.reopen_test
        )


def _candidate(session: Session, selection: Selection) -> test_lock.Candidate:
    seeds, epochs = session.arguments.seeds, session.retraining_epochs
    return test_lock.Candidate(selection.winner, seeds, epochs)


def score_winner(session: Session, selection: Selection, ahead: Ahead) -> None:
    """Retrain the winner, and the report's best model beside it, score both, and write the study.

    Call `check_winner` first. Raises InputError where retraining fails.
    """
    from dl4ia.tasks.pictures import draw_history  # slow to import

    study, seeds, epochs = session.study, session.arguments.seeds, session.retraining_epochs
    if scoring_is_done(session, selection):
        _bring_up_to_date(session, selection)
        return
    trial = trial_of(study, selection.winner)
    start = datetime.now()
    train_missing(session, selection, ahead)
    ahead.close()  # scoring takes memory
    history = validation_history(session, trial)
    retrainings = retrain(session, trial.number, trial.params, seeds, epochs)
    others = retrain_report_model(session, selection)
    environment, device = session.environment, session.objective.device
    session.turns.confirm(KEEP)  # no two processes open it
    candidate = _candidate(session, selection)
    test = test_lock.open_test_set(study, session.source, candidate, environment)
    scored = score(session.task, [each.model for each in retrainings], test, device)
    other = score(session.task, [each.model for each in others], test, device) if others else None
    histories = [retraining.history for retraining in retrainings]
    folder = folder_of(session, trial.number)
    with exactly():  # as it is scored
        # The first seed's model, never the best one's on the test set.
        files = session.task.draw(retrainings[0].model, test, device, folder)
    draw_history(history, histories, session.task.metric, folder / "history.png")
    rows = table({"winner": scored} | ({"report model": other} if other else {}), test)
    _write_csv(rows, folder / SCORES)
    winner = {
        "trial": trial.number,
        "opening": len(study.user_attrs["test_openings"]),
        "point": trial.params,
        "weights": trial.user_attrs["weights"],
        "seeds": seeds,
        "epochs": epochs,
        "metrics": {name: values[-1] for name, values in history.items()}
        | _over_repeats(selection, session.task.metric)
        | summary(scored, other, test.groups),
        "images": len(test),
        "patients": len(set(test.groups)) if test.groups else None,
        "of_known_patients": _of_known_patients(session.dataset, test),
        "compared_with": selection.report_model if others else None,
        "retrainings": histories,
        "command": this_command(),
        "commits": sorted({retraining.code for retraining in [*retrainings, *others]}),
        "test_fingerprint": test.fingerprint(),
        "model_fingerprint": retrainings[0].fingerprint,  # of the one that is registered
        "start": start.isoformat(),
        "end": datetime.now().isoformat(),
        "pictures": [str(file) for file in [*files, folder / "history.png"]],
        "scores": str(folder / SCORES),
    }
    _keep_former(study)
    study.set_user_attr("winner", winner)


def _keep_former(study: optuna.Study) -> None:
    """What the test set was opened for before stays on record, with its score."""
    former = study.user_attrs.get("winner")
    known = study.user_attrs.get("former_winners", [])
    if former is not None and former["opening"] not in [each["opening"] for each in known]:
        kept = {name: value for name, value in former.items() if name != "retrainings"}
        study.set_user_attr("former_winners", [*known, kept])


def _over_repeats(selection: Selection, metric: str) -> dict[str, float]:
    """The winner's mean over the finalists' repeats, with its spread and interval if it has them.

    The honest validation figure of so long a training as a trial's, whose value in the search was
    chosen for being high.
    """
    if not selection.finalists:
        return {}
    found, name = selection.estimate(selection.of(selection.winner)), f"repeats_{metric}"
    values = {name: found.mean}
    if found.count > 1:
        values[f"{name}_sd"] = found.deviation
    if found.has_interval:
        values |= {f"{name}_low": found.low, f"{name}_high": found.high}
    return values


def _of_known_patients(train: Dataset, test: Dataset) -> int | None:
    """How many test images are of patients who have training images; None of unknown patients."""
    if train.groups is None or test.groups is None:
        return None
    known = set(train.groups)
    return sum(group in known for group in test.groups)


def _bring_up_to_date(session: Session, selection: Selection) -> None:
    """Where --out was moved, the winner's files are with it; it may have further repeats too."""
    winner: dict[str, Any] = session.study.user_attrs.get("winner", {})
    if not winner:
        return
    folder, metric = folder_of(session, winner["trial"]), session.task.metric
    now = dict(winner)
    if (folder / SCORES).exists():
        now["pictures"] = [str(folder / Path(name).name) for name in winner["pictures"]]
        now["scores"] = str(folder / SCORES)
    repeats = _over_repeats(selection, metric)
    if repeats and winner["trial"] == selection.winner:  # with --seeds 0 it may be another's score
        others = {
            name: value
            for name, value in winner["metrics"].items()
            if not name.startswith(f"repeats_{metric}")
        }
        now["metrics"] = others | repeats
    if now != winner:
        session.study.set_user_attr("winner", now)


def scoring_is_done(session: Session, selection: Selection) -> bool:
    """Whether no score is missing: of as many seeds and epochs as are asked for, if any are."""
    if not session.arguments.seeds:
        return True
    known: dict[str, Any] = session.study.user_attrs.get("winner", {})
    if known.get("trial") != selection.winner:
        return False
    enough = bool(known["seeds"] >= session.arguments.seeds)
    return enough and bool(known["epochs"] == session.retraining_epochs)


def winner_is_tracked(session: Session) -> bool:
    """Whether MLflow has the study's winner, with its model; of 0 seeds there is none to have."""
    return not session.arguments.seeds or _run_of_winner(session) is not None


def _run_of_winner(session: Session) -> str | None:
    """In MLflow, where it is written whole."""
    written = session.tracker.find(session.name, "winner", "dl4ia.opening")
    return written.get(str(session.study.user_attrs["winner"]["opening"]))


def track_winner(session: Session, parent: str, page: Path) -> None:
    """Write the recorded winner, its pictures, report page and model into MLflow, if missing.

    The run is RUNNING until all of it is written: one cut off is discarded and written again. Of
    one that is there the page is renewed.
    """
    if not session.arguments.seeds:
        return
    session.turns.confirm(KEEP)
    if (known := _run_of_winner(session)) is not None:
        if page.exists():
            session.tracker.log_files(known, [page], "report")
        return
    winner = session.study.user_attrs["winner"]
    record = winner_record(session.name, session.identity, winner, session.environment)
    run = session.tracker.write(replace(record, end=None, status="RUNNING"), session.data, parent)
    files = [Path(name) for name in winner["pictures"]]
    session.tracker.log_files(run, [file for file in files if file.exists()], "pictures")
    if Path(winner["scores"]).exists():
        session.tracker.log_files(run, [Path(winner["scores"])], "scores")
    if page.exists():
        session.tracker.log_files(run, [page], "report")
    (first,) = retrain(session, winner["trial"], winner["point"], 1, winner["epochs"])
    _register(session, run, first, winner)
    session.tracker.close(run, "FINISHED", record.end)


def _write_csv(rows: list[dict[str, Any]], file: Path) -> None:
    try:
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({first_line(error)})") from error


def _register(session: Session, run: str, first: Retraining, winner: dict[str, Any]) -> None:
    example = session.dataset.images[:EXAMPLE_IMAGES].numpy().astype(np.float32)
    metric, known = session.task.metric, winner["metrics"]
    test, repeats = f"test_{metric}", f"repeats_{metric}"
    ends = [f"{name}{end}" for name in (repeats, test) for end in ("", "_low", "_high")]
    names = (f"val_{metric}", *ends)
    scores = {name: f"{known[name]:.4f}" for name in names if name in known}
    folds, trained = session.identity.folds, session.identity.epochs
    own = "the search's own split" if folds == 1 else f"the search's {folds} folds"
    fresh = ""
    if repeats in scores:
        fresh = f", {scores[repeats]} after the trials' {trained} on the finalists' splits"
    description = (
        f"Images (N, C, H, W) in [0, 1] to logits (N, classes, …). Trial {winner['trial']}, the "
        f"first of {winner['seeds']} retraining seeds. Validation {metric} "
        f"{scores.get(f'val_{metric}')} after {plural(winner['epochs'], 'epoch')} on {own}{fresh}; "
        f"test {metric} {scores.get(test)}, the seeds' mean"
    )
    if f"{test}_low" in scores:
        description += f", 95 % interval {interval(known, test)}"
    description += "."
    # Studies before there were fingerprints have none.
    if winner.get("model_fingerprint", first.fingerprint) != first.fingerprint:
        description += (
            " These are not the weights that were scored: their file was gone, and the training, "
            "made again, came to others."
        )
        print(f"The registered model: {description}", flush=True)
    session.tracker.register_model(run, first.model, example, session.name, scores, description)
