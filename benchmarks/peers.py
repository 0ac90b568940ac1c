"""The usual way to train: what the benchmarks compare with, written as the libraries' examples are.

The same networks, first weights, optimizers, schedules and losses, in float32, with a DataLoader,
torchvision's transforms sample by sample, and torch's own layers.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from materials import open_task
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms, tv_tensors
from torchvision.transforms import v2

from dl4ia.data.dataset import Dataset as Images
from dl4ia.data.dataset import Source
from dl4ia.data.splits import Split, make_splits
from dl4ia.models.layers import Upsampling
from dl4ia.models.segmentation import UNet
from dl4ia.search_space import Point, SpaceModule
from dl4ia.tasks.task import Task
from dl4ia.training.losses import make_loss
from dl4ia.training.optimization import schedule_factor

Epoch = tuple[float, float]  # seconds, and the validation part's score
Loaders = tuple[DataLoader[Any], DataLoader[Any]]  # of what is trained on, and of what is scored
SCORING_BATCH = 1000
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as a study chooses


@dataclass(frozen=True)
class Material:
    """What both ways train on: 80 % of the training images, and score the others."""

    task: Task
    source: Source
    searched: SpaceModule
    train: Images
    validation: Images
    loaders: Callable[[Mapping[str, Any], int], Loaders]  # of a point, by so many workers

    @property
    def points(self) -> dict[str, Point]:
        """The named points of the search space."""
        return self.searched.REPORT_MODELS | self.searched.REFERENCE_MODELS


@cache  # once a process, whatever number of trials it trains
def open_material(task: str, folder: Path | None) -> Material:
    """Of "digits" (MNIST as torchvision leaves it, in `folder` or data), or of "glands"."""
    digits = folder or Path("data")
    scorer, source, searched = open_task(task, digits if task == "digits" else folder)
    dataset = source.train()
    (split,) = make_splits(scorer.strata(dataset), 1, seed=0)
    train, validation = dataset.subset(split.train), dataset.subset(split.validation)
    if task == "digits":
        loaders = partial(digit_loaders, digits, split)
    else:
        loaders = partial(gland_loaders, train, validation)
    return Material(scorer, source, searched, train, validation, loaders)


class PlainUNet(UNet):
    """Without what dl4ia does for the speed of its gradients."""

    def join(self, features: Tensor, skipped: Tensor) -> Tensor:
        return torch.cat([features, skipped], dim=1)


def in_torchs_layers(model: nn.Module) -> nn.Module:
    """The same function of the same weights in torch's own layers, in place."""
    for module in model.modules():
        if isinstance(module, UNet):
            module.__class__ = PlainUNet
        if isinstance(module, Upsampling):
            module.__class__ = nn.ConvTranspose2d  # type: ignore[assignment]
    return model


def affine(amount: float) -> dict[str, Any]:
    """The search space's strength as torchvision's arguments."""
    scale = 1 + 0.3 * amount
    return {
        "degrees": 45 * amount,
        "translate": (0.1 * amount, 0.1 * amount),
        "scale": (1 / scale, scale),
        "shear": math.degrees(0.2 * amount),
    }


def elastic(amount: float, side: int) -> v2.ElasticTransform:
    """The search space's strength as torchvision's, of the same strain.

    dl4ia moves by 0.04 of the side, over control points a fifth of the side apart: neighbours part
    by sqrt(2) 0.2. With torchvision's sigma, which is finer on glands, as far a displacement would
    tear the image; the same strain takes 0.4 sigma pixels. torchvision moves by alpha / 2 pixels
    times noise in [-1, 1] that is blurred by sigma, whose deviation is 1 / sqrt(12 pi) / sigma.
    """
    sigma = min(5.0, 0.085 * side)
    displacement = 0.4 * sigma * amount
    return v2.ElasticTransform(2 * displacement * sigma * math.sqrt(12 * math.pi), sigma)


