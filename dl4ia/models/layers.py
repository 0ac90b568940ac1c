"""The blocks that every network is made of, and how their weights begin."""

import math
from itertools import pairwise

from torch import Tensor, nn


def make_normalization(kind: str, channels: int) -> nn.Module:
    """`none`, `batch`, or `group` (groups of at least 4 channels, at most 8 groups)."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, min(8, channels // 4)), channels)
    return nn.Identity()


def convolution(inputs: int, outputs: int, normalization: str) -> nn.Sequential:
    """3x3 convolution that keeps height and width, normalization, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        make_normalization(normalization, outputs),
        nn.ReLU(inplace=True),
    )


def upsampling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """The report's transposed convolution: doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


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
    """Set every convolution's weights in place, from the global random stream.

    `report`: weights 0.1 N(0, 1), biases 0.1. `he`: He et al. 2015 for ReLU, biases 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            if kind == "report":
                nn.init.normal_(layer.weight, std=0.1)
                nn.init.constant_(layer.bias, 0.1)
            else:
                height, width = layer.kernel_size
                inputs = layer.in_channels * height * width
                if layer.transposed:  # each output pixel meets only one in stride² of the kernel
                    inputs //= layer.stride[0] * layer.stride[1]
                nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
                nn.init.zeros_(layer.bias)


def weight_count(model: nn.Module) -> int:
    """The number of trainable weights, biases included."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
