"""One of the report's trainings: trained from a seed, scored, and kept in a file.

The report tuned on its test curves; they are drawn here to reproduce its figures. No study reads
what is kept here.
"""

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch

from dl4ia.data.dataset import Dataset, Source
from dl4ia.data.splits import make_splits
from dl4ia.errors import InputError, first_line
from dl4ia.evaluation.test_lock import open_for_replication
from dl4ia.models.layers import weight_count
from dl4ia.models.numpy_network import NumpyNetwork
from dl4ia.search.objective import train_point
from dl4ia.search.seeds import derive_seed
from dl4ia.tasks.task import Task
from dl4ia.training.augmentation import extend_with_report_rotations
from dl4ia.training.precision import describe_precision, exactly, training_precision

Scored = Literal["test", "validation", "leaky_validation", "training"]
Tick = Callable[[], object]  # called after each epoch
WHOLE_BATCH = 1 << 62  # pixels: the report's full batches, and so their statistics, are never cut


@dataclass(frozen=True)
class Training:
    """What the report trained, and on which images it was scored.

    scored_on: "test" (trained on all training images), "validation" (on 80 % of them, scored on the
        rest), "leaky_validation": as the report says, turned copies of all images first and the
        split after, so that copies of validation images are trained on, or "training": as its code
        does, on those 80 % themselves, of which it is not known whether they were turned too.
    turned: whether copies turned by -90 and by 180 degrees of the images that are trained on are
        trained on too, made after the split; with the leak they are there already.
    loss_as_coded: whether the loss is the one of the report's code (`report_code_loss`).
    """

    name: str
    task: str
    point: Mapping[str, Any]
    epochs: int
    scored_on: Scored = "test"
    turned: bool = False
    engine: Literal["torch", "numpy"] = "torch"
    loss_as_coded: bool = False

    @property
    def trained_point(self) -> dict[str, Any]:
        """The point, with the loss that it is trained with."""
        coded = {"loss": "report_code"} if self.loss_as_coded else {}
        return dict(self.point) | coded