class Glands(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels as tensors, augmented one by one as a training point says."""

    def __init__(self, images: Images, point: Mapping[str, Any] | None) -> None:
        """point: None, where nothing is augmented."""
        self.images, self.point = images, point
        steps: list[nn.Module] = []
        self.turns = bool(point and point["augmentation"] == "flips_and_quarter_turns")
        if self.turns:
            steps += [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
        if point and point["affine"] > 0:
            bilinear = v2.InterpolationMode.BILINEAR
            steps.append(v2.RandomAffine(**affine(point["affine"]), interpolation=bilinear))
        if point and point["elastic"] > 0:
            steps.append(elastic(point["elastic"], images.images.shape[-1]))
        self.transform = v2.Compose(steps) if steps else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.images.images[index], self.images.labels[index]
        if self.transform is not None:
            pair = tv_tensors.Image(image), tv_tensors.Mask(label)
            image, label = (each.as_subclass(Tensor) for each in self.transform(*pair))
        if self.turns and image.shape[-1] == image.shape[-2]:
            quarters = int(torch.randint(4, ()))
            image, label = (each.rot90(quarters, (-2, -1)) for each in (image, label))
        if self.point and self.point["stain_jitter"] > 0:
            amount = self.point["stain_jitter"] * (2 * torch.rand(2, len(image), 1, 1) - 1)
            image = (image * (1 + 0.3 * amount[0]) + 0.1 * amount[1]).clamp(0, 1)
        return image, label


def loading(workers: int) -> dict[str, Any]:
    """How a DataLoader loads."""
    pinned = DEVICE.type == "cuda"
    return {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": pinned}


def gland_loaders(
    train: Images, validation: Images, point: Mapping[str, Any], workers: int
) -> Loaders:
    """Of images that are in memory already."""
    batch = len(train) if point["batch_size"] == "full" else point["batch_size"]
    options = loading(workers)
    shown, scored = Glands(train, point), Glands(validation, None)
    return DataLoader(shown, batch, shuffle=True, **options), DataLoader(scored, batch, **options)


def digit_loaders(folder: Path, split: Split, point: Mapping[str, Any], workers: int) -> Loaders:
    """Of torchvision's MNIST in `folder`."""
    steps: list[Any] = []
    if point["affine"] > 0:
        steps.append(transforms.RandomAffine(**affine(point["affine"])))
    if point.get("elastic", 0.0) > 0:
        steps.append(elastic(point["elastic"], 28))
    augmented = transforms.Compose([*steps, transforms.ToTensor()])
    shown = datasets.MNIST(folder, train=True, transform=augmented)
    scored = datasets.MNIST(folder, train=True, transform=transforms.ToTensor())
    options = loading(workers)
    return (
        DataLoader(Subset(shown, split.train), point["batch_size"], shuffle=True, **options),
        DataLoader(Subset(scored, split.validation), SCORING_BATCH, **options),
    )


def train_plainly(
    model: nn.Module,
    loaders: Loaders,
    point: Mapping[str, Any],
    epochs: int,
) -> Iterator[Epoch]:
    """Train and validate, an epoch at a time; accuracy of images, or the images' mean Dice."""
    train, validation = loaders
    model.to(DEVICE)
    decay = {"weight_decay": point["weight_decay"]} if "weight_decay" in point else {}
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    optimizer = kind[point["optimizer"]](model.parameters(), point["learning_rate"], **decay)
    loss = make_loss(point.get("loss", "cross_entropy"), point.get("label_smoothing", 0.0))
    steps = epochs * len(train)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule_factor(point["schedule"], min(step, steps - 1), steps)
    )
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss(model(images.to(DEVICE)), labels.to(DEVICE)).backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        scores: list[Tensor] = []
        with torch.no_grad():
            for images, labels in validation:
                found = model(images.to(DEVICE)).argmax(1).cpu()
                scores.append(
                    (found == labels).double() if labels.ndim == 1 else _dice(found, labels)
                )
        yield time.perf_counter() - start, torch.cat(scores).mean().item()


def _dice(found: Tensor, labels: Tensor) -> Tensor:
    both = (found * labels).sum((1, 2))
    total = found.sum((1, 2)) + labels.sum((1, 2))
    return torch.where(total > 0, 2 * both / total, 1.0).double()
