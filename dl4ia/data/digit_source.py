"""Which digits a classification study is on: the user's, MNIST, or those embedded."""

from pathlib import Path
from typing import Protocol

from dl4ia.data.class_folder import ClassFolder
from dl4ia.data.dataset import Source
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.data.idx_folder import FILES, IdxFolder
from dl4ia.data.images import describe_contents
from dl4ia.data.mnist_download import download_mnist
from dl4ia.errors import InputError


class ClassSource(Source, Protocol):
    """A source of images that have one class each."""

    classes: tuple[str, ...]  # names of the labels 0, 1, …
    training_images: int  # how many `train` reads


def digit_source(
    data: Path | None, default: Path, cache: Path, channels: str = "auto"
) -> ClassSource:
    """The folder `data` where it is given, or else MNIST in `default`, or else embedded digits.

    data: a folder of IDX files, or of images in Train/<class>/ and Test/<class>/.
    default: where MNIST is, or is downloaded to; not made where that fails.
    cache: where decoded images are kept.
    channels: as what a folder of images is read, of `ClassFolder`.
    Raises InputError where `data` is neither, or where it has the channels that it has.
    """
    if data is not None:
        return _given(data, cache, channels)
    if IdxFolder.find(default) or download_mnist(default):
        return IdxFolder(default)
    return EmbeddedDigits()


def _given(data: Path, cache: Path, channels: str) -> ClassSource:
    expected = (
        f"IDX files ({FILES['train'][0]}, … in it or in MNIST/raw/) or images in Train/<class>/ "
        "and Test/<class>/"
    )
    if not data.is_dir():
        found = "is not a folder" if data.exists() else "no such folder"
        raise InputError(f"{data}: {found}; expected one with {expected}: give another one")
    if IdxFolder.find(data):
        if channels == "rgb":
            raise InputError(f"--channels rgb: {data} has IDX files, which are grey; expected grey")
        return IdxFolder(data)
    if (data / "Train").is_dir():
        return ClassFolder(data, cache, channels)
    raise InputError(
        f"{data}: no digits in it, but {describe_contents(data)}; expected {expected}: give "
        "another folder"
    )
