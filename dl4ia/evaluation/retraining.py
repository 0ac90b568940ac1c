"""A point trained on all training images, from a seed, and kept in a file."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dl4ia.data.dataset import Dataset
from dl4ia.errors import InputError, first_line
from dl4ia.search.objective import train_point
from dl4ia.search.seeds import derive_seed
from dl4ia.tasks.task import Task
from dl4ia.training.checkpoint import Checkpoint, read_kept, write_kept
from dl4ia.training.precision import training_precision


@dataclass(frozen=True)
class Retraining:
    """One retraining of a trial's point, from its own seed."""

    model: nn.Module
    history: dict[str, list[float]]  # train_loss, train_accuracy: one value an epoch
    code: str  # which trained it: a commit, and whether there were changes

    @property
    def fingerprint(self) -> str:
        """Of the network's weights and statistics: 16 digits that no other training shares."""
        digest = hashlib.sha256()
        for name, values in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(values.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Retrainer:
    """Trains a point on all of a dataset, from a seed, and keeps it in a file."""

    task: Task
    point: Mapping[str, Any]
    dataset: Dataset
    fingerprint: str  # the dataset's, which takes a while to make
    epochs: int
    seed: int
    device: torch.device
    code: str
    file: Path

    @property
    def is_kept(self) -> bool:
        """Whether it is trained already: this point, on these data, as long, from this seed."""
        return self._read() is not None

    def train(self, after_epoch: Callable[[], object]) -> Retraining:
        """Train it, or read it where it is kept.

        A training cut off leaves a checkpoint, from which it goes on, where it is of the same, and
        of the same code: the record of a score names one.
        Raises TrialFailure as `fit` does, InputError where the file cannot be written.
        """
        if (kept := self._read()) is not None:
            return kept
        checkpoint = Checkpoint(self.file.with_suffix(".checkpoint"), self._checkpoint_recipe)
        model, results = train_point(
            self.task,
            self.point,
            self.dataset,
            None,
            self.epochs,
            self.seed,
            self.device,
            checkpoint=checkpoint,
        )
        history: dict[str, list[float]] = {"train_loss": [], "train_accuracy": []}
        for result in results:
            for name, values in history.items():
                values.append(result[name])
            after_epoch()
        self._keep(model, history)
        checkpoint.remove()
        return Retraining(model, history, self.code)

    @property
    def _recipe(self) -> str:
        """Which weights these are. The code, device and precision matter little: what is kept is
        taken whatever made it, and the study says by which commits.
        """
        return repr((dict(self.point), self.fingerprint, self.epochs, self.seed))

    @property
    def _checkpoint_recipe(self) -> str:
        """A training goes on as it was begun: by the same code, on the same kind of device."""
        precision = training_precision(self.device, self.task.trains_in_low_precision)
        made_with = (
            f"on {self.device.type} in {precision} by {self.code}, torch {torch.__version__}"
        )
        return f"{self._recipe} {made_with}"

    def _read(self) -> Retraining | None:
        """None too where the network has other weights by now than those that are kept."""
        kept = read_kept(self.file, self._recipe)
        if kept is None:
            return None
        model = self.task.build(self.point, self.dataset)
        try:
            model.load_state_dict(kept["weights"])
        except RuntimeError:
            return None
        return Retraining(model, kept["history"], kept["commit"])

    def _keep(self, model: nn.Module, history: dict[str, list[float]]) -> None:
        kept = {
            "weights": model.state_dict(),
            "history": history,
            "commit": self.code,
        }
        try:
            write_kept(self.file, self._recipe, kept)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{self.file}: cannot be written ({first_line(error)})") from error


def retraining_seed(study_seed: int, trial: int, number: int) -> int:
    """The seed of the `number`-th retraining of a trial."""
    return derive_seed(study_seed, "retraining", trial, number)
