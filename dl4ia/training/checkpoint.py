"""Where a long training is, kept in a file, so that one that was cut off goes on from there."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

SECONDS = 30.0  # of training that may be lost


def read_kept(file: Path, recipe: str) -> dict[str, Any] | None:
    """What `write_kept` wrote of this very `recipe`, on the CPU; None where it is not there, whole.

    Nothing in the file is unpickled.
    """
    try:
        kept: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    except Exception:  # missing, cut off by a machine that went down, or no such file
        return None
    return kept if isinstance(kept, dict) and kept.get("recipe") == recipe else None


def write_kept(file: Path, recipe: str, state: dict[str, Any]) -> None:
    """Tensors, numbers and text, all or nothing.

    Raises OSError or, as torch does on a full disk, RuntimeError.
    """
    unfinished = _unfinished(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state | {"recipe": recipe}, unfinished)
    unfinished.replace(file)


def _unfinished(file: Path) -> Path:
    return file.with_suffix(".part")


class Checkpoint:
    """A file for one training; `recipe` tells it from any other.

    What is kept are tensors, numbers and text alone: nothing in it is unpickled.
    """

    def __init__(self, file: Path, recipe: str, seconds: float = SECONDS) -> None:
        self._file, self._recipe, self._seconds = file, recipe, seconds
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was kept of this very training; None where there is none, or none that is whole."""
        return read_kept(self._file, self._recipe)

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, state: dict[str, Any]) -> None:
        """Replace what is kept. Where the disk is full the training goes on without."""
        try:
            write_kept(self._file, self._recipe, state)
        except (OSError, RuntimeError):
            with suppress(OSError):
                _unfinished(self._file).unlink()
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The training has ended and is kept elsewhere."""
        self._file.unlink(missing_ok=True)
