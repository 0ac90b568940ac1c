"""A trial: a point is sampled, trained on the training parts, scored on the validation parts.

The value is the validation metric of the weights at the end of training, a mean over images and
over folds. Everything a trial is known by is written into the Optuna trial; MLflow is written from
there.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import optuna
import torch
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

from dl4ia.data.dataset import Dataset
from dl4ia.data.splits import Split
from dl4ia.errors import OutOfMemory, TrialFailure
from dl4ia.models.layers import weight_count
from dl4ia.search.halving import rung
from dl4ia.search.seeds import derive_seed
from dl4ia.search.transactions import in_one_transaction
from dl4ia.search.trials import hide
from dl4ia.search_space import Space, sample, settings_of
from dl4ia.tasks.task import Task
from dl4ia.training.augmentation import AugmentationSettings
from dl4ia.training.checkpoint import Checkpoint
from dl4ia.training.fit import Result, TrainingSettings, fit
from dl4ia.training.precision import exactly, training_precision
from dl4ia.training.usage import Usage, give_memory_back

REPORTS_EVERY = 1.0  # seconds

AfterTraining = Callable[[optuna.Trial, torch.nn.Module, Dataset], object]


def train_point(
    task: Task,
    point: Mapping[str, Any],
    train: Dataset,
    validation: Dataset | None,
    epochs: int,
    seed: int,
    device: torch.device,
    largest_part: int | None = None,
    precision: torch.dtype | None = None,
    checkpoint: Checkpoint | None = None,
    foresee_in: int | None = None,
) -> tuple[torch.nn.Module, Iterator[Result]]:
    """The network of `point` and its training, which has not begun; see `fit` for the results.

    precision: of the training steps; None: what is fast on the device, if the task may.
    checkpoint: where a long training is kept while it goes on.
    foresee_in: the epoch that is to tell what the training will come to.
    """
    torch.manual_seed(seed)
    model = task.build(point, train)
    results = fit(
        model,
        train,
        validation,
        settings_of(TrainingSettings, point),
        settings_of(AugmentationSettings, point),
        task.evaluate,
        epochs,
        seed,
        device,
        precision or training_precision(device, task.trains_in_low_precision),
        largest_part,
        checkpoint,
        foresee_in,
    )
    return model, results


@dataclass(frozen=True)
class Objective:
    """Scores trials. It is handed training data only (the test lock)."""

    task: Task
    space: Space
    dataset: Dataset
    splits: Sequence[Split]
    epochs: int
    seed: int
    device: torch.device
    environment: Mapping[str, str]
    most_weights: int | None = None
    further: tuple[str, ...] = ()  # objectives besides the metric: "weights", "seconds" (an epoch)
    # Is shown what a trial that was trained to the end has made (of the last fold), while Optuna
    # still takes attributes of the trial.
    after_training: AfterTraining | None = None

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """The trial's value, or those of several objectives.

        Raises TrialPruned, TrialFailure after recording the reason, or OutOfMemory without: the
        point may do better at another moment.
        """
        give_memory_back()
        seed = trial.user_attrs.get("seed", derive_seed(self.seed, "trial", trial.number))
        history: list[Result] = []
        reports = Reports(trial)
        try:
            with in_one_transaction(trial):
                hide(trial, "environment", dict(self.environment))
                trial.set_user_attr("seed", seed)
                point = sample(self.space, trial)
            value = self._train(trial, point, seed, history, reports)
            if not self.further:
                return value
            # A device's first use, which one trial of a process pays for, is in no other epoch.
            seconds = median(result["seconds"] for result in history)
            costs = {"weights": float(trial.user_attrs["weights"]), "seconds": seconds}
            return (value, *(costs[name] for name in self.further))
        except (optuna.TrialPruned, OutOfMemory):
            raise
        except TrialFailure as failure:
            trial.set_user_attr("failure", str(failure))
            raise
        except StorageInternalError:  # none of the trial's doing, nor can anything be told now
            history.clear()
            raise
        except Exception as error:  # ours: it stops the study, but is not to be run again for ever
            trial.set_user_attr("failure", f"{type(error).__name__}: {error}")
            trial.set_user_attr("crashed", True)
            raise
        finally:
            if history:
                columns = {name: [result[name] for result in history] for name in history[0]}
                # Refused of a trial that was given up; it must not hide how this one ended.
                with suppress(UpdateFinishedTrialError), in_one_transaction(trial):
                    reports.write()
                    hide(trial, "history", columns)

    def results(
        self, point: Mapping[str, Any], seed: int, trial: optuna.Trial | None = None
    ) -> Iterator[Result]:
        """Train the folds side by side, and yield each epoch's mean over them, and `Usage`.

        Where there is a `trial` it is told the number of weights, and `after_training` is called.
        Raises TrialPruned, after saying so in the trial's attribute `skipped`, where it is of more
        than `most_weights`: nothing is trained then.
        """
        trainings = []
        for number, (train, validation) in enumerate(self._parts):
            fold_seed = derive_seed(seed, "fold", number)
            model, results = train_point(
                self.task, point, train, validation, self.epochs, fold_seed, self.device,
                foresee_in=None if trial is None else self._decisive_epoch(trial),
            )  # fmt: skip
            trainings.append(results)
        if trial is not None:
            weights = weight_count(model)
            trial.set_user_attr("weights", weights)
            if self.most_weights is not None and weights > self.most_weights:
                trial.set_user_attr("skipped", f"{weights:,} weights, over {self.most_weights:,}")
                raise optuna.TrialPruned("skipped")
        sizes = [len(split.validation) for split in self.splits]
        usage = Usage(self.device)
        for folds in zip(*trainings, strict=True):
            yield _mean_over_folds(folds, sizes) | usage.read()
        if trial is not None and self.after_training is not None:
            with exactly():  # as the last epoch is scored
                self.after_training(trial, model, validation)

    @cached_property  # copied once a search, not once a trial
    def _parts(self) -> list[tuple[Dataset, Dataset]]:
        """What each split has its trainings train on, and be scored on."""
        subset = self.dataset.subset
        return [(subset(split.train), subset(split.validation)) for split in self.splits]

    def _train(
        self,
        trial: optuna.Trial,
        point: Mapping[str, Any],
        seed: int,
        history: list[Result],
        reports: "Reports",
    ) -> float:
        """Train and report, so that each epoch's mean over folds can be pruned."""
        decisive = self._decisive_epoch(trial)
        for epoch, result in enumerate(self.results(point, seed, trial), start=1):
            history.append(result)
            if self.further:
                continue  # Optuna takes reports of one objective only
            reports.add(epoch, result[f"val_{self.task.metric}"])
            if epoch == decisive:
                reports.write()
                if trial.should_prune():
                    raise optuna.TrialPruned(f"in epoch {epoch}")
        return history[-1][f"val_{self.task.metric}"]

    def _decisive_epoch(self, trial: optuna.Trial) -> int | None:
        """After which `trial` may be pruned.

        Named points are there to be compared with: they are trained to the end. Nor do they set
        the pace: the report's take one step an epoch, and "all is gland" scores 0.66 meanwhile.
        """
        decisive = rung(self.epochs)
        is_named = "point" in trial.user_attrs
        return None if self.further or is_named or decisive >= self.epochs else decisive


class Reports:
    """A trial's values as they come: Optuna is told the first at once, then all new ones together.

    An epoch takes a fraction of a second on a GPU; to tell each of them by itself would take a part
    of that which counts, and nobody looks so often.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._new: dict[int, float] = {}  # by their epochs
        self._told = float("-inf")  # when

    def add(self, epoch: int, value: float) -> None:
        """Tells it where the last telling is REPORTS_EVERY seconds ago."""
        self._new[epoch] = value
        if time.monotonic() - self._told >= REPORTS_EVERY:
            self.write()

    def write(self) -> None:
        """Tell what is new."""
        new, self._new = self._new, {}
        with in_one_transaction(self._trial):
            for epoch, value in new.items():
                self._trial.report(value, epoch)
        self._told = time.monotonic()


def _mean_over_folds(folds: Sequence[Result], sizes: Sequence[int]) -> Result:
    """Each fold weighs as much as it has images, so that a metric is a mean over images."""
    means = {
        name: sum(size * fold[name] for size, fold in zip(sizes, folds, strict=True)) / sum(sizes)
        for name in folds[0]
    }
    return means | {"seconds": sum(fold["seconds"] for fold in folds)}
