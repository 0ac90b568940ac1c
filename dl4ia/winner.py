"""The winner of a finished search: retrained, scored once, pictured, registered."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import FrozenTrial

from dl4ia import evaluation, pictures
from dl4ia.addresses import this_command
from dl4ia.ahead import train_ahead
from dl4ia.attributes import history_of
from dl4ia.errors import InputError, TrialFailure, first_line
from dl4ia.jobs import Job
from dl4ia.records import winner_record
from dl4ia.report import epoch_bar
from dl4ia.scoring import score, summary, table
from dl4ia.selection import Selection
from dl4ia.session import Session
from dl4ia.text import plural

SCORES = "test_scores.csv"  # of every seed and image
EXAMPLE_IMAGES = 2  # of the exported model; one would freeze its batch size


def score_winner(session: Session, selection: Selection) -> None:
    """Retrain the winner, and the report's best model beside it, score both, and write the study.

    Raises InputError where the test set was opened for something else, or retraining fails.
    """
    study, seeds, epochs = session.study, session.arguments.seeds, session.retraining_epochs
    if winner_is_scored(session, selection):
        return
    trial = study.get_trials(deepcopy=False)[selection.winner]
    candidate = evaluation.Candidate(trial.number, seeds, epochs)
    evaluation.check_test_lock(study, candidate, session.arguments.reopen_test)
    start = datetime.now()
    _train_missing(session, selection)
    history = _validation_history(session, trial)
    retrainings = _retrain(session, trial.number, trial.params, seeds, epochs)
    others = _retrain_report_model(session, selection)
    environment, device = session.environment, session.objective.device
    test = evaluation.open_test_set(study, session.source, candidate, environment)
    scored = score(session.task, [each.model for each in retrainings], test, device)
    other = score(session.task, [each.model for each in others], test, device) if others else None
    histories = [retraining.history for retraining in retrainings]
    folder = _folder(session, trial.number)
    # The first seed's model, never the best one's on the test set.
    files = session.task.draw(retrainings[0].model, test, device, folder)
    pictures.draw_history(history, histories, session.task.metric, folder / "history.png")
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
        | summary(scored, other, test.groups),
        "images": len(test),
        "patients": len(set(test.groups)) if test.groups else None,
        "compared_with": selection.report_model if others else None,
        "retrainings": histories,
        "command": this_command(),
        "commits": sorted({retraining.commit for retraining in retrainings}),
        "test_fingerprint": test.fingerprint(),
        "start": start.isoformat(),
        "end": datetime.now().isoformat(),
        "pictures": [str(file) for file in [*files, folder / "history.png"]],
        "scores": str(folder / SCORES),
    }
    study.set_user_attr("winner", winner)


def winner_is_scored(session: Session, selection: Selection) -> bool:
    """Whether the study has the winner's score, as long, and of as many seeds."""
    known: dict[str, Any] = session.study.user_attrs.get("winner", {})
    if known.get("trial") != selection.winner:
        return False
    enough = bool(known["seeds"] >= session.arguments.seeds)
    return enough and bool(known["epochs"] == session.retraining_epochs)


def _retrain_report_model(session: Session, selection: Selection) -> list[evaluation.Retraining]:
    """The best report model's retrainings; none where it is the winner, fails, or is missing."""
    number = selection.report_model
    if number is None or number == selection.winner:
        return []
    point = session.study.get_trials(deepcopy=False)[number].params
    seeds, epochs = session.arguments.seeds, session.retraining_epochs
    try:
        return _retrain(session, number, point, seeds, epochs)
    except InputError as error:
        if not isinstance(error.__cause__, TrialFailure):
            raise
        print(f"The winner is compared with no report model: {error.__cause__}", flush=True)
        return []


def _validation_history(session: Session, trial: FrozenTrial) -> dict[str, list[float]]:
    """The trial's epochs; where the retrainings are of another length, those of one as long.

    So that validation and test are of the same training. It is the trial again, from its seed,
    over other epochs: nothing is chosen by it.
    """
    epochs = session.retraining_epochs
    if epochs == session.identity.epochs:
        return history_of(trial)
    kept = _kept_validation(session, trial)
    if kept is None:
        print(f"\nValidating trial {trial.number} over {epochs} epochs", flush=True)
        with epoch_bar(epochs) as bar, retraining_of(trial.number):
            kept = _validate(session, trial, bar.update)
    return kept


def _kept_validation(session: Session, trial: FrozenTrial) -> dict[str, list[float]] | None:
    kept = session.study.user_attrs.get("validation", {})
    known = (kept.get("trial"), kept.get("epochs"))
    return kept["history"] if known == (trial.number, session.retraining_epochs) else None


