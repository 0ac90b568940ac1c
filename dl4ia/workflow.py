"""A whole study, from data to summary: what `studies/*.py` run."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from dl4ia import evaluation, pictures, records, report
from dl4ia.addresses import check_storage, check_tracking
from dl4ia.command_line import StudyArguments
from dl4ia.data.dataset import Dataset, Source
from dl4ia.data.splits import Split, fingerprint, make_splits
from dl4ia.environment import describe_environment
from dl4ia.errors import InputError, TrialFailure
from dl4ia.objective import Objective
from dl4ia.search_space import Point, Space
from dl4ia.search_space import fingerprint as space_fingerprint
from dl4ia.selection import choose_winner
from dl4ia.study import (
    FINISHED,
    Identity,
    check_identity,
    finished_trials,
    open_storage,
    open_study,
    search,
)
from dl4ia.task import Task
from dl4ia.tracking import Status, Tracker, TrackingError, reason

EXAMPLE_IMAGES = 2  # of the exported model; one would freeze its batch size


class Workflow:
    """One study and everything around it, in the order it happens."""

    def __init__(
        self,
        task: Task,
        source: Source,
        space: Space,
        report_models: dict[str, Point],
        reference_models: dict[str, Point],
        report_note: str,
        epochs: int,
        arguments: StudyArguments,
    ) -> None:
        """Read and check everything, then open storage and tracking; nothing is written before."""
        signal.signal(signal.SIGTERM, _stop)
        self.task, self.source, self.arguments = task, source, arguments
        self.report_note = report_note
        self.device = _device(arguments.device)
        self.dataset = source.train()
        splits = make_splits(task.strata(self.dataset), arguments.folds, arguments.seed)
        self.identity = _identity(task, source, self.dataset, splits, space, epochs, arguments)
        self.name = arguments.study_name or f"{task.name}-{source.name}"
        self.out = arguments.out
        self.storage = arguments.storage or f"sqlite:///{self.out / 'optuna.db'}"
        self.tracking_uri = arguments.tracking_uri or f"sqlite:///{self.out / 'mlflow.db'}"
        self.validation = f"{len(splits[0].validation)} images" + (
            f", {len(splits)} folds" if len(splits) > 1 else ""
        )
        self.environment = describe_environment() | {"device": _device_name(self.device)}
        check_tracking(self.tracking_uri)
        if arguments.storage is None:
            _make_folder(self.out)
        check_storage(self.storage)
        storage = open_storage(self.storage)
        check_identity(storage, self.name, self.identity)
        self.tracker = Tracker(self.tracking_uri, task.name, self.out / "artifacts" / "mlflow")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        named = report_models | reference_models
        self.study = open_study(storage, self.name, self.identity, space, named, report_models)
        self.objective = Objective(
            task,
            space,
            self.dataset,
            splits,
            epochs,
            arguments.seed,
            self.device,
            self.environment,
        )

    def run(self) -> None:
        """Search, name and score the winner, print the summary; or go on with what is missing."""
        try:
            self.parent = self._open_parent()
            status: Status = "KILLED"
            try:
                self._search()
                self._score_winner()
                status = "FINISHED"
            finally:
                self.tracker.close(self.parent, status, metrics=self._best())
        except TrackingError as error:
            raise InputError(
                f"MLflow at {self.tracking_uri} failed ({reason(error)}); the study "
                f"{self.name!r} is intact: when MLflow is back, the same command goes on and "
                "writes what is missing"
            ) from error
        print(
            report.summary(
                self.study,
                self.task.metric,
                self.report_note,
                self.validation,
                self.storage,
                self.tracking_uri,
            )
        )

    def _open_parent(self) -> str:
        """The study's MLflow run; trials that MLflow has missed are written."""
        runs = self.tracker.find(self.name, "study")
        for kind in ("trial", "winner"):
            self.tracker.discard_unfinished(self.name, kind)
        self.data = records.dataset_record(
            self.identity, self.source.description, len(self.dataset)
        )
        if runs:
            parent = next(iter(runs.values()))
            self.tracker.reopen(parent)
        else:
            record = records.study_record(
                self.name, self.identity, self.environment, datetime.now()
            )
            parent = self.tracker.write(record, self.data, None)
        written = self.tracker.find(self.name, "trial")
        for trial in self.study.get_trials(deepcopy=False, states=FINISHED):
            if str(trial.number) not in written:
                self._track(trial, parent)
        return parent

    def _track(self, trial: FrozenTrial, parent: str) -> None:
        self.tracker.write(records.trial_record(self.name, self.identity, trial), self.data, parent)

    def _best(self) -> dict[str, float]:
        completed = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [trial.value for trial in completed if trial.value is not None]
        return {f"best_val_{self.task.metric}": max(values)} if values else {}

    def _search(self) -> None:
        trials = self.arguments.trials
        before = len(finished_trials(self.study))
        start = time.perf_counter()
        bar = tqdm(
            total=max(trials, before), initial=before, unit="trial", disable=None, leave=False
        )

        def after_trial(trial: FrozenTrial) -> None:
            self._track(trial, self.parent)
            done = len(finished_trials(self.study))
            best = next(iter(self._best().values()), None)
            left = (time.perf_counter() - start) / max(1, done - before) * max(0, trials - done)
            tqdm.write(report.trial_line(trial, done, trials, best, left))
            sys.stdout.flush()
            if best is not None:
                bar.set_postfix(best=f"{best:.4f}", refresh=False)
            bar.update()

        with bar:
            search(self.study, self.objective, trials, self.arguments.timeout, after_trial)

    def _score_winner(self) -> None:
        """Retrain and score the best trial, unless that was done before."""
        trial = choose_winner(self.study)
        known: dict[str, Any] = self.study.user_attrs.get("winner", {})
        if known.get("trial") == trial.number and known["seeds"] >= self.arguments.seeds:
            return
        evaluation.check_test_lock(self.study, trial.number, self.arguments.open_test_again)
        start = datetime.now()
        folder = self.out / "artifacts" / self.name / f"trial_{trial.number}"
        retrainings = self._retrain(trial, folder)
        test = evaluation.open_test_set(self.study, self.source, trial.number, self.environment)
        metrics = evaluation.score(self.task, retrainings, test, self.device)
        losses = [retraining.train_losses for retraining in retrainings]
        model = retrainings[0].model  # the first seed, never the best one on the test set
        files = self.task.draw(model, test, self.device, folder)
        history = trial.user_attrs["history"]
        pictures.draw_history(history, losses, self.task.metric, folder / "history.png")
        validation = {name: values[-1] for name, values in history.items()}
        winner = {
            "trial": trial.number,
            "point": trial.params,
            "weights": trial.user_attrs["weights"],
            "seeds": len(retrainings),
            "validation": validation,
            "metrics": metrics | validation,
            "train_losses": losses,
            "start": start.isoformat(),
            "end": datetime.now().isoformat(),
            "pictures": str(folder),
        }
        run = self.tracker.write(
            records.winner_record(self.name, self.identity, winner, self.environment),
            self.data,
            self.parent,
        )
        self.tracker.log_pictures(run, [*files, folder / "history.png"])
        self._register(run, model, metrics, validation)
        self.study.set_user_attr("winner", winner | {"run": run})

    def _retrain(self, trial: FrozenTrial, folder: Path) -> list[evaluation.Retraining]:
        seeds, epochs = self.arguments.seeds, self.identity.epochs
        print(
            f"\nRetraining trial {trial.number} on all {len(self.dataset)} training images, "
            f"{seeds} seeds"
        )
        bar = tqdm(total=seeds * epochs, unit="epoch", disable=None, leave=False)
        with bar, _retraining_of(trial):
            return [
                evaluation.retrain(
                    self.task,
                    trial.params,
                    self.dataset,
                    epochs,
                    evaluation.retraining_seed(self.identity.seed, trial.number, number),
                    self.device,
                    folder / f"seed_{number}.pt",
                    bar.update,
                )
                for number in range(seeds)
            ]

    def _register(
        self,
        run: str,
        model: torch.nn.Module,
        metrics: dict[str, float],
        validation: dict[str, float],
    ) -> None:
        example = self.dataset.images[:EXAMPLE_IMAGES].numpy().astype(np.float32)
        metric = self.task.metric
        scores = {
            f"val_{metric}": f"{validation[f'val_{metric}']:.4f}",
            f"test_{metric}": f"{metrics[f'test_{metric}']:.4f}",
        }
        description = (
            f"Images (N, C, H, W) in [0, 1] to logits (N, classes, H, W). Of the first of "
            f"{self.arguments.seeds} seeds; the scores are means over all of them: {scores}"
        )
        self.tracker.register_model(run, model, example, self.name, scores, description)


def _identity(
    task: Task,
    source: Source,
    dataset: Dataset,
    splits: tuple[Split, ...],
    space: Space,
    epochs: int,
    arguments: StudyArguments,
) -> Identity:
    return Identity(
        task=task.name,
        metric=task.metric,
        data=source.name,
        data_fingerprint=dataset.fingerprint(),
        preparation=source.preparation,
        split_fingerprint=fingerprint(splits),
        space_fingerprint=space_fingerprint(space),
        epochs=epochs,
        folds=arguments.folds,
        seed=arguments.seed,
    )


@contextmanager
def _retraining_of(trial: FrozenTrial) -> Iterator[None]:
    try:
        yield
    except TrialFailure as failure:
        raise InputError(
            f"retraining trial {trial.number} on all training images failed ({failure}); the study "
            "is intact and the test set unopened: more trials (--trials) may find a steadier winner"
        ) from failure


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device cuda: torch finds no GPU here; expected one, or --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {folder}: cannot be made ({error.strerror}); name another"
        ) from error


def _stop(signal_number: int, frame: FrameType | None) -> None:
    """A polite kill is a Ctrl-C."""
    raise KeyboardInterrupt
