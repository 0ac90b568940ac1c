"""The trainings that a winner's score is made of: retrainings, and a validation as long as they.

All are kept, in files or in the study; what is missing is trained by several workers at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from dl4ia.environment import describe_code
from dl4ia.errors import InputError, OutOfMemory, TrialFailure
from dl4ia.evaluation.retraining import Retrainer, Retraining, retraining_seed
from dl4ia.report.terminal import epoch_bar
from dl4ia.search.trials import history_of, trial_of
from dl4ia.selection.finalists import Selection
from dl4ia.session import Session
from dl4ia.text import plural
from dl4ia.workers.jobs import Job
from dl4ia.workflow.ahead import Ahead


def validation_history(session: Session, trial: FrozenTrial) -> dict[str, list[float]]:
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


def train_missing(session: Session, selection: Selection, ahead: Ahead) -> None:
    """Whatever is missing of all that the winner's score needs, several trainings at once."""
    trials = session.study.get_trials(deepcopy=False)
    winner, report, epochs = selection.winner, selection.report_model, session.retraining_epochs
    jobs: list[Job] = [
        {"kind": "retraining", "trial": number, "seed": seed}
        for seed in range(session.arguments.seeds)
        for number in dict.fromkeys([winner, winner if report is None else report])
        if not _retrainer(session, number, trials[number].params, seed, epochs).is_kept
    ]
    is_longer = epochs != session.identity.epochs
    if is_longer and _kept_validation(session, trials[winner]) is None:
        jobs.insert(0, {"kind": "validation", "trial": winner})
    ahead.train(jobs, f"\nTraining for the winner's score, {epochs} epochs each\n")


def train_retraining(session: Session, job: Job) -> None:
    """In a worker."""
    point = trial_of(session.study, job["trial"]).params
    epochs = session.retraining_epochs
    _retrainer(session, job["trial"], point, job["seed"], epochs).train(lambda: None)


def train_validation(session: Session, job: Job) -> None:
    """In a worker."""
    _validate(session, trial_of(session.study, job["trial"]), lambda: None)


def retrain_report_model(session: Session, selection: Selection) -> list[Retraining]:
    """The best report model's retrainings; none where it is the winner, fails, or is missing."""
    number = selection.report_model
    if number is None or number == selection.winner:
        return []
    point = trial_of(session.study, number).params
    seeds, epochs = session.arguments.seeds, session.retraining_epochs
    try:
        return retrain(session, number, point, seeds, epochs)
    except InputError as error:
        cause = error.__cause__
        # For want of memory it failed at this moment, and may not at another.
        if not isinstance(cause, TrialFailure) or isinstance(cause, OutOfMemory):
            raise
        print(f"The winner is compared with no report model: {cause}", flush=True)
        return []


def folder_of(session: Session, trial: int) -> Path:
    return session.arguments.out / "artifacts" / session.name / f"trial_{trial}"


def retrain(
    session: Session, trial: int, point: dict[str, Any], seeds: int, epochs: int
) -> list[Retraining]:
    """The first `seeds` retrainings, read from their files where they are there."""
    jobs = [_retrainer(session, trial, point, number, epochs) for number in range(seeds)]
    if not all(job.is_kept for job in jobs):
        images = f"all {len(session.dataset)} training images"
        length = f"{epochs} epochs, {plural(seeds, 'seed')}"
        print(f"\nRetraining trial {trial} on {images}, {length}", flush=True)
    with epoch_bar(seeds * epochs) as bar, retraining_of(trial):
        return [job.train(bar.update) for job in jobs]


def _retrainer(
    session: Session, trial: int, point: dict[str, Any], number: int, epochs: int
) -> Retrainer:
    return Retrainer(
        session.task,
        point,
        session.dataset,
        session.identity.data_fingerprint,
        epochs,
        retraining_seed(session.identity.seed, trial, number),
        session.objective.device,
        describe_code(session.environment),
        folder_of(session, trial) / f"seed_{number}.pt",
    )


@contextmanager
def retraining_of(trial: int) -> Iterator[None]:
    """Say a failed retraining in one line."""
    try:
        yield
    except TrialFailure as failure:
        advice = "more trials (--trials) may find a steadier winner"
        if isinstance(failure, OutOfMemory):
            advice = failure.advice
        raise InputError(
            f"training trial {trial} again for its score failed ({failure}); the study is intact "
            f"and no test image was read: {advice}"
        ) from failure