def _validate(
    session: Session, trial: FrozenTrial, after_epoch: Callable[[], object]
) -> dict[str, list[float]]:
    """The trial over the retrainings' length; its epochs are kept in the study."""
    objective = replace(session.objective, epochs=session.retraining_epochs)
    results = []
    for result in objective.results(trial.params, trial.user_attrs["seed"]):
        results.append(result)
        after_epoch()
    history = {name: [result[name] for result in results] for name in results[0]}
    kept = {"trial": trial.number, "epochs": session.retraining_epochs, "history": history}
    session.study.set_user_attr("validation", kept)
    return history


def _train_missing(session: Session, selection: Selection) -> None:
    """Whatever is missing of all that the winner's score needs, several trainings at once."""
    trials = session.study.get_trials(deepcopy=False)
    winner, report, epochs = selection.winner, selection.report_model, session.retraining_epochs
    jobs: list[Job] = [
        {"kind": "retraining", "trial": number, "seed": seed}
        for seed in range(session.arguments.seeds)
        for number in dict.fromkeys([winner, winner if report is None else report])
        if not _retraining(session, number, trials[number].params, seed, epochs).is_kept
    ]
    is_longer = epochs != session.identity.epochs
    if is_longer and _kept_validation(session, trials[winner]) is None:
        jobs.insert(0, {"kind": "validation", "trial": winner})
    train_ahead(session, jobs, f"\nTraining for the winner's score, {epochs} epochs each\n")


def train_retraining(session: Session, job: Job) -> None:
    """In a worker."""
    point = session.study.get_trials(deepcopy=False)[job["trial"]].params
    epochs = session.retraining_epochs
    _retraining(session, job["trial"], point, job["seed"], epochs).train(lambda: None)


def train_validation(session: Session, job: Job) -> None:
    """In a worker."""
    _validate(session, session.study.get_trials(deepcopy=False)[job["trial"]], lambda: None)


def winner_is_tracked(session: Session) -> bool:
    """Whether MLflow has the study's winner, with its model."""
    written = session.tracker.find(session.name, "winner", "dl4ia.opening")
    return str(session.study.user_attrs["winner"]["opening"]) in written


def track_winner(session: Session, parent: str, page: Path) -> None:
    """Write the recorded winner, its pictures, report page and model into MLflow, if missing.

    The run is RUNNING until all of it is written: one cut off is discarded and written again.
    """
    if winner_is_tracked(session):
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
    (first,) = _retrain(session, winner["trial"], winner["point"], 1, winner["epochs"])
    _register(session, run, first.model, winner)
    session.tracker.close(run, "FINISHED", record.end)


def _folder(session: Session, trial: int) -> Path:
    return session.arguments.out / "artifacts" / session.name / f"trial_{trial}"


def _retrain(
    session: Session, trial: int, point: dict[str, Any], seeds: int, epochs: int
) -> list[evaluation.Retraining]:
    """The first `seeds` retrainings, read from their files where they are there."""
    jobs = [_retraining(session, trial, point, number, epochs) for number in range(seeds)]
    if not all(job.is_kept for job in jobs):
        images = f"all {len(session.dataset)} training images"
        length = f"{epochs} epochs, {plural(seeds, 'seed')}"
        print(f"\nRetraining trial {trial} on {images}, {length}", flush=True)
    with epoch_bar(seeds * epochs) as bar, retraining_of(trial):
        return [job.train(bar.update) for job in jobs]


def _retraining(
    session: Session, trial: int, point: dict[str, Any], number: int, epochs: int
) -> evaluation.Retrainer:
    return evaluation.Retrainer(
        session.task,
        point,
        session.dataset,
        epochs,
        evaluation.retraining_seed(session.identity.seed, trial, number),
        session.objective.device,
        session.environment["commit"],
        _folder(session, trial) / f"seed_{number}.pt",
    )


def _write_csv(rows: list[dict[str, Any]], file: Path) -> None:
    try:
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({first_line(error)})") from error


@contextmanager
def retraining_of(trial: int) -> Iterator[None]:
    """Say a failed retraining in one line."""
    try:
        yield
    except TrialFailure as failure:
        raise InputError(
            f"retraining trial {trial} on all training images failed ({failure}); the study "
            "is intact and the test set unopened: more trials (--trials) may find a steadier winner"
        ) from failure


def _register(session: Session, run: str, model: torch.nn.Module, winner: dict[str, Any]) -> None:
    example = session.dataset.images[:EXAMPLE_IMAGES].numpy().astype(np.float32)
    test = f"test_{session.task.metric}"
    names = (f"val_{session.task.metric}", test, f"{test}_low", f"{test}_high")
    scores = {name: f"{winner['metrics'][name]:.4f}" for name in names}
    description = (
        "Images (N, C, H, W) in [0, 1] to logits (N, classes, …). Of the first of "
        f"{winner['seeds']} retraining seeds; the test score is their mean, with its 95 % "
        f"interval: {scores}"
    )
    session.tracker.register_model(run, model, example, session.name, scores, description)
