"""Training: `fit` yields one result an epoch. Knows nothing of Optuna or MLflow."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.errors import TrialFailure
from dl4ia.training.augmentation import (
    AugmentationSettings,
    Augmenter,
    extend_with_report_rotations,
)
from dl4ia.training.losses import LOSSES
from dl4ia.training.optimization import make_optimizer, schedule_factor

# Images that pass through the network at once on a CPU. A larger batch is passed in parts whose
# gradients add up to the same step; only batch normalisation notices, whose statistics are then
# those of a part. It bounds the memory of the report's full batches, and is faster in the caches.
LARGEST_PART = 16
SHUFFLING = 0x5EED  # turns a training's seed into that of another stream

Result = dict[str, float]
Evaluate = Callable[[nn.Module, Dataset, torch.device], Result]


@dataclass(frozen=True)
class TrainingSettings:
    """The hyperparameters of training; those that do not apply keep their defaults."""

    loss: str
    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int | str
    weight_decay: float = 0.0


def fit(
    model: nn.Module,
    train: Dataset,
    validation: Dataset | None,
    settings: TrainingSettings,
    augmentation: AugmentationSettings,
    evaluate: Evaluate,
    epochs: int,
    seed: int,
    device: torch.device,
) -> Iterator[Result]:
    """Train `model` in place on `device`; yield each epoch's metrics.

    train_loss (mean over the epoch's images, in training mode), learning_rate (of the last step),
    seconds (of training and evaluation), and, where there is a validation part, what `evaluate`
    says of all of it, prefixed by `val_`. Batches are as equal as they can be: none is left with a
    single image, of which batch normalisation could learn nothing.

    Raises TrialFailure, naming the epoch, where a loss is not finite or the memory runs out.
    """
    with _failures_of(1):
        model.to(device).to(memory_format=torch.channels_last)
        images, labels = train.images.to(device), train.labels.to(device)
    if augmentation.augmentation == "report_rotations":
        images, labels = extend_with_report_rotations(images, labels)
    count = len(images)
    batch_size = count if settings.batch_size == "full" else min(int(settings.batch_size), count)
    steps = math.ceil(count / batch_size)
    optimizer = make_optimizer(
        settings.optimizer, model.parameters(), settings.learning_rate, settings.weight_decay
    )
    augmenter = Augmenter(augmentation, count, images.shape[1], seed)
    shuffler = torch.Generator().manual_seed(seed ^ SHUFFLING)
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        with _failures_of(epoch):
            model.train()
            augmenter.draw()
            order = torch.randperm(count, generator=shuffler)
            total = torch.zeros((), device=device)
            for number, rows in enumerate(order.tensor_split(steps)):
                factor = schedule_factor(
                    settings.schedule, (epoch - 1) * steps + number, epochs * steps
                )
                optimizer.param_groups[0]["lr"] = settings.learning_rate * factor
                batch = augmenter(images[rows.to(device)], labels[rows.to(device)], rows)
                total += _step(model, optimizer, settings.loss, *batch)
            result = {"train_loss": total.item() / count}
            result["learning_rate"] = optimizer.param_groups[0]["lr"]
            if validation is not None:
                scores = evaluate(model, validation, device)
                result |= {f"val_{name}": value for name, value in scores.items()}
            elif epoch == epochs:  # nothing else would tell that the last step diverged
                _check_finite({"final_loss": evaluate(model, train, device)["loss"]})
            _check_finite(result)
        result["seconds"] = time.perf_counter() - start
        yield result


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: str,
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """One step of the optimizer; the sum of the images' losses, still on the device."""
    count = len(images)
    parts = 1 if images.is_cuda else math.ceil(count / LARGEST_PART)
    total = torch.zeros((), device=images.device)
    optimizer.zero_grad()
    for some_images, some_labels in zip(
        images.tensor_split(parts), labels.tensor_split(parts), strict=True
    ):
        logits = model(some_images.contiguous(memory_format=torch.channels_last))
        share = LOSSES[loss](logits, some_labels) * len(some_images)
        (share / count).backward()
        total += share.detach()
    optimizer.step()
    return total


def _check_finite(result: Result) -> None:
    for name, value in result.items():
        if not math.isfinite(value):
            raise TrialFailure(f"{name} is {value}")


@contextmanager
def _failures_of(epoch: int) -> Iterator[None]:
    """Turn what can go wrong in training into a TrialFailure that names the epoch."""
    try:
        yield
    except TrialFailure as failure:
        raise TrialFailure(f"epoch {epoch}: {failure}") from None
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrialFailure(f"epoch {epoch}: out of memory") from error
    except RuntimeError as error:  # the CPU allocator raises no class of its own
        if "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        raise TrialFailure(f"epoch {epoch}: out of memory") from error
