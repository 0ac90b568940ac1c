"""Where a long training is, kept in a file, so that one that was cut off goes on from there."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

SECONDS = 30.0  # of training that may be lost


class Checkpoint:
    """A file for one training; `recipe` tells it from any other.

    What is kept are tensors, numbers and text alone: nothing in it is unpickled.
    """

    def __init__(self, file: Path, recipe: str, seconds: float = SECONDS) -> None:
        self._file, self._recipe, self._seconds = file, recipe, seconds
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was kept of this very training; None where there is none, or none that is whole."""
        try:
            kept: dict[str, Any] = torch.load(self._file, weights_only=True, map_location="cpu")
        except Exception:  # missing, cut off, or no such file: the training begins at its beginning
            return None
        return kept if isinstance(kept, dict) and kept.get("recipe") == self._recipe else None

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, state: dict[str, Any]) -> None:
        """Replace what is kept. Where the disk is full the training goes on without."""
        unfinished = self._file.with_suffix(".part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state | {"recipe": self._recipe}, unfinished)
            unfinished.replace(self._file)
        except (OSError, RuntimeError):  # torch raises RuntimeError on a full disk
            with suppress(OSError):
                unfinished.unlink()
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The training has ended and is kept elsewhere."""
        self._file.unlink(missing_ok=True)
