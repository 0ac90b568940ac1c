"""MNIST's four IDX files, as torchvision leaves them: plain or .gz, read in memory, never unpacked.

The format: a magic number, one size for each dimension (big-endian, 32 bits), then unsigned bytes.
"""

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from dl4ia.data.dataset import Dataset
from dl4ia.data.images import source_name
from dl4ia.errors import InputError, first_line

PLACES = ("MNIST/raw", "raw", ".")  # below the folder that is given
FILES = {  # images, labels
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MAGIC = {3: 0x0803, 1: 0x0801}  # dimensions: unsigned bytes (8) in so many
CONTENT = {3: "images", 1: "labels"}
CLASSES = 10
FEWEST_IMAGES = 5  # one validation image in an 80/20 split
SMALLEST_SIDE = 8  # pixels: two poolings leave two
CHUNK = 1 << 20  # bytes
MNIST_LABELS = "1feba77c54802fa5"  # SHA-256 of its 60,000 training labels, in part


class IdxFolder:
    """The digits of MNIST, or others in its format; a `dl4ia.data.dataset.Source`."""

    classes = tuple(str(digit) for digit in range(CLASSES))

    def __init__(self, folder: Path) -> None:
        """Find all four files and read the training files' headers; no test file is opened."""
        place = self.find(folder)
        if place is None:
            raise InputError(
                f"{folder}: no IDX file there; expected {FILES['train'][0]} and its three "
                f"companions, plain or .gz, in it or in {PLACES[0]}/: give another "
                "folder"
            )
        self._files = {
            part: tuple(_locate(place, name) for name in names) for part, names in FILES.items()
        }
        count, height, width = self._sizes("train")
        images = self._files["train"][0]
        if count < FEWEST_IMAGES:
            raise InputError(
                f"{images}: {count} training images; expected at least {FEWEST_IMAGES}"
            )
        if min(height, width) < SMALLEST_SIDE:
            raise InputError(
                f"{images}: images of {width}x{height} pixels; expected at least {SMALLEST_SIDE} "
                "a side"
            )
        self.training_images = count
        self.description = f"{place}: {count} training images of {width}x{height} pixels, IDX files"
        # Other digits, or no digits at all, come in this format too: they are another study.
        labels = _read_content(self._files["train"][1], 1).tobytes()
        is_mnist = hashlib.sha256(labels).hexdigest().startswith(MNIST_LABELS)
        self.name = "mnist" if is_mnist else source_name(folder)
        self.preparation: dict[str, str | float] = {}

    @staticmethod
    def find(folder: Path) -> Path | None:
        """The subfolder with the most of the four files, or None where no IDX file is anywhere."""

        def count(place: Path) -> int:
            names = [name for names in FILES.values() for name in names]
            return sum(any(path.is_file() for path in _forms(place, name)) for name in names)

        place = max((folder / place for place in PLACES), key=count)
        return place if count(place) else None

    def train(self) -> Dataset:
        """The training images and labels."""
        return self._read("train")

    def test(self) -> Dataset:
        """The test images and labels; for `dl4ia.evaluation` alone."""
        return self._read("test")

    def _sizes(self, part: str) -> tuple[int, int, int]:
        """Number, height and width of a part's images; there are as many labels."""
        images, labels = self._files[part]
        count, height, width = _read_sizes(images, 3)
        (label_count,) = _read_sizes(labels, 1)
        if label_count != count:
            raise InputError(
                f"{labels}: {label_count} labels; expected {count}, one for each image of "
                f"{images.name}; copy both files again"
            )
        return count, height, width

    def _read(self, part: str) -> Dataset:
        count, *size = self._sizes(part)
        _, *expected = self._sizes("train")
        images, labels = self._files[part]
        if size != expected:
            raise InputError(
                f"{images}: images of {size[1]}x{size[0]} pixels; expected "
                f"{expected[1]}x{expected[0]} as in {self._files['train'][0].name}"
            )
        pixels = _read_content(images, 3)  # (N, H, W)
        numbers = _read_content(labels, 1)  # (N,)
        if numbers.max() >= CLASSES:
            raise InputError(
                f"{labels}: label {numbers.max()} at position {int(numbers.argmax())}; expected 0 "
                f"to {CLASSES - 1}; for other classes give a folder of images in Train/<class>/ "
                "and Test/<class>/"
            )
        return Dataset(
            images=torch.from_numpy(pixels).unsqueeze(1).float().div_(255),
            labels=torch.from_numpy(numbers).long(),
            names=tuple(f"{part}_{index:05d}" for index in range(count)),
        )


def _forms(place: Path, name: str) -> tuple[Path, Path]:
    """A file as it is and compressed, in the order of preference."""
    return place / name, place / f"{name}.gz"


def _locate(place: Path, name: str) -> Path:
    for path in _forms(place, name):
        if path.is_file():
            return path
    raise InputError(
        f"{place / name}: no such file, and no .gz of it; expected all four files of MNIST in "
        "that folder: copy it there"
    )


def _remedy(path: Path) -> str:
    compressed = path.with_name(f"{path.name}.gz")
    if path.suffix != ".gz" and compressed.is_file():
        return f"remove it, and {compressed.name} beside it is read"
    return "copy the file again"


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed; raises InputError where it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield cast(BinaryIO, stream)
    except (OSError, EOFError, zlib.error) as error:
        expected = "a whole gzip file" if path.suffix == ".gz" else "a readable file"
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}); expected {expected}; {_remedy(path)}"
        ) from error


def _read_sizes(path: Path, dimensions: int) -> tuple[int, ...]:
    """What the header says: N, H, W of images (3 dimensions) or N of labels (1)."""
    length = 4 * (1 + dimensions)
    with _opened(path) as stream:
        header = stream.read(length)
    if len(header) < length:
        found = f"only {len(header)} bytes" if header else "it is empty"
        raise InputError(
            f"{path}: {found}; expected an IDX file of {CONTENT[dimensions]} with a header of "
            f"{length} bytes; {_remedy(path)}"
        )
    magic, *sizes = struct.unpack(f">{1 + dimensions}I", header)
    if magic != MAGIC[dimensions]:
        raise InputError(
            f"{path}: begins with 0x{magic:08x}; expected 0x{MAGIC[dimensions]:08x}, an IDX file "
            f"of {CONTENT[dimensions]}; {_remedy(path)}"
        )
    if min(sizes) < 1:
        raise InputError(
            f"{path}: its header says {' x '.join(map(str, sizes))} {CONTENT[dimensions]}; "
            f"expected none of these to be 0; {_remedy(path)}"
        )
    return tuple(sizes)


def _read_content(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """(N, H, W) images or (N,) labels; the file holds exactly what its header says."""
    sizes = _read_sizes(path, dimensions)
    header = 4 * (1 + dimensions)
    expected = header + math.prod(sizes)
    content = bytearray()
    with _opened(path) as stream:
        # In chunks, and to the end: a header may lie about gigabytes, and gzip checks its sum last.
        while len(content) <= expected and (chunk := stream.read(CHUNK)):
            content += chunk
    if len(content) != expected:
        found = f"only {len(content)}" if len(content) < expected else f"more than {expected}"
        raise InputError(
            f"{path}: {found} bytes; expected {expected}, as its header says "
            f"({' x '.join(map(str, sizes))} {CONTENT[dimensions]}); {_remedy(path)}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)