@dataclass(frozen=True)
class Outcome:
    """What came of a training from one seed."""

    training: str
    seed: int
    recipe: dict[str, Any]
    metrics: dict[str, float]  # after the last epoch
    weights: int
    seconds: float  # of all epochs, each with its scoring
    history: dict[str, list[float]]  # one value an epoch
    environment: dict[str, str]
    start: str
    end: str

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits of what was trained on what, from which seed."""
        return _digest(self.recipe)


@dataclass(frozen=True)
class Bench:
    """Where trainings are run: one task, its data, a device, and a folder for outcomes."""

    task: Task
    source: Source
    dataset: Dataset  # the training images
    device: torch.device
    environment: Mapping[str, str]
    folder: Path

    def outcome(self, training: Training, seed: int, after_epoch: Tick) -> Outcome:
        """Train from `seed` and keep what came of it, or read it where it is kept.

        Raises TrialFailure as `fit` does, InputError where nothing can be kept.
        """
        train, scored = self.parts(training, seed)
        recipe = self._recipe(training, seed, train, scored)
        if kept := self._read(recipe):
            return kept
        start = datetime.now()
        is_numpy = training.engine == "numpy"
        result = (self._train_numpy if is_numpy else self._train)(
            training, train, scored, seed, after_epoch
        )
        outcome = Outcome(
            training=training.name,
            seed=seed,
            recipe=recipe,
            metrics={name: values[-1] for name, values in result.history.items()} | result.further,
            weights=result.weights,
            seconds=result.seconds,
            history=result.history,
            environment=dict(self.environment)
            | {"precision": recipe["precision"]}
            | ({"device": "cpu"} if is_numpy else {}),
            start=start.isoformat(),
            end=datetime.now().isoformat(),
        )
        _keep(outcome, result.predictions, self._file(recipe))
        return outcome

    def kept(self, training: Training, seed: int) -> Outcome | None:
        """What was kept of this training of these images; None of another, or of a broken file."""
        return self._read(self._recipe(training, seed, *self.parts(training, seed)))

    def _read(self, recipe: Mapping[str, Any]) -> Outcome | None:
        try:
            outcome = Outcome(**json.loads(self._file(recipe).read_text(encoding="utf-8")))
            self.predictions(outcome)
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error):
            return None
        return outcome

    def predictions(self, outcome: Outcome) -> torch.Tensor:
        """What a kept training predicts of the images it was scored on, as its task has it."""
        file = self._file(outcome.recipe).with_suffix(".npz")
        with np.load(file, allow_pickle=False) as kept:
            return torch.from_numpy(kept["predictions"])

    @cached_property
    def test_images(self) -> Dataset:
        """Read once."""
        return open_for_replication(self.source)

    def parts(self, training: Training, seed: int) -> tuple[Dataset, Dataset]:
        """The images that are trained on, and those that are scored."""
        if training.scored_on == "test":
            return self.dataset, self.test_images
        dataset = self.dataset
        if training.scored_on == "leaky_validation":
            images, labels = extend_with_report_rotations(dataset.images, dataset.labels)
            dataset = Dataset(images, labels, dataset.names * 3)
        (split,) = make_splits(self.task.strata(dataset), 1, seed)
        train = dataset.subset(split.train)
        if training.scored_on == "training":
            return train, train
        return train, dataset.subset(split.validation)

    def _recipe(
        self, training: Training, seed: int, train: Dataset, scored: Dataset
    ) -> dict[str, Any]:
        """All that an outcome follows from, as JSON gives it back."""
        precision = training_precision(self.device, self.task.trains_in_low_precision)
        recipe = asdict(training) | {
            "seed": seed,
            "fingerprints": [train.fingerprint(), scored.fingerprint()],
            "precision": describe_precision(precision, self.device),
        }
        if not training.loss_as_coded:
            del recipe["loss_as_coded"]  # as in the outcomes of before there was this choice
        found: dict[str, Any] = json.loads(json.dumps(recipe))
        return found

    def _file(self, recipe: Mapping[str, Any]) -> Path:
        return self.folder / recipe["name"] / f"seed_{recipe['seed']}_{_digest(recipe)}.json"

    def _train(
        self, training: Training, train: Dataset, scored: Dataset, seed: int, after_epoch: Tick
    ) -> "_Result":
        point = training.trained_point
        if training.scored_on == "leaky_validation":
            point["report_rotations"] = False  # the turned copies are there already
        elif training.turned:
            point["report_rotations"] = True
        seed = derive_seed("replication", seed)
        device, epochs = self.device, training.epochs
        model, results = train_point(
            self.task, point, train, scored, epochs, seed, device, WHOLE_BATCH
        )
        history: dict[str, list[float]] = {}
        for result in results:
            for name, value in result.items():
                history.setdefault(name.replace("val_", "scored_", 1), []).append(value)
            after_epoch()
        seconds = sum(history.pop("seconds"))
        with exactly():
            predictions = self.task.predict(model, scored, self.device)
            probabilities = self.task.probabilities(model, scored, self.device)
        scores = self.task.image_scores(probabilities, scored)
        further = {name: each.mean() for name, each in scores.items()}
        return _Result(history, further, weight_count(model), seconds, predictions)

    def _train_numpy(
        self, training: Training, train: Dataset, scored: Dataset, seed: int, after_epoch: Tick
    ) -> "_Result":
        """The fully connected point, by the network with its own back-propagation."""
        (images, labels), (scored_images, scored_labels) = map(_flat, (train, scored))
        point = training.point
        generator = np.random.default_rng(derive_seed("replication", seed))
        width = point["hidden_width"]
        widths = (images.shape[1], width, width // 2, len(self.task.classes))
        network = NumpyNetwork(widths, generator)
        names = ("train_loss", "train_accuracy", "scored_accuracy")
        history: dict[str, list[float]] = {name: [] for name in names}
        seconds = 0.0
        for _ in range(training.epochs):
            start = time.perf_counter()
            loss = network.train_epoch(
                images, labels, point["batch_size"], point["learning_rate"], generator
            )
            history["train_loss"].append(loss)
            history["scored_accuracy"].append(network.accuracy(scored_images, scored_labels))
            seconds += time.perf_counter() - start
            history["train_accuracy"].append(network.accuracy(images, labels))
            after_epoch()
        predictions = torch.from_numpy(network.predict(scored_images))
        return _Result(history, {}, network.weight_count(), seconds, predictions)


@dataclass(frozen=True)
class _Result:
    history: dict[str, list[float]]
    further: dict[str, float]
    weights: int
    seconds: float
    predictions: torch.Tensor


def _flat(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    return dataset.images.flatten(1).numpy(), dataset.labels.numpy()


def _digest(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def _keep(outcome: Outcome, predictions: torch.Tensor, file: Path) -> None:
    """Predictions first: where the outcome is, both are."""
    unfinished = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file.with_suffix(".npz"), predictions=predictions.numpy())
        unfinished.write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({first_line(error)})") from error
