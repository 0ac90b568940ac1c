"""Decoded images, kept in one file: a second start need not open thousands of them again."""

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class ImageCache:
    """The decoded images of some files, in `file`, for as long as those do not change.

    root, names: the files are root / name; what they are now is what the cache is valid for.
    kind: as what they are read, and what the cache is valid for too.
    """

    def __init__(self, file: Path, root: Path, names: tuple[str, ...], kind: str) -> None:
        self.file = file
        digest = hashlib.sha256(f"{root.resolve()} {kind}".encode())
        for name in names:
            state = (root / name).stat()
            # ctime: a file copied over another may bring its modification time along.
            digest.update(
                repr((name, state.st_size, state.st_mtime_ns, state.st_ctime_ns)).encode()
            )
        self._key = digest.hexdigest()

    def read(self, *shapes: tuple[int, ...]) -> Pixels | None:
        """The images, of one of the shapes; None where there are none, of others, or broken."""
        try:
            with np.load(self.file, allow_pickle=False) as content:
                if content["key"].item() != self._key:
                    return None
                pixels: Pixels = content["pixels"]
        except Exception:  # whatever a broken file may raise: the images are decoded again
            return None
        return pixels if pixels.shape in shapes and pixels.dtype == np.uint8 else None

    def write(self, pixels: Pixels) -> None:
        """Keep the images, whole or not at all; a full or read-only disk is no error."""
        unfinished = self.file.with_name(f"{self.file.stem}.{os.getpid()}.part")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as stream:
                np.savez(stream, key=np.array(self._key), pixels=pixels)
            unfinished.replace(self.file)
        except OSError:
            with contextlib.suppress(OSError):
                unfinished.unlink()
