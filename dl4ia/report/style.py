"""What the interactive plots and the pictures share: colours, and how far an axis reaches."""

import statistics
from collections.abc import Sequence

ACCENT, GREY, REPORT = "#1f88b5", "#8a8f98", "#d9722b"


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis on which good trials differ: beside hopeless ones they would look alike.

    The better half takes at least a third of it, where not all can be shown.
    """
    if not values:
        return 0.0, 1.0
    best, lowest = max(values), min(values)
    low = max(lowest, best - 3 * (best - statistics.median(values)))
    if low == best:  # more than half of them are the best one's
        low = lowest
    room = 0.06 * (best - low) or 0.01  # all are alike
    return low - room, best + room
