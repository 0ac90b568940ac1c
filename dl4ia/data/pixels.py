"""From an image file to channels: grey, two stains, RGB, or RGB and a fourth one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dl4ia.data.images import open_image
from dl4ia.errors import InputError

Pixels = NDArray[np.uint8]

# How images may be read, and the channels that each way gives. Stain: red = haematoxylin, green =
# eosin, and blue must be 0.
KINDS = {"grey": 1, "stain": 2, "rgb": 3, "rgba": 4}
GREY_FORMATS = ("1", "L", "LA")  # Pillow's names, of 8 bits or less
COLOUR_FORMATS = (*GREY_FORMATS, "P", "PA", "RGB", "RGBA", "YCbCr")
BLUE, FOURTH = 2, 3
# Levels of 255 that red, green and blue are apart in what is not grey. Lossy WebP makes them differ
# by one in grey, too, and a scanner may by more.
COLOURED = 8


def read_pixels(path: Path, kind: str) -> Pixels:
    """(H, W, C), read as one of `KINDS`; transparency is no channel but of "rgba".

    Raises InputError, naming the file, where it is no 8-bit image or has not got these channels.
    """
    return _channels(path, open_image(path), kind)


def _channels(path: Path, image: Image.Image, kind: str) -> Pixels:
    """What `read_pixels` gives, of a file that is open already."""
    if kind != "rgba" and is_alpha_mask(image):
        raise InputError(
            f"{path}: one colour all over, drawn in its transparency; expected colours or grey: "
            "save it on a background"
        )
    if kind == "grey":
        _check_format(path, image, (*COLOUR_FORMATS, "CMYK"), "grey or colour")
        return np.array(image.convert("L"))[..., np.newaxis]
    if kind == "rgba":
        _check_format(path, image, ("RGBA",), "four channels (RGBA)")
        return np.array(image)
    _check_format(path, image, COLOUR_FORMATS, "RGB")
    pixels = np.array(image.convert("RGB"))
    if kind == "stain":
        if pixels[..., BLUE].any():
            raise InputError(
                f"{path}: its blue channel is not 0, as expected of two stains (red = "
                "haematoxylin, green = eosin); of colour images make these with "
                "`dl4ia data unmix`, or give a study --channels rgb"
            )
        pixels = pixels[..., :BLUE]
    return pixels


def read_as_it_is(path: Path) -> Pixels:
    """As `read_pixels`: (H, W, 3) where there is any colour, else grey, (H, W, 1)."""
    image = open_image(path)
    return _channels(path, image, "rgb" if _has_colours(image) else "grey")


def _has_colours(image: Image.Image) -> bool:
    """False of formats that are not read in colour."""
    if image.mode in GREY_FORMATS or image.mode not in COLOUR_FORMATS:
        return False
    pixels = np.array(image.convert("RGB"))
    return bool((np.ptp(pixels, axis=-1) >= COLOURED).any())


def is_alpha_mask(image: Image.Image) -> bool:
    """Whether it is of one colour all over, and transparent here and there: that is its drawing."""
    if image.mode not in ("LA", "RGBA"):
        return False
    *colours, alpha = (channel.getextrema() for channel in image.split())
    return alpha[0] != alpha[1] and all(lowest == highest for lowest, highest in colours)


def guess_kind(paths: Sequence[Path]) -> str:
    """Which of `KINDS` fits them all.

    grey, if no file holds colours; rgba, if each has a fourth channel that varies; rgb, if each has
    some blue; else stain.
    """
    images = [open_image(path) for path in paths]
    if all(image.mode in GREY_FORMATS for image in images):
        return "grey"
    fourth = [image.getchannel(FOURTH).getextrema() for image in images if image.mode == "RGBA"]
    if len(fourth) == len(images) and all(lowest != highest for lowest, highest in fourth):
        return "rgba"
    colours = (_channels(path, image, "rgb") for path, image in zip(paths, images, strict=True))
    return "rgb" if all(pixels[..., BLUE].any() for pixels in colours) else "stain"


def _check_format(path: Path, image: Image.Image, expected: tuple[str, ...], in_words: str) -> None:
    if image.mode not in expected:
        raise InputError(
            f"{path}: pixel format {image.mode}; expected 8 bits a channel, {in_words}: convert it"
        )
