"""The winner of a finished search: retrained, scored once, pictured, registered."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import FrozenTrial
from tqdm import tqdm

from dl4ia import evaluation, pictures
from dl4ia.errors import InputError, TrialFailure
from dl4ia.records import winner_record
from dl4ia.selection import choose_winner
from dl4ia.session import Session

EXAMPLE_IMAGES = 2  # of the exported model; one would freeze its batch size


def score_winner(session: Session, parent: str) -> None:
    """Retrain and score the best trial, unless that was done before; `parent` is the MLflow run.

    Raises InputError where the test set was opened for another trial, and where retraining fails.
    """
    study, arguments, task = session.study, session.arguments, session.task
    trial = choose_winner(study)
    known: dict[str, Any] = study.user_attrs.get("winner", {})
    if known.get("trial") == trial.number and known["seeds"] >= arguments.seeds:
        return
    evaluation.check_test_lock(study, trial.number, arguments.open_test_again)
    start = datetime.now()
    folder = arguments.out / "artifacts" / session.name / f"trial_{trial.number}"
    retrainings = _retrain(session, trial, folder)
    device = session.objective.device
    test = evaluation.open_test_set(study, session.source, trial.number, session.environment)
    metrics = evaluation.score(task, retrainings, test, device)
    losses = [retraining.train_losses for retraining in retrainings]
    model = retrainings[0].model  # the first seed's, never the best one's on the test set
    history = trial.user_attrs["history"]
    files = [*task.draw(model, test, device, folder), folder / "history.png"]
    pictures.draw_history(history, losses, task.metric, files[-1])
    winner = {
        "trial": trial.number,
        "point": trial.params,
        "weights": trial.user_attrs["weights"],
        "seeds": len(retrainings),
        "metrics": {name: values[-1] for name, values in history.items()} | metrics,
        "train_losses": losses,
        "start": start.isoformat(),
        "end": datetime.now().isoformat(),
        "pictures": str(folder),
    }
    run = session.tracker.write(
        winner_record(session.name, session.identity, winner, session.environment),
        session.data,
        parent,
    )
    session.tracker.log_pictures(run, files)
    _register(session, run, model, winner)
    study.set_user_attr("winner", winner | {"run": run})


def _retrain(session: Session, trial: FrozenTrial, folder: Path) -> list[evaluation.Retraining]:
    seeds, epochs = session.arguments.seeds, session.identity.epochs
    print(
        f"\nRetraining trial {trial.number} on all {len(session.dataset)} training images, "
        f"{seeds} seed{'s' if seeds > 1 else ''}",
        flush=True,
    )
    bar = tqdm(total=seeds * epochs, unit="epoch", disable=None, leave=False)
    with bar, retraining_of(trial):
        return [
            evaluation.retrain(
                session.task,
                trial.params,
                session.dataset,
                epochs,
                evaluation.retraining_seed(session.identity.seed, trial.number, number),
                session.objective.device,
                folder / f"seed_{number}.pt",
                bar.update,
            )
            for number in range(seeds)
        ]


@contextmanager
def retraining_of(trial: FrozenTrial) -> Iterator[None]:
    """Say a failed retraining in one line."""
    try:
        yield
    except TrialFailure as failure:
        raise InputError(
            f"retraining trial {trial.number} on all training images failed ({failure}); the study "
            "is intact and the test set unopened: more trials (--trials) may find a steadier winner"
        ) from failure


def _register(session: Session, run: str, model: torch.nn.Module, winner: dict[str, Any]) -> None:
    example = session.dataset.images[:EXAMPLE_IMAGES].numpy().astype(np.float32)
    names = (f"val_{session.task.metric}", f"test_{session.task.metric}")
    scores = {name: f"{winner['metrics'][name]:.4f}" for name in names}
    description = (
        "Images (N, C, H, W) in [0, 1] to logits (N, classes, H, W). Of the first of "
        f"{winner['seeds']} retraining seeds; the test score is their mean: {scores}"
    )
    session.tracker.register_model(run, model, example, session.name, scores, description)
