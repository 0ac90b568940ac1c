"""Random damage to image and IDX files: each is read, or refused in one line; nothing else.

    python tests/fuzz_readers.py --seconds 600

Good files of every format are damaged (bits flipped, bytes and 32-bit numbers replaced, parts cut
out, doubled, exchanged between files) and given to the readers of the gland folder, of class
folders, of `dl4ia predict` and of MNIST's format. What is not an InputError of one line, takes
longer than `LONGEST`, or more memory than `MOST_MEMORY`, ends the run, and the input is kept.
"""

import argparse
import gzip
import io
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dl4ia.data.gland_folder import _read_label
from dl4ia.data.idx_folder import IdxFolder
from dl4ia.data.pixels import guess_kind, read_as_it_is
from dl4ia.data.unlabelled import read_unlabelled
from dl4ia.errors import InputError

LONGEST = 20  # seconds an input
MOST_MEMORY = 6 << 30  # bytes of addresses; an image of 89 million pixels needs a part of it
SIDE = 24
NUMBERS = (0, 1, 2, 255, 65535, 65536, 1 << 30, (1 << 31) - 1, (1 << 32) - 1)

Reader = Callable[[Path], object]


def good_images() -> list[bytes]:
    """A small file of every format, mode and compression."""
    draw = np.random.default_rng(0)
    colours = Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    ways: list[tuple[Image.Image, str, dict[str, object]]] = [
        (colours.convert(mode), form, {})
        for form, modes in {
            "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
            "BMP": ("1", "L", "P", "RGB"),
            "JPEG": ("L", "RGB", "CMYK"),
            "TIFF": ("1", "L", "RGB", "RGBA", "CMYK", "F"),
            "GIF": ("L", "P"),
            "WEBP": ("RGB", "RGBA"),
        }.items()
        for mode in modes
    ]
    ways += [(colours, "TIFF", {"compression": kind}) for kind in
             ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = 6
    ways += [(colours, form, {"exif": exif}) for form in ("PNG", "JPEG", "TIFF", "WEBP")]
    files = []
    for image, form, options in ways:
        file = io.BytesIO()
        image.save(file, form, **options)
        files.append(file.getvalue())
    return files


def good_idx() -> list[tuple[bytes, bytes]]:
    """Images and labels, plain and compressed."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (8, 10, 12), np.uint8)
    images = struct.pack(">IIII", 0x0803, *pixels.shape) + pixels.tobytes()
    labels = struct.pack(">II", 0x0801, 8) + bytes(range(8))
    return [(images, labels), (gzip.compress(images), gzip.compress(labels))]


def damage(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """One to four kinds of damage, mostly near the beginning, where the headers are."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if not data:
            break
        reach = len(data) if draw.random() < 0.5 else min(64, len(data))
        place = draw.randrange(reach)
        kind = draw.randrange(7)
        if kind == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[place] = draw.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            order = draw.choice("<>")
            number = draw.choice(NUMBERS)
            data[place : place + 4] = struct.pack(order + "I", number)
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place : place + draw.randint(1, 64)]
        elif kind == 5:
            data[place:place] = data[place : place + draw.randint(1, 64)]
        else:
            other = draw.choice(others)
            start = draw.randrange(len(other))
            data[place : place + 32] = other[start : start + 32]
    return bytes(data)


def fuzz(seconds: float, seed: int, folder: Path) -> Counter[str]:
    """What became of the inputs; raises whatever is no InputError, the input kept in `folder`."""
    draw = random.Random(seed)
    images, numbers = good_images(), good_idx()
    file = folder / "input.png"
    readers: dict[str, Reader] = {
        "label": _read_label,
        "kind": lambda path: guess_kind([path]),
        "as it is": read_as_it_is,
        **{f"{n} channels": lambda path, n=n: read_unlabelled(path, n, 16) for n in (1, 2, 3, 4)},
    }
    found: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, _too_long)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        signal.alarm(LONGEST)
        if draw.random() < 0.7:
            file.write_bytes(damage(draw.choice(images), images, draw))
            name = draw.choice(list(readers))
            found[f"image, {_outcome(lambda name=name: readers[name](file))}"] += 1
        else:
            pair = draw.choice(numbers)
            others = [content for good in numbers for content in good]
            suffix = ".gz" if pair[0][:2] == b"\x1f\x8b" else ""
            raw = folder / f"raw{suffix}"
            raw.mkdir(exist_ok=True)
            for part in ("train", "t10k"):
                for kind, content in zip(("images-idx3", "labels-idx1"), pair, strict=True):
                    spoilt = damage(content, others, draw) if draw.random() < 0.5 else content
                    (raw / f"{part}-{kind}-ubyte{suffix}").write_bytes(spoilt)
            found[f"IDX, {_outcome(lambda raw=raw: IdxFolder(raw).train())}"] += 1
        signal.alarm(0)
    return found


def _outcome(read: Callable[[], object]) -> str:
    try:
        read()
    except InputError as error:
        assert "\n" not in str(error), str(error)
        return "refused"
    return "read"


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"longer than {LONGEST} s")


def main() -> None:
    """Print how many inputs were read and refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    folder = Path(tempfile.mkdtemp(prefix="dl4ia-fuzz-"))
    try:
        found = fuzz(arguments.seconds, arguments.seed, folder)
    except BaseException:
        print(f"the input is kept in {folder}", file=sys.stderr)
        raise
    print(f"{found.total():,} inputs: " + ", ".join(f"{n:,} {what}" for what, n in found.items()))


if __name__ == "__main__":
    main()
