"""The course's gland folder: Train/ and Test/ with image_NN.png and label_NN.png, of any size."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from dl4ia.data.dataset import Dataset
from dl4ia.data.images import open_image, source_name
from dl4ia.data.patients import read_patients
from dl4ia.errors import InputError

STAINS = 2  # red = haematoxylin, green = eosin; blue must be 0
FEWEST_IMAGES = 5  # one validation image in an 80/20 split
COURSE_IMAGE = "7a12619ae49fd785"  # SHA-256 of the pixels of Train/image_01.png, in part
COURSE_SHIFT = 0.5  # pixels
SMALLEST_SIDE = 16  # pixels: four poolings, the deepest U-Net of the space


class GlandFolder:
    """Pairs of image and label in one folder; a `dl4ia.data.dataset.Source`.

    Where a patients.csv stands beside Train/ and Test/ it gives the images' groups.

    channels: "stain" (red and green; blue must be 0), "rgb", or "auto" (stain unless every image
        has some blue).
    image_shift: how far, in pixels, the images' content is moved down and to the right before
        anything else; None: 0.5 for the course's images, 0 for any others. The course's labels
        were sampled at the top-left of each cell while its images were resized centre-aligned.
        `benchmarks/image_shift.py` compares both by cross-validation on the training images.
    """

    def __init__(
        self, folder: Path, channels: str = "auto", image_shift: float | None = None
    ) -> None:
        """Find both parts, their pairs by name and whose they are; no test file is opened."""
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder; expected one with Train/ and Test/ inside: "
                "give another one"
            )
        train_names, test_names = (_names(_pairs(folder / part)) for part in ("Train", "Test"))
        train_count, test_count = len(train_names), len(test_names)
        if train_count < FEWEST_IMAGES:
            raise InputError(
                f"{folder / 'Train'}: {train_count} training images; "
                f"expected at least {FEWEST_IMAGES}"
            )
        read_patients(folder, "Train", train_names)
        read_patients(folder, "Test", test_names)  # a mistake is told now, not after the search
        self.folder = folder
        self.channels = self._resolve(channels)
        if image_shift is None:
            image_shift = COURSE_SHIFT if _is_the_course(folder) else 0.0
        self.image_shift = image_shift
        self.name = source_name(folder)
        self.description = f"{folder}: {train_count} training and {test_count} test images"
        if image_shift:
            self.description += f", moved by {image_shift:g} pixels onto their labels"
        self.preparation: dict[str, str | float] = {
            "channels": self.channels,
            "image_shift": image_shift,
        }

    def _resolve(self, channels: str) -> str:
        """What "auto" means for these training images, for good: the test set follows."""
        if channels != "auto":
            return channels
        blue = [read_image(image)[..., STAINS].any() for image, _ in _pairs(self.folder / "Train")]
        return "rgb" if all(blue) else "stain"

    def train(self) -> Dataset:
        """The training images and labels."""
        return self._read("Train")

    def test(self) -> Dataset:
        """The test images and labels; for `dl4ia.evaluation` alone."""
        return self._read("Test")

    def _read(self, part: str) -> Dataset:
        pairs = _pairs(self.folder / part)
        images = [read_image(image) for image, _ in pairs]
        labels = [_read_label(label) for _, label in pairs]
        for (image, label), pixels, mask in zip(pairs, images, labels, strict=True):
            for file, size in ((image, pixels.shape[:2]), (label, mask.shape)):
                _check_size(file, size, pairs[0][0], images[0].shape[:2])
        stack = np.stack(images)  # (N, H, W, 3)
        if self._has_stains(stack, [image for image, _ in pairs]):
            stack = stack[..., :STAINS]
        tensor = torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255  # (N, C, H, W)
        names = _names(pairs)
        return Dataset(
            images=shift_images(tensor, self.image_shift).contiguous(),
            labels=torch.from_numpy(np.stack(labels)).long(),
            names=names,
            groups=read_patients(self.folder, part, names),
        )

    def _has_stains(self, stack: np.ndarray, files: list[Path]) -> bool:
        if self.channels == "rgb":
            return False
        blue = stack[..., STAINS:].any(axis=(1, 2, 3))  # (N,)
        if blue.any():
            culprit = files[int(np.argmax(blue))]
            raise InputError(
                f"{culprit}: its blue channel is not 0, as expected of two stains (red = "
                "haematoxylin, green = eosin); for colour images give --channels rgb"
            )
        return True


def _is_the_course(folder: Path) -> bool:
    """Whether the first training image is that of the course's hand-out."""
    first, _ = _pairs(folder / "Train")[0]
    return hashlib.sha256(read_image(first).tobytes()).hexdigest().startswith(COURSE_IMAGE)


def shift_images(images: torch.Tensor, shift: float) -> torch.Tensor:
    """Move the content of (N, C, H, W) images by `shift` in [0, 1) pixels down and right.

    new[i] = (1 - shift) old[i] + shift old[i - 1] along both axes; the edge is repeated.
    """
    for axis in (2, 3):
        before = torch.cat([images.narrow(axis, 0, 1), images], axis)
        before = before.narrow(axis, 0, images.shape[axis])
        images = torch.lerp(images, before, shift)
    return images


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(image, label) paths in the order of their names; every one has its partner."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; expected image_NN.png and label_NN.png files in it"
        )
    found = {
        kind: {
            path.name.removeprefix(f"{kind}_"): path
            for path in sorted(folder.glob(f"{kind}_*.png"))
        }
        for kind in ("image", "label")
    }
    if not found["image"]:
        raise InputError(
            f"{folder}: no image_NN.png in it; expected pairs image_NN.png, label_NN.png"
        )
    for kind, partner in (("image", "label"), ("label", "image")):
        for suffix, path in found[kind].items():
            if suffix not in found[partner]:
                raise InputError(
                    f"{path}: its {partner} is missing; expected {folder / f'{partner}_{suffix}'}"
                )
    return [(path, found["label"][suffix]) for suffix, path in found["image"].items()]


def _names(pairs: list[tuple[Path, Path]]) -> tuple[str, ...]:
    """The images' file names."""
    return tuple(image.name for image, _ in pairs)


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8; raises InputError where the file is no 8-bit image."""
    image = open_image(path)
    if image.mode not in ("RGB", "RGBA", "P", "L"):
        raise InputError(
            f"{path}: pixel format {image.mode}; expected 8 bits a channel, RGB: convert it"
        )
    return np.array(image.convert("RGB"))


def _read_label(path: Path) -> np.ndarray:
    """(H, W) uint8, 1 where there is a gland."""
    label = open_image(path)
    if label.mode in ("P", "PA", "LA", "RGBA"):  # colours, not indices; transparency says nothing
        label = label.convert("RGB")
    pixels = np.array(label)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]  # a grey label saved as colour
    values = np.unique(pixels)
    if pixels.ndim != 2 or not set(values.tolist()) <= {0, int(values.max())}:
        raise InputError(
            f"{path}: values {', '.join(str(value) for value in values[:5])}"
            f"{', …' if len(values) > 5 else ''}; expected two, 0 (background) and 255 (gland)"
        )
    return (pixels > 0).astype(np.uint8)


def _check_size(path: Path, size: tuple[int, ...], first: Path, expected: tuple[int, ...]) -> None:
    height, width = size
    if size != expected:
        raise InputError(
            f"{path}: {width}x{height} pixels; expected {expected[1]}x{expected[0]} as in "
            f"{first.name}"
        )
    if min(size) < SMALLEST_SIDE:
        raise InputError(
            f"{path}: {width}x{height} pixels; expected at least {SMALLEST_SIDE} a side"
        )
