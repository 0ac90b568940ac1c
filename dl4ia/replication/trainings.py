"""One of the report's trainings: trained from a seed, scored, kept in a file and told to MLflow.

The report tuned on its test curves; they are drawn here to reproduce its figures. No study reads
what is kept here.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dl4ia.data.dataset import Dataset, Source
from dl4ia.data.splits import make_splits
from dl4ia.errors import InputError, first_line
from dl4ia.evaluation import open_for_replication
from dl4ia.models.layers import weight_count
from dl4ia.models.numpy_network import NumpyNetwork
from dl4ia.objective import derive_seed, train_point
from dl4ia.task import Task
from dl4ia.training.augmentation import extend_with_report_rotations

Scored = Literal["test", "validation", "leaky_validation"]
WHOLE_BATCH = 1 << 62  # pixels: the report's full batches, and so their statistics, are never cut


@dataclass(frozen=True)
class Training:
    """What the report trained, and on which images it was scored.

    scored_on: "test" (trained on all training images), "validation" (on 80 % of them, scored on the
        rest), or "leaky_validation": the report's way, turned copies of all images first and the
        split after, so that copies of validation images are trained on.
    """

    name: str
    task: str
    point: Mapping[str, Any]
    epochs: int
    scored_on: Scored = "test"
    engine: Literal["torch", "numpy"] = "torch"


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


@dataclass(frozen=True)
class Bench:
    """Where trainings are run: one task, its data, a device, and a folder for outcomes."""

    task: Task
    source: Source
    dataset: Dataset  # the training images
    device: torch.device
    environment: Mapping[str, str]
    folder: Path

    def outcome(self, training: Training, seed: int, after_epoch: Callable[[], object]) -> Outcome:
        """Train from `seed` and keep what came of it, or read it where it is kept.

        What is kept of another point, length, data or way of scoring is not taken.
        """
        recipe = json.loads(
            json.dumps(
                asdict(replace(training, point=dict(training.point)))
                | {"data": self.dataset.fingerprint(), "seed": seed}
            )
        )
        file = self.folder / training.name / f"seed_{seed}.json"
        if file.exists():
            kept = Outcome(**json.loads(file.read_text(encoding="utf-8")))
            if kept.recipe == recipe:
                return kept
        start = datetime.now()
        run = self._train_numpy if training.engine == "numpy" else self._train
        result = run(training, seed, after_epoch)
        outcome = Outcome(
            training=training.name,
            seed=seed,
            recipe=recipe,
            metrics={name: values[-1] for name, values in result.history.items()} | result.further,
            weights=result.weights,
            seconds=result.seconds,
            history=result.history,
            environment=dict(self.environment),
            start=start.isoformat(),
            end=datetime.now().isoformat(),
        )
        _keep(outcome, result.predictions, file)
        return outcome

    def predictions(self, training: Training, seed: int) -> torch.Tensor:
        """What a kept training predicts of the images it was scored on, as its task has it."""
        with np.load(self.folder / training.name / f"seed_{seed}.npz", allow_pickle=False) as kept:
            return torch.from_numpy(kept["predictions"])

    def parts(self, training: Training, seed: int) -> tuple[Dataset, Dataset]:
        """The images that are trained on, and those that are scored."""
        if training.scored_on == "test":
            return self.dataset, open_for_replication(self.source)
        dataset = self.dataset
        if training.scored_on == "leaky_validation":
            images, labels = extend_with_report_rotations(dataset.images, dataset.labels)
            dataset = Dataset(images, labels, dataset.names * 3)
        (split,) = make_splits(self.task.strata(dataset), 1, seed)
        return dataset.subset(split.train), dataset.subset(split.validation)

    def _train(self, training: Training, seed: int, after_epoch: Callable[[], object]) -> "_Result":
        train, scored = self.parts(training, seed)
        point = dict(training.point)
        if training.scored_on == "leaky_validation":
            point["report_rotations"] = False  # the turned copies are there already
        seed = derive_seed("replication", seed)
        model, results = train_point(
            self.task, point, train, scored, training.epochs, seed, self.device, WHOLE_BATCH
        )
        history: dict[str, list[float]] = {}
        for result in results:
            for name, value in result.items():
                history.setdefault(name.replace("val_", "scored_", 1), []).append(value)
            after_epoch()
        predictions = self.task.predict(model, scored, self.device)
        return _Result(
            history,
            self.task.further_metrics(predictions, scored),
            weight_count(model),
            sum(history.pop("seconds")),
            predictions,
        )

    def _train_numpy(
        self, training: Training, seed: int, after_epoch: Callable[[], object]
    ) -> "_Result":
        """The fully connected point, by the network with its own back-propagation."""
        train, scored = self.parts(training, seed)
        (images, labels), (scored_images, scored_labels) = map(_flat, (train, scored))
        point = training.point
        generator = np.random.default_rng(derive_seed("replication", seed))
        width, classes = point["hidden_width"], int(labels.max()) + 1
        network = NumpyNetwork((images.shape[1], width, width // 2, classes), generator)
        names = ("train_loss", "train_accuracy", "scored_accuracy")
        history: dict[str, list[float]] = {name: [] for name in names}
        start = time.perf_counter()
        for _ in range(training.epochs):
            loss = network.train_epoch(
                images, labels, point["batch_size"], point["learning_rate"], generator
            )
            history["train_loss"].append(loss)
            history["train_accuracy"].append(network.accuracy(images, labels))
            history["scored_accuracy"].append(network.accuracy(scored_images, scored_labels))
            after_epoch()
        seconds = time.perf_counter() - start
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


def _keep(outcome: Outcome, predictions: torch.Tensor, file: Path) -> None:
    """Predictions first: where the outcome is, it is whole."""
    unfinished = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file.with_suffix(".npz"), predictions=predictions.numpy())
        unfinished.write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({first_line(error)})") from error
