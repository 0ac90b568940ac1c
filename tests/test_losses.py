"""Losses of predictions whose Dice is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dl4ia.training.losses import make_loss, soft_dice_loss

LABELS = torch.zeros(3, 8, 8, dtype=torch.int64)
LABELS[0, 2:6, 2:6] = 1
LABELS[1, :, 3:] = 1
LABELS[2, 0, 0] = 1


def confident(labels: Tensor) -> Tensor:
    """(N, H, W) labels -> (N, 2, H, W) logits of a network that is sure of them."""
    return 40 * F.one_hot(labels, 2).permute(0, 3, 1, 2).float()


def test_a_perfect_prediction_costs_nothing() -> None:
    assert soft_dice_loss(confident(LABELS), LABELS).item() == pytest.approx(0, abs=1e-6)


def test_an_inverted_prediction_costs_nearly_1() -> None:
    # Nothing in common, 64 pixels in all: 1 - (0 + 1) / (64 + 1) in every image.
    assert soft_dice_loss(confident(1 - LABELS), LABELS).item() == pytest.approx(1 - 1 / 65)


def test_it_is_a_mean_over_images() -> None:
    logits = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    each = [soft_dice_loss(logits[i : i + 1], LABELS[i : i + 1]) for i in range(3)]
    assert soft_dice_loss(logits, LABELS).item() == pytest.approx(sum(each).item() / 3)
    assert len({round(loss.item(), 4) for loss in each}) == 3


def test_empty_masks_have_a_finite_gradient_away_from_gland() -> None:
    logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
    soft_dice_loss(logits, torch.zeros(1, 8, 8, dtype=torch.int64)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 1] > 0).all()  # descent lowers the gland's logits


def test_the_loss_of_the_reports_code() -> None:
    """Per column and class, by hand: minus the log of a second softmax at the true rows."""
    logits = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    labels = (logits[:, 0] > 0.3).long()
    total = 0.0
    for image in range(2):
        first = logits[image].softmax(0)  # (2, 5, 4)
        for kind in range(2):
            for column in range(4):
                logs = first[kind, :, column].log_softmax(0)
                total -= logs[labels[image, :, column] == kind].sum().item()
    expected = total / (2 * 4 * 2)  # images, columns, classes
    assert make_loss("report_code")(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_the_combined_loss_is_the_sum() -> None:
    logits = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = F.cross_entropy(logits, LABELS) + soft_dice_loss(logits, LABELS)
    assert make_loss("cross_entropy_dice")(logits, LABELS).item() == pytest.approx(expected.item())
    cross_entropy = make_loss("cross_entropy")(logits, LABELS).item()
    assert cross_entropy == pytest.approx(F.cross_entropy(logits, LABELS).item())


def test_label_smoothing_spreads_the_target() -> None:
    """Two classes and 0.2: the target is 0.9 and 0.1."""
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    log_right, log_wrong = logits.log_softmax(1)[0].tolist()
    smoothed = make_loss("cross_entropy", label_smoothing=0.2)(logits, labels).item()
    assert smoothed == pytest.approx(-0.9 * log_right - 0.1 * log_wrong)
    assert make_loss("cross_entropy")(logits, labels).item() == pytest.approx(-log_right)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="'hinge'.*cross_entropy or cross_entropy_dice"):
        make_loss("hinge")
