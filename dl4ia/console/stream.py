"""Many images through a network, a few in memory at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from dl4ia.errors import InputError


class Work(Protocol):
    """An image: what the network is to see of it, and what it has answered."""

    def tiles(self) -> Iterable[Tensor]:
        """(C, H, W) float32 in [0, 1], each of the network's size."""
        ...

    def add(self, probabilities: Tensor) -> None:
        """(classes, …) of each tile, in their order."""
        ...


AnyWork = TypeVar("AnyWork", bound=Work)


def in_batches(
    images: Iterable[tuple[Path, AnyWork | InputError]],
    network: Callable[[Tensor], Tensor],
    batch: int,
) -> Iterator[tuple[Path, AnyWork | InputError]]:
    """The same images in the same order, each when it is answered; an error is passed on.

    network: (N, C, H, W) to (N, classes, …) logits; it is given `batch` tiles at once, of several
    images where they are small.
    """
    waiting: deque[tuple[Path, AnyWork | InputError]] = deque()
    tiles: list[Tensor] = []
    owners: list[AnyWork] = []
    for path, work in images:
        waiting.append((path, work))
        if not isinstance(work, InputError):
            for tile in work.tiles():
                tiles.append(tile)
                owners.append(work)
                if len(tiles) == batch:
                    _answer(network, tiles, owners)
        while waiting and waiting[0][1] not in owners:
            yield waiting.popleft()
    _answer(network, tiles, owners)
    yield from waiting


@torch.inference_mode()
def _answer(
    network: Callable[[Tensor], Tensor], tiles: list[Tensor], owners: list[AnyWork]
) -> None:
    """Give each tile's owner its probabilities, and forget both."""
    if tiles:
        # In the order in which a study scores, too: CPUs are faster with it.
        images = torch.stack(tiles).contiguous(memory_format=torch.channels_last)
        for owner, probabilities in zip(owners, network(images).softmax(1), strict=True):
            owner.add(probabilities)
    tiles.clear()
    owners.clear()
