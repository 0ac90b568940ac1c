"""Gland images as the course has them: Train/ and Test/ with pairs image_NN, label_NN."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from dl4ia.data.dataset import Dataset
from dl4ia.data.images import SUFFIXES, check_name, describe_contents, open_image, source_name
from dl4ia.data.patients import read_patients
from dl4ia.data.pixels import guess_kind, is_alpha_mask, read_pixels
from dl4ia.errors import InputError

FEWEST_IMAGES = 5  # one validation image in an 80/20 split
COURSE_IMAGE = "7a12619ae49fd785"  # SHA-256 of the pixels of Train/image_01.png, in part
COURSE_SHIFT = 0.5  # pixels
SMALLEST_SIDE = 16  # pixels: four poolings, the deepest U-Net of the space
EIGHT_NEIGHBOURS = np.ones((3, 3))


class GlandFolder:
    """Pairs of image and label in one folder; a `dl4ia.data.dataset.Source`.

    Where a patients.csv stands beside Train/ and Test/ it gives the images' groups. Touching glands
    are told apart where the labels number them, or files instances_NN do.

    channels: one of `dl4ia.data.pixels.KINDS`, or "auto", what fits the training images.
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
                f"{folder}: {'is no' if folder.exists() else 'no such'} folder; expected one with "
                "Train/ and Test/ inside: "
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
        return guess_kind([image for image, _ in _pairs(self.folder / "Train")])

    def train(self) -> Dataset:
        """The training images and labels."""
        return self._read("Train")

    def test(self) -> Dataset:
        """The test images and labels; for `dl4ia.evaluation` alone."""
        return self._read("Test")

    def _read(self, part: str) -> Dataset:
        pairs = _pairs(self.folder / part)
        first, _ = _pairs(self.folder / "Train")[0]
        size = open_image(first).size[::-1]  # the test images are of the same magnification
        images = [read_pixels(image, self.channels) for image, _ in pairs]
        labels = [_read_label(label) for _, label in pairs]
        for (image, label), pixels, numbers in zip(pairs, images, labels, strict=True):
            for file, found in ((image, pixels.shape[:2]), (label, numbers.shape)):
                _check_size(file, found, first, size)
        stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()  # (N, C, H, W)
        masks = np.stack([numbers != 0 for numbers in labels])  # (N, H, W)
        if part == "Train" and masks.all() == masks.any():
            missing, value = ("background", "0") if masks.all() else ("object", "another value")
            raise InputError(
                f"{self.folder / part}: no label has any {missing} ({value}); expected 0 where "
                "there is background, and objects in some labels at least"
            )
        instances = _read_instances(pairs, masks)
        if instances is None:
            instances = _numbered_in(labels)
        names = _names(pairs)
        return Dataset(
            images=shift_images(stack.div_(255), self.image_shift).contiguous(),
            labels=torch.from_numpy(masks).long(),
            names=names,
            groups=read_patients(self.folder, part, names),
            instances=None if instances is None else torch.from_numpy(instances),
        )


def _is_the_course(folder: Path) -> bool:
    """Whether the first training image is that of the course's hand-out."""
    first, _ = _pairs(folder / "Train")[0]
    pixels = np.array(open_image(first).convert("RGB"))
    return hashlib.sha256(pixels.tobytes()).hexdigest().startswith(COURSE_IMAGE)


def shift_images(images: torch.Tensor, shift: float) -> torch.Tensor:
    """Move the content of (N, C, H, W) images by `shift` in [0, 1) pixels down and right.

    new[i] = (1 - shift) old[i] + shift old[i - 1] along both axes; the edge is repeated.
    """
    if shift == 0:
        return images
    for axis in (2, 3):
        before = torch.cat([images.narrow(axis, 0, 1), images], axis)
        before = before.narrow(axis, 0, images.shape[axis])
        images = torch.lerp(images, before, shift)
    return images


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(image, label) paths in the order of their names; every one has its partner."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; expected image_NN.png and label_NN.png files in it, and "
            f"{folder.parent} has: {describe_contents(folder.parent)}"
        )
    images, labels = _numbered(folder, "image"), _numbered(folder, "label")
    if not images:
        raise InputError(
            f"{folder}: no image_NN.png in it, but {describe_contents(folder)}; expected pairs "
            "image_NN.png, label_NN.png (or .tif, .bmp, .gif; images also .jpg, .webp)"
        )
    for found, kind, others in ((images, "label", labels), (labels, "image", images)):
        for number, path in found.items():
            if number not in others:
                raise InputError(
                    f"{path}: its {kind} is missing; expected {folder / f'{kind}_{number}.png'}"
                )
    return [(path, labels[number]) for number, path in images.items()]


