"""Training: `fit` yields one result an epoch. Knows nothing of Optuna or MLflow."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.errors import OutOfMemory, TrialFailure
from dl4ia.training.augmentation import (
    AugmentationSettings,
    Augmenter,
    extend_with_report_rotations,
)
from dl4ia.training.averaging import WeightAverage
from dl4ia.training.checkpoint import Checkpoint
from dl4ia.training.losses import make_loss
from dl4ia.training.optimization import make_optimizer, schedule_factor
from dl4ia.training.precision import computing_in, exactly
from dl4ia.training.steps import Steps

SHUFFLING = 0x5EED  # turns a training's seed into that of another stream
FORESIGHT = 1 / 16  # of all steps: how far the mean goes back that is scored in `foresee_in`

# What is said where no class of its own is raised: by the allocator of a CPU, and by CUDA and its
# libraries where others have the GPU's memory.
MEMORY_ERRORS = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
# cuDNN's, where none of its ways to convolve can be had: for want of memory, or for good.
NO_ENGINE = "unable to find an engine"
# Of CUDA's libraries, which say so of anything: that they cannot begin where memory is short, too.
GPU_ERRORS = ("CUBLAS_STATUS_", "CUDNN_STATUS_")
LITTLE = 0.05  # of a GPU's memory: left of it where it has run out

Result = dict[str, float]
Evaluate = Callable[[nn.Module, Dataset, torch.device], Result]


@dataclass(frozen=True)
class TrainingSettings:
    """The hyperparameters of training; those that do not apply keep their defaults.

    averaging: the share of all steps that the mean of the weights goes back; 0: the last weights.
    """

    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int | str
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    averaging: float = 0.0


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
    precision: torch.dtype = torch.float32,
    largest_part: int | None = None,
    checkpoint: Checkpoint | None = None,
    foresee_in: int | None = None,
) -> Iterator[Result]:
    """Train `model` in place on `device`; yield each epoch's metrics.

    Convolutions and matrix products compute in `precision` (of float32 a GPU makes TF32 in
    convolutions), but for the last epoch's evaluation, which like weights and losses is in float32
    always: what is scored is what is exported. At most `largest_part` pixels pass through the
    network at once (None: what suits the device).

    train_loss and train_accuracy (means over the epoch's images, as augmented and in training mode;
    accuracy is the share of right labels), learning_rate (of the last step), seconds (of training
    and evaluation), and, where there is a validation part, what `evaluate` says of all of it,
    prefixed by `val_`. With averaging it is the mean of the weights that is scored, and that
    `model` ends with. Batches are as equal as they can be: none is left with a single image, of
    which batch normalisation could learn nothing.

    In epoch `foresee_in`, which may not be the last, val_ are of the mean of the weights over the
    last FORESIGHT of all steps, whatever `settings.averaging` is: while the learning rate is high
    it tells better than the latest weights what a training will come to. Not with `checkpoint`.

    Where `checkpoint` has an earlier part of this training, its epochs are yielded as they were,
    and the rest follows as if it had never been cut off, to the bit on a CPU.

    Raises TrialFailure, naming the epoch, where a loss is not finite or the memory runs out.
    """
    if foresee_in is not None and (checkpoint is not None or foresee_in >= epochs):
        raise ValueError(f"foresee_in {foresee_in}: expected no checkpoint, and an earlier epoch")
    with _failures_of(1):
        model.to(device).to(memory_format=torch.channels_last)
        train = train.to(device)
        images, labels = train.images, train.labels
        validation = None if validation is None else validation.to(device)
        if augmentation.report_rotations:
            images, labels = extend_with_report_rotations(images, labels)
        augmenter = Augmenter(augmentation, images, seed)
        count = len(images)
        batch_size = (
            count if settings.batch_size == "full" else min(int(settings.batch_size), count)
        )
        steps = math.ceil(count / batch_size)
        optimizer = make_optimizer(
            settings.optimizer, model.parameters(), settings.learning_rate, settings.weight_decay
        )
        average = None
        if settings.averaging > 0:
            average = WeightAverage(model, settings.averaging * epochs * steps)
        scored = model if average is None else average.model
        foreseen = None
        if foresee_in is not None:
            foreseen = WeightAverage(model, FORESIGHT * epochs * steps)
        training = Steps(
            model,
            optimizer,
            make_loss(settings.loss, settings.label_smoothing),
            images,
            labels,
            augmenter,
            [each for each in (average, foreseen) if each is not None],
            precision,
            largest_part,
        )
    shuffler = torch.Generator().manual_seed(seed ^ SHUFFLING)
    history: list[Result] = []
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        history = kept["history"]
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        augmenter.set_state(kept["augmenter"])
        if average is not None:
            average.set_state(kept["average"])
        shuffler.set_state(kept["shuffler"])
        yield from history
        _set_random_state(kept["random"], device)  # after whatever was done between the epochs
    for epoch in range(len(history) + 1, epochs + 1):
        start = time.perf_counter()
        with _failures_of(epoch):
            model.train()
            augmenter.draw()
            order = torch.randperm(count, generator=shuffler).to(device)
            rates = [
                settings.learning_rate * schedule_factor(settings.schedule, step, epochs * steps)
                for step in range((epoch - 1) * steps, epoch * steps)
            ]
            totals = training.take(order, rates)
            means = (totals / count).tolist()
            result = dict(zip(("train_loss", "train_accuracy"), means, strict=True))
            result["learning_rate"] = rates[-1]
            if validation is not None:
                # Nothing is decided by the last digits of an epoch that others follow.
                judged = scored if foreseen is None or epoch != foresee_in else foreseen.model
                with exactly() if epoch == epochs else computing_in(precision, device):
                    scores = evaluate(judged, validation, device)
                result |= {f"val_{name}": value for name, value in scores.items()}
            elif epoch == epochs:  # nothing else would tell that the last step diverged
                _check_finite({"final_loss": evaluate(scored, train, device)["loss"]})
            _check_finite(result)
        if epoch == foresee_in:
            training.averages = [] if average is None else [average]
        result["seconds"] = time.perf_counter() - start
        history.append(result)
        if average is not None and epoch == epochs:
            model.load_state_dict(average.model.state_dict())
        if checkpoint is not None and epoch < epochs and checkpoint.due:
            checkpoint.save(
                {
                    "history": history,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "augmenter": augmenter.state(),
                    "average": None if average is None else average.state(),
                    "shuffler": shuffler.get_state(),
                    "random": _random_state(device),
                }
            )
        yield result


def _random_state(device: torch.device) -> list[Tensor]:
    """Of the global streams, which dropout draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


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
    except (MemoryError, RuntimeError) as error:
        if is_lack_of_memory(error):
            raise OutOfMemory(f"epoch {epoch}: out of memory") from error
        if NO_ENGINE in str(error):
            raise TrialFailure(f"epoch {epoch}: cuDNN has no way to compute it") from error
        raise


def is_lack_of_memory(error: Exception) -> bool:
    """Whether it says that the memory has run out, of the machine or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error)
    if any(words in said for words in MEMORY_ERRORS):
        return True
    return any(words in said for words in (NO_ENGINE, *GPU_ERRORS)) and _gpu_is_full()


def _gpu_is_full() -> bool:
    """Whether little memory is left of the GPU that is current, whoever has the rest."""
    if not torch.cuda.is_available():
        return False
    free, total = torch.cuda.mem_get_info()
    return free < LITTLE * total
