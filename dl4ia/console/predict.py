"""A study's winner on images without labels: masks, overlays and a table, or classes."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from dl4ia.addresses import check_folder
from dl4ia.console.stream import in_batches
from dl4ia.console.tiles import Canvas
from dl4ia.data import class_folder, gland_folder
from dl4ia.data.unlabelled import find_images, read_unlabelled, unique_name
from dl4ia.errors import InputError
from dl4ia.metrics.objects import EIGHT_NEIGHBOURS
from dl4ia.text import plural, printable
from dl4ia.tracking.reading import Winner, load_winner

MASKS, OVERLAYS, TABLE = "masks", "overlays", "predictions.csv"
DIGITS = tuple("0123456789")
OUTLINE = (0, 255, 255)  # neither stain has it
THICKEST = 256  # pixels of the shorter side for one of the outline
FAST = 1  # of zlib's levels: at the usual one an overlay takes half as long as the network

Finished = tuple[dict[str, object], dict[Path, Image.Image]]  # a row, and pictures to be written


def predict_images(
    places: Sequence[Path], model: str, out: Path, tracking_uri: str, batch: int | None = None
) -> list[str]:
    """Predict files and folders into `out`; a line for each image that could not be read.

    model: NAME@ALIAS or NAME/VERSION in MLflow's registry at `tracking_uri`.
    batch: tiles or digits that the network is given at once.

    Raises InputError where there is no such model or image, or `out` cannot be written.
    """
    check_folder(out)
    earlier = _earlier_run(out)
    files = find_images(places, skipped=(out / MASKS, out / OVERLAYS))
    winner = load_winner(tracking_uri, model)
    glands = len(winner.output) == 3
    prediction = GlandPrediction(winner, out) if glands else DigitPrediction(winner)
    out.mkdir(parents=True, exist_ok=True)
    for path in earlier:
        path.unlink(missing_ok=True)
    failures = []
    # A name that is no text is written as its bytes.
    with (out / TABLE).open("w", newline="", encoding="utf-8", errors="backslashreplace") as opened:
        writer = csv.DictWriter(opened, ("file", *prediction.columns, "error"))
        writer.writeheader()
        opened.flush()  # whatever becomes of this run, the next one knows what is its
        read = ((path, _opened(prediction, path)) for path in files)
        answered = in_batches(read, winner.network, batch or prediction.batch)
        for path, work in tqdm(answered, total=len(files), unit="image", disable=None):
            if isinstance(work, InputError):
                failures.append(printable(str(work)))
                writer.writerow({"file": path, "error": failures[-1]})
            else:
                row, pictures = prediction.finish(path, work)
                writer.writerow({"file": path} | row)
                opened.flush()
                for file, picture in pictures.items():
                    picture.save(file, compress_level=FAST)
    print(
        f"{plural(len(files) - len(failures), 'image')} predicted by {winner.name}: {out / TABLE}"
    )
    return failures


def _earlier_run(out: Path) -> list[Path]:
    """What an earlier run has written into `out`, to be replaced.

    Raises InputError where there are files that none can have: they would be lost.
    """
    table = out / TABLE
    if table.exists():
        foreign = InputError(f"{table}: was written by something else; give another -o")
        try:
            with table.open(newline="", encoding="utf-8", errors="replace") as opened:
                rows = csv.DictReader(opened)
                columns = rows.fieldnames or ["file", "error"]  # an empty file was cut off
                if (columns[0], columns[-1]) != ("file", "error"):
                    raise foreign
                names = [Path(row["mask"]).name for row in rows if row.get("mask")]
        except csv.Error as error:  # a longer field than any name
            raise foreign from error
        return [out / folder / name for name in names for folder in (MASKS, OVERLAYS)]
    for folder in (MASKS, OVERLAYS):
        if (out / folder).is_dir() and any((out / folder).iterdir()):
            raise InputError(
                f"{out / folder}: holds files, and there is no {TABLE} of an earlier run beside; "
                "give another -o"
            )
    return []


def _opened(prediction: "GlandPrediction | DigitPrediction", path: Path) -> Any:
    try:
        return prediction.open(path)
    except InputError as error:
        return error


class GlandPrediction:
    """Masks, overlays, and the glands in figures."""

    columns = ("glands", "gland_pixels", "gland_share", "mask")
    batch = 16  # tiles

    def __init__(self, winner: Winner, out: Path) -> None:
        self._channels, *size = winner.input
        self._size = (size[0], size[1])
        self._shift = float(winner.data.get("image_shift", 0))
        self._out = out
        self._names: Counter[str] = Counter()
        for folder in (MASKS, OVERLAYS):
            (out / folder).mkdir(parents=True, exist_ok=True)

    def open(self, path: Path) -> Canvas:
        """The image, to be cut into tiles; raises InputError where it cannot be read."""
        pixels = read_unlabelled(path, self._channels, gland_folder.SMALLEST_SIDE)
        return Canvas(pixels, self._size, self._shift)

    def finish(self, path: Path, canvas: Canvas) -> Finished:
        """With both pictures."""
        mask = canvas.mask()
        file = f"{unique_name(path, self._names)}.png"
        row = {
            "glands": ndimage.label(mask, EIGHT_NEIGHBOURS)[1],
            "gland_pixels": int(mask.sum()),
            "gland_share": f"{mask.mean():.6f}",
            "mask": f"{MASKS}/{file}",
        }
        return row, {
            self._out / MASKS / file: Image.fromarray(mask.astype(np.uint8) * 255),
            self._out / OVERLAYS / file: Image.fromarray(overlay(canvas.pixels, mask)),
        }


class Digit:
    """An image in work."""

    def __init__(self, image: Tensor) -> None:
        self._image = image
        self.probabilities = torch.empty(0)

    def tiles(self) -> Iterator[Tensor]:
        """It is a single one."""
        yield self._image

    def add(self, probabilities: Tensor) -> None:
        """(classes,)."""
        self.probabilities = probabilities


class DigitPrediction:
    """Classes and their probabilities."""

    batch = 256

    def __init__(self, winner: Winner) -> None:
        self._channels, height, width = winner.input
        self._size = (width, height)
        classes = winner.data.get("classes", DIGITS)
        # Studies before there was `dl4ia predict` wrote the names in one text.
        self._classes = classes.split(", ") if isinstance(classes, str) else list(classes)
        if len(self._classes) != winner.output[0]:
            raise InputError(
                f"{winner.name}: {winner.output[0]} outputs, and its study names "
                f"{len(self._classes)} classes; expected as many: register the model again"
            )
        self.columns = ("class", *(f"probability_{name}" for name in self._classes))

    def open(self, path: Path) -> Digit:
        """The image in the network's size; raises InputError where it cannot be read."""
        pixels = read_unlabelled(path, self._channels, class_folder.SMALLEST_SIDE)
        if pixels.shape[1::-1] != self._size:
            resized = [
                np.asarray(Image.fromarray(channel).resize(self._size, Image.Resampling.BILINEAR))
                for channel in np.moveaxis(pixels, -1, 0)
            ]
            pixels = np.stack(resized, axis=-1)
        return Digit(torch.tensor(pixels).permute(2, 0, 1).float().div(255))

    def finish(self, path: Path, digit: Digit) -> Finished:
        """Without a picture."""
        shares = digit.probabilities.tolist()
        named = {
            f"probability_{name}": f"{share:.6f}"
            for name, share in zip(self._classes, shares, strict=True)
        }
        return {"class": self._classes[int(digit.probabilities.argmax())]} | named, {}


def overlay(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The (H, W, C) image in RGB, with the outline of the glands on their own pixels."""
    height, width, channels = pixels.shape
    shown = np.zeros((height, width, 3), np.uint8)
    shown[..., : channels if channels > 1 else 3] = pixels[..., :3]  # grey is all three
    thickness = max(1, min(height, width) // THICKEST)
    shown[mask & ~ndimage.binary_erosion(mask, EIGHT_NEIGHBOURS, thickness)] = OUTLINE
    return shown
