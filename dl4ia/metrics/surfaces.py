"""How well boundaries meet, from MONAI's surface distances.

Importing MONAI takes 5 s: it is done where it is needed.
"""

import warnings

import torch
from torch import Tensor


def boundary_scores(predictions: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """surface_dice_1px, surface_dice_2px and hausdorff_95, (N,) each, of (N, H, W) masks."""
    scores = {
        f"surface_dice_{tolerance}px": surface_dice(predictions, labels, tolerance)
        for tolerance in (1, 2)
    }
    return scores | {"hausdorff_95": hausdorff_95(predictions, labels)}


def surface_dice(predictions: Tensor, labels: Tensor, tolerance: float) -> Tensor:
    """(N,) share of both boundaries that lies within `tolerance` pixels of the other one.

    predictions, labels: (N, H, W) masks, in which anything but 0 is gland. The normalised surface
    Dice of Nikolov et al. 2018. Where both masks are empty it is 1, where one is, 0.
    """
    from monai.metrics import compute_surface_dice

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty masks: their NaN is dealt with here
        scores = compute_surface_dice(
            _one_channel(predictions), _one_channel(labels), [tolerance], include_background=True
        )
    return _with_empty_masks(scores[:, 0], predictions, labels, agreed=1.0, missed=0.0)


def hausdorff_95(predictions: Tensor, labels: Tensor) -> Tensor:
    """(N,) 95th percentile, in pixels, of the distances from one boundary to the other.

    The larger one of both directions. Where both masks are empty it is 0; where one is, the
    image's diagonal.
    """
    from monai.metrics import compute_hausdorff_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distances = compute_hausdorff_distance(
            _one_channel(predictions), _one_channel(labels), include_background=True, percentile=95
        )
    diagonal = float(torch.tensor(labels.shape[1:]).double().norm())
    return _with_empty_masks(distances[:, 0], predictions, labels, agreed=0.0, missed=diagonal)


def _one_channel(masks: Tensor) -> Tensor:
    """As MONAI takes them: glands alone, which to it are a background that is included."""
    return (masks != 0)[:, None]  # (N, 1, H, W)


def _with_empty_masks(
    scores: Tensor, predictions: Tensor, labels: Tensor, agreed: float, missed: float
) -> Tensor:
    empty = torch.stack([(masks == 0).all(2).all(1) for masks in (predictions, labels)])  # (2, N)
    scores = torch.where(empty.any(0), missed, scores.double())
    return torch.where(empty.all(0), agreed, scores)
