"""Pictures of a trial, drawn from its validation part: quick ones, one for each of many trials.

With Pillow: a trial may spend 2 % of its time on being looked at, and matplotlib takes several
times as long for a page of panels.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dl4ia.data.dataset import Dataset
from dl4ia.metrics.counts import PixelCounts, confusion_matrix
from dl4ia.tasks.panels import (
    INVENTED,
    MISSED,
    MOST_CLASSES,
    MOST_MISCLASSIFIED,
    displayable,
    errors,
)

# All sizes in pixels.
PANEL, DIGIT, CELL = 160, 72, 38  # sides of a gland panel, of a digit, of a confusion matrix's cell
GAP, LINE, LETTERS = 6, 18, 13  # between panels; height of a line and of its letters
LONGEST_NAME = 12  # characters of a class
WHITE, BLACK, GREY, RED = (255, 255, 255), (20, 20, 20), (120, 120, 120), (214, 60, 50)


def sketch_segmentations(dataset: Dataset, predictions: Tensor, folder: Path) -> Path:
    """A row for each image: input, prediction, label, errors. predictions: (N, H, W) masks."""
    height, width = dataset.labels.shape[1:]
    scale = PANEL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    steps = (size[0] + GAP, size[1] + GAP + LINE)
    sheet = Image.new("RGB", (4 * steps[0] + GAP, LINE + len(dataset) * steps[1] + GAP), WHITE)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(("input", "prediction", "label", "missed")):
        colour = MISSED if title == "missed" else GREY
        draw.text((GAP + column * steps[0], 2), title, colour, _font())
    draw.text((GAP + 3 * steps[0] + PANEL // 2, 2), "invented", INVENTED, _font())
    dice = PixelCounts.of(predictions, dataset.labels).dice().tolist()
    for row, name in enumerate(dataset.names):
        top = LINE + row * steps[1]
        prediction, label = predictions[row], dataset.labels[row]
        panels = [displayable(dataset.images[row]) * 255, _grey(prediction), _grey(label)]
        for column, panel in enumerate([*panels, errors(prediction, label)]):
            picture = Image.fromarray(panel.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
            sheet.paste(picture, (GAP + column * steps[0], top))
            corner = (GAP + column * steps[0] - 1, top - 1)
            draw.rectangle((*corner, corner[0] + size[0] + 1, corner[1] + size[1] + 1), None, GREY)
        draw.text((GAP, top + size[1] + 1), f"{name}: Dice {dice[row]:.3f}", BLACK, _font())
    return _save(sheet, folder / "segmentations.png")


def sketch_confusion(
    labels: Tensor, predictions: Tensor, classes: Sequence[str], folder: Path
) -> Path:
    """(N,) labels and predictions as a table of the first 40 classes, a row for each true one."""
    whole = confusion_matrix(labels, predictions, len(classes)).numpy()
    counts = whole[:MOST_CLASSES, :MOST_CLASSES]
    names = [name[:LONGEST_NAME] for name in classes[:MOST_CLASSES]]
    margin = GAP + max(LINE, *(round(_font().getlength(name)) for name in names)) + GAP
    side = margin + CELL * len(names) + GAP
    sheet = Image.new("RGB", (max(side, 340), side + LINE), WHITE)
    draw = ImageDraw.Draw(sheet)
    right, total = int(np.trace(whole)), int(whole.sum())
    title = f"{right:,} of {total:,} validation images right; row: true class"
    draw.text((GAP, 2), title, BLACK, _font())
    most = max(1, int((counts - np.diag(np.diag(counts))).max()))
    for index, name in enumerate(names):
        middle = margin + CELL * index + CELL // 2
        draw.text((margin - GAP, LINE + middle), name, BLACK, _font(), anchor="rm")
        sheet.paste(*_upright(name, middle, LINE + margin - GAP))
    for (row, column), count in np.ndenumerate(counts):
        left, top = margin + CELL * column, LINE + margin + CELL * row
        wrong = 0.0 if row == column else count / most
        shade = tuple(round(w + (r - w) * wrong) for w, r in zip(WHITE, RED, strict=True))
        draw.rectangle((left, top, left + CELL, top + CELL), shade, (225, 225, 225))
        if count:
            colour = WHITE if wrong > 0.6 else BLACK
            place = (left + CELL // 2, top + CELL // 2)
            draw.text(place, str(count), colour, _font(), anchor="mm")
    return _save(sheet, folder / "confusion.png")


def sketch_misclassified(
    dataset: Dataset,
    predictions: Tensor,
    confidence: Tensor,
    classes: Sequence[str],
    folder: Path,
) -> Path:
    """Up to 24 wrong ones of (N,) predictions, those of the highest confidence (N,) first."""
    wrong = (predictions != dataset.labels).nonzero()[:, 0]
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)]
    shown = wrong[:MOST_MISCLASSIFIED].tolist()
    columns, width, height = 6, DIGIT + 40, DIGIT + 2 * LINE
    rows = max(1, -(-len(shown) // columns))
    sheet = Image.new("RGB", (columns * width + GAP, LINE + rows * height + GAP), WHITE)
    draw = ImageDraw.Draw(sheet)
    title = f"{len(wrong):,} of {len(dataset):,} validation images wrong, the surest first: "
    draw.text((GAP, 2), title + "true → predicted", BLACK, _font())
    for place, index in enumerate(shown):
        left, top = GAP + place % columns * width, LINE + GAP + place // columns * height
        pixels = (displayable(dataset.images[index]) * 255).astype(np.uint8)
        picture = Image.fromarray(pixels)
        picture = picture.resize((DIGIT, DIGIT), Image.Resampling.NEAREST)
        sheet.paste(picture, (left, top))
        true, predicted = (
            classes[int(labels[index])][:LONGEST_NAME] for labels in (dataset.labels, predictions)
        )
        long = len(true) + len(predicted) > 8
        words = f"{true} →\n{predicted}" if long else f"{true} → {predicted}"
        draw.text((left, top + DIGIT), f"{words} {confidence[index]:.0%}", BLACK, _font())
    return _save(sheet, folder / "misclassified.png")


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's, which has the letters of most alphabets."""
    import matplotlib  # slow to import

    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), LETTERS)


def _grey(mask: Tensor) -> np.ndarray:
    """(H, W) -> (H, W) uint8, 0 and 255."""
    return (mask.numpy() != 0).astype(np.uint8) * 255


def _upright(name: str, middle: int, bottom: int) -> tuple[Image.Image, tuple[int, int]]:
    """A name that reads upwards, and where its upper left corner belongs."""
    length = round(_font().getlength(name)) + 1
    written = Image.new("RGB", (length, LINE), WHITE)
    ImageDraw.Draw(written).text((0, 0), name, BLACK, _font())
    if len(name) > 2:
        turned = written.rotate(90, expand=True)
        return turned, (middle - LINE // 2, bottom - length)
    return written, (middle - length // 2, bottom - LINE)


def _save(sheet: Image.Image, file: Path) -> Path:
    sheet.save(file)
    return file
