"""The blocks that every network is made of, and how their weights begin."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


class Standardization(nn.Module):
    """(N, C, H, W) images, each channel minus its mean and divided by its standard deviation."""

    mean: Tensor
    standard_deviation: Tensor

    def __init__(self, mean: Sequence[float], standard_deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer(
            "standard_deviation", torch.tensor(standard_deviation).view(1, -1, 1, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.standard_deviation


def make_normalization(kind: str, channels: int) -> nn.Module:
    """`none`, `batch`, or `group` (groups of at least 4 channels, at most 8 groups)."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, min(8, channels // 4)), channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"normalization {kind!r}: expected none, batch or group")


def convolution(inputs: int, outputs: int, normalization: str) -> nn.Sequential:
    """3x3 convolution that keeps height and width, normalization, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        make_normalization(normalization, outputs),
        nn.ReLU(inplace=True),
    )


class Upsampling(nn.ConvTranspose2d):
    """The report's transposed convolution, 4x4: doubles height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        # The bias apart: its gradient within oneDNN's transposed convolution takes a CPU longer
        # than all the others.
        assert self.bias is not None and output_size is None
        output = F.conv_transpose2d(features, self.weight, None, stride=2, padding=1)
        return output + self.bias.to(output.dtype)[:, None, None]


def dense(gradient: Tensor) -> Tensor:
    """The gradient (N, C, H, W) without gaps in memory, for layers whose output is concatenated.

    Half of a concatenation's gradient has gaps, for which batch normalisation on a CPU has no fast
    way back: it took 20 times as long, a third of a U-Net's step.
    """
    return gradient.contiguous(memory_format=torch.channels_last)


class Level(nn.Sequential):
    """`count` convolutions in a row, then dropout of whole channels."""

    def __init__(
        self, inputs: int, outputs: int, count: int, normalization: str, dropout: float
    ) -> None:
        widths = [inputs] + [outputs] * count
        super().__init__(
            *(convolution(before, after, normalization) for before, after in pairwise(widths)),
            nn.Dropout2d(dropout),
        )


class ResidualLevel(nn.Module):
    """Three convolutions; the first one's output is added to the second one's before the third."""

    def __init__(
        self, inputs: int, outputs: int, residual: bool, normalization: str, dropout: float
    ) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, normalization)
        self.second = convolution(outputs, outputs, normalization)
        self.third = convolution(outputs, outputs, normalization)
        self.dropout = nn.Dropout2d(dropout)
        self.residual = residual

    def forward(self, features: Tensor) -> Tensor:
        first = self.first(features)
        second = self.second(first)
        return self.dropout(self.third(first + second if self.residual else second))


def initialize(network: nn.Module, kind: str) -> None:
    """Set the weights of every layer in place, from the global random stream.

    `report`: weights 0.1 N(0, 1), biases 0.1. `report_dense`, of its fully connected network:
    weights 0.01 N(0, 1), biases 1 / units. `he`: He et al. 2015 for ReLU, biases 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert layer.bias is not None
            if kind == "report":
                deviation, bias = 0.1, 0.1
            elif kind == "report_dense":
                deviation, bias = 0.01, 1 / len(layer.bias)
            elif kind == "he":
                deviation, bias = math.sqrt(2 / _inputs(layer)), 0.0
            else:
                raise ValueError(f"initialization {kind!r}: expected report, report_dense or he")
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.constant_(layer.bias, bias)


def _inputs(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> int:
    """How many values each output is a sum of."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    height, width = layer.kernel_size
    inputs = layer.in_channels * height * width
    if layer.transposed:  # each output pixel meets only one in stride² of the kernel
        inputs //= layer.stride[0] * layer.stride[1]
    return inputs


def weight_count(model: nn.Module) -> int:
    """The number of trainable weights, biases included."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
