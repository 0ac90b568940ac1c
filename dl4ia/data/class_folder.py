"""Images sorted by class, Train/<class>/ and Test/<class>/, as the course hands out its digits."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dl4ia.data.dataset import Dataset
from dl4ia.data.image_cache import ImageCache
from dl4ia.data.images import SUFFIXES, check_name, describe_contents, source_name
from dl4ia.data.pixels import KINDS, Pixels, read_as_it_is, read_pixels
from dl4ia.errors import InputError
from dl4ia.text import metric_name, score_behind

FEWEST_CLASSES = 2
FEWEST_IMAGES = 5  # of a class: one for validation in an 80/20 split
LONGEST_NAME = 200  # letters of a class: MLflow allows 250 for a metric, which says more
SMALLEST_SIDE = 8  # pixels: two poolings leave two


class ClassFolder:
    """Images of one size, a folder for each class; a `dl4ia.data.dataset.Source`.

    channels: "grey", "rgb", or "auto", which is rgb where any training image has a colour.
    classes: the folders' names, in the order of their numbers as labels.
    """

    def __init__(self, folder: Path, cache: Path, channels: str = "auto") -> None:
        """Find both parts by their names; no image is opened.

        cache: a folder for decoded images, made when something is written there.
        """
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder; expected one with Train/<class>/ and Test/<class>/: "
                "give another one"
            )
        found = {part: _find_images(folder / part) for part in ("Train", "Test")}
        _check_classes(folder, found)
        self.classes = _sorted_classes(found["Train"])
        self._files = {
            part: [path for name in self.classes for path in found[part][name]] for part in found
        }
        self._labels = {
            part: np.repeat(
                np.arange(len(self.classes)), [len(found[part][name]) for name in self.classes]
            )
            for part in found
        }
        self.training_images = len(self._files["Train"])
        self.folder = folder
        self.cache = cache
        self.name = source_name(folder)
        # Two folders of one name have a cache each.
        place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
        self._cache_name = f"{self.name}-{place}"
        self._asked = channels
        self._found = "" if channels == "auto" else channels

    @property
    def channels(self) -> str:
        """What "auto" means for these training images, for good: the test set follows."""
        if not self._found:
            self.train()
        return self._found

    @property
    def description(self) -> str:
        """In words."""
        return (
            f"{self.folder}: {self.training_images} training and {len(self._files['Test'])} test "
            f"images of {len(self.classes)} classes, "
            + ("read as grey" if self.channels == "grey" else "in colour")
        )

    @property
    def preparation(self) -> dict[str, str | float]:
        """What else makes these data other ones; of grey images as before there were others."""
        known: dict[str, str | float] = {"classes": ", ".join(self.classes)}
        return known if self.channels == "grey" else known | {"channels": self.channels}

    def train(self) -> Dataset:
        """The training images and labels."""
        return self._read("Train", self._asked)

    def test(self) -> Dataset:
        """The test images and labels; for `dl4ia.evaluation` alone."""
        return self._read("Test", self.channels)

    def _read(self, part: str, kind: str) -> Dataset:
        files, root = self._files[part], self.folder / part
        names = tuple(path.relative_to(root).as_posix() for path in files)
        first = self._files["Train"][0]
        size = _read_size(first)
        asked = "" if self._asked == "auto" else f"-{self._asked}"
        place = self.cache / f"{self._cache_name}{asked}-{part.lower()}.npz"
        cache = ImageCache(place, root, names, kind)
        found = ("grey", "rgb") if kind == "auto" else (kind,)
        pixels = cache.read(*((len(files), *size, KINDS[each]) for each in found))
        if pixels is None:
            pixels = _decode(files, first, size, kind)
            cache.write(pixels)
        self._found = "grey" if pixels.shape[-1] == KINDS["grey"] else "rgb"
        return Dataset(
            images=torch.from_numpy(_planes(pixels)).float().div_(255),
            labels=torch.from_numpy(self._labels[part]).long(),
            names=names,
        )


def _find_images(folder: Path) -> dict[str, list[Path]]:
    """The images of each class in one part, sorted by name."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; expected <class>/ folders of images in it, and "
            f"{folder.parent} has: {describe_contents(folder.parent)}"
        )
    found = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir() and not place.name.startswith("."):
            check_name(place)
            found[place.name] = _images_of(place)
            for path in found[place.name]:
                check_name(path)
                if not path.is_file():
                    raise InputError(f"{path}: a link to nothing, or no file: replace or remove it")
            if not found[place.name]:
                raise InputError(
                    f"{place}: no images in it, but {describe_contents(place)}; expected "
                    f"{', '.join(SUFFIXES)} files (add some, or remove the folder in both parts)"
                )
    if not found:
        raise InputError(
            f"{folder}: no class folders in it, but {describe_contents(folder)}; expected "
            "<class>/ folders, each with the images of its class"
        )
    return found