def _numbered(folder: Path, kind: str) -> dict[str, Path]:
    """NN -> the image file `kind`_NN, in the order of their names."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{kind}_*")):
        if path.suffix.lower() in SUFFIXES:
            number = path.stem.removeprefix(f"{kind}_")
            if number in found:
                raise InputError(
                    f"{path}: there is {found[number].name} too; expected one of them: remove the "
                    "other"
                )
            check_name(path)
            found[number] = path
    return found


def _names(pairs: list[tuple[Path, Path]]) -> tuple[str, ...]:
    """The images' file names."""
    return tuple(image.name for image, _ in pairs)


def _read_label(path: Path) -> np.ndarray:
    """(H, W) whole numbers, not 0 where there is a gland: one for all glands, or 1, 2, …"""
    pixels = _read_numbers(path)
    values = np.unique(pixels).tolist()
    glands = [value for value in values if value != 0]
    if values[0] < 0:
        raise InputError(f"{path}: value {values[0]}; expected 0 (background) and larger ones")
    if len(glands) > 1 and glands != list(range(1, len(glands) + 1)):
        is_lossy = path.suffix.lower() in (".jpg", ".jpeg", ".webp")
        advice = "save it as PNG" if is_lossy else "renumber them, or save 0 and 255"
        raise InputError(
            f"{path}: values {', '.join(map(str, values[:5]))}{', …' if len(values) > 5 else ''}; "
            f"expected 0 (background) and one other (gland), or glands numbered 1, 2, …: {advice}"
        )
    return pixels


def _numbered_in(labels: list[np.ndarray]) -> np.ndarray | None:
    """(N, H, W) int32 numbers of glands, where a label has several; None where none has."""
    # As `_read_label` has them: of several numbers the first is 1.
    if not any((numbers == 1).any() and (numbers > 1).any() for numbers in labels):
        return None
    whole = np.stack(labels).astype(np.int32)
    for numbers in whole:
        if not (numbers == 1).any():  # its glands have one value, as in a mask
            numbers[:] = ndimage.label(numbers, EIGHT_NEIGHBOURS)[0]
    return whole


def _read_instances(pairs: list[tuple[Path, Path]], masks: np.ndarray) -> np.ndarray | None:
    """(N, H, W) int32 numbers of glands, 0 where there is none; None where no file has them."""
    folder = pairs[0][0].parent
    files = _numbered(folder, "instances")
    if not files:
        return None
    numbered = []
    for (image, label), mask in zip(pairs, masks, strict=True):
        file = files.get(image.stem.removeprefix("image_"))
        if file is None:
            name = image.name.replace("image_", "instances_")
            raise InputError(
                f"{folder / name}: is missing; expected one for every image, as for others in "
                f"{folder}: add it, or remove them all"
            )
        numbers = _read_numbers(file)
        if numbers.shape != mask.shape or ((numbers > 0) != mask).any():
            raise InputError(
                f"{file}: glands elsewhere than in {label.name}; expected the same pixels, "
                "numbered gland by gland"
            )
        numbered.append(numbers.astype(np.int32))
    return np.stack(numbered)


def _read_numbers(path: Path) -> np.ndarray:
    """(H, W), one whole number a pixel."""
    image = open_image(path)
    if is_alpha_mask(image):
        raise InputError(
            f"{path}: one colour all over, with transparency; expected 0 (background) and 255 "
            "(gland): save the transparency as grey"
        )
    kind = f"{image.mode}, a palette of colours" if image.mode in ("P", "PA") else image.mode
    if image.mode in ("P", "PA", "LA", "RGBA"):  # colours, not indices; transparency says nothing
        image = image.convert("RGB")
    pixels = np.array(image)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]  # grey saved as colour
    if pixels.dtype.kind == "f" and np.isfinite(pixels).all() and (pixels == pixels.round()).all():
        pixels = pixels.astype(np.int64)
    if pixels.ndim != 2 or pixels.dtype.kind == "f":
        raise InputError(
            f"{path}: pixel format {kind}; expected one whole number a pixel, such as 0 "
            "(background) and 255 (gland): save it as grey"
        )
    return pixels


def _check_size(path: Path, size: tuple[int, ...], first: Path, expected: tuple[int, ...]) -> None:
    height, width = size
    if size != expected:
        raise InputError(
            f"{path}: {width}x{height} pixels; expected {expected[1]}x{expected[0]} as in "
            f"{first.parent.name}/{first.name}"
        )
    if min(size) < SMALLEST_SIDE:
        raise InputError(
            f"{path}: {width}x{height} pixels; expected at least {SMALLEST_SIDE} a side"
        )