def _images_of(place: Path) -> list[Path]:
    """Those of one class, sorted by name.

    Raises InputError for images a level below, which would be passed over without a word.
    """
    images = []
    for path in sorted(place.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if any(each.suffix.lower() in SUFFIXES for each in path.iterdir()):
                raise InputError(
                    f"{path}: a folder of images within class {place.name!r}; expected the images "
                    "beside it: move them there, or out of the class"
                )
        elif path.suffix.lower() in SUFFIXES:
            images.append(path)
    return images


def _check_classes(folder: Path, found: dict[str, dict[str, list[Path]]]) -> None:
    for part, other in (("Train", "Test"), ("Test", "Train")):
        for name in found[part]:
            if name not in found[other]:
                raise InputError(
                    f"{folder / other / name}: no such folder; expected the same classes in both "
                    f"parts, and there is {folder / part / name}: add the one or remove the other"
                )
    if len(found["Train"]) < FEWEST_CLASSES:
        raise InputError(
            f"{folder / 'Train'}: only class {next(iter(found['Train']))!r}; expected at least "
            f"{FEWEST_CLASSES} class folders"
        )
    known: dict[str, str] = {}
    for name in found["Train"]:
        if len(name) > LONGEST_NAME:
            raise InputError(
                f"{folder / 'Train' / name}: a name of {len(name)} letters; expected at most "
                f"{LONGEST_NAME}: rename the folder in both parts"
            )
        other = known.setdefault(metric_name(name), name)
        if other != name:
            raise InputError(
                f"{folder / 'Train' / name}: MLflow, which knows no such signs, could not tell it "
                f"from {other!r}; expected another name: rename the folder in both parts"
            )
        score = score_behind(name)
        if score in found["Train"]:
            raise InputError(
                f"{folder / 'Train' / name}: the accuracy of {name!r} would be called as what is "
                f"said of that of {score!r}; expected another name: rename the folder in both parts"
            )
    for name, files in found["Train"].items():
        if len(files) < FEWEST_IMAGES:
            raise InputError(
                f"{folder / 'Train' / name}: {len(files)} training images; expected at least "
                f"{FEWEST_IMAGES} of each class"
            )


def _sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
    """By number where all are numbers, else by name."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _read_size(path: Path) -> tuple[int, int]:
    """Height and width that all images must have: those of the first."""
    height, width, _ = read_pixels(path, "grey").shape
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{path}: {width}x{height} pixels; expected at least {SMALLEST_SIDE} a side: enlarge "
            "the images"
        )
    return height, width


def _planes(pixels: Pixels) -> Pixels:
    """(N, H, W, C) -> (N, C, H, W), each plane without gaps, as all other sources have them."""
    if pixels.shape[-1] == 1:
        return pixels[..., 0][:, np.newaxis]
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))


def _decode(files: Sequence[Path], first: Path, size: tuple[int, int], kind: str) -> Pixels:
    """(N, H, W, C). In one thread: the work is Python's own, and two were measured to be slower."""
    read = read_as_it_is if kind == "auto" else partial(read_pixels, kind=kind)
    images = np.empty((len(files), *size, KINDS["grey" if kind == "auto" else kind]), np.uint8)
    for index, path in enumerate(files):
        image = read(path)
        if image.shape[:2] != size:
            raise InputError(
                f"{path}: {image.shape[1]}x{image.shape[0]} pixels; expected {size[1]}x{size[0]} "
                f"as in {first}: bring all images to one size"
            )
        if image.shape[-1] > images.shape[-1]:
            return _decode(files, first, size, "rgb")
        images[index] = image
    return images
