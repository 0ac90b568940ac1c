"""The report's segmentation networks, with their width, depth and layers as choices.

Every network takes (N, channels, H, W) and gives logits (N, classes, H, W) for H and W that are
multiples of its `stride`; `SegmentationModel` makes any size fit and normalises the channels.

Weights of the report's own points (2 channels, 2 classes): baseline 27,586; encoder-decoder
305,134; U-Net 349,858 with batch normalisation; ResNet 784,930 with batch normalisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dl4ia.models.layers import (
    Level,
    ResidualLevel,
    Standardization,
    Upsampling,
    convolution,
    dense,
    initialize,
    make_normalization,
)

WIDEST_FCN = 64  # channels: its stages all end at full resolution, where width costs most


@dataclass(frozen=True)
class ModelSettings:
    """The hyperparameters of a network; those that do not apply keep their defaults."""

    architecture: str
    base_width: int
    depth: int = 3
    normalization: str = "none"
    dropout: float = 0.0
    initialization: str = "he"
    convolutions: int = 1
    residual: bool = True


class FullyConvolutional(nn.Sequential):
    """Table 12: convolution, ReLU, pooling, transposed convolution; `depth` times; then 1x1."""

    def __init__(self, channels: int, classes: int, settings: ModelSettings) -> None:
        widths = [min(settings.base_width * 2**i, WIDEST_FCN) for i in range(settings.depth)]
        stages: list[nn.Module] = []
        for inputs, outputs in zip([channels, *widths], widths, strict=False):
            stages += [
                convolution(inputs, outputs, settings.normalization),
                nn.MaxPool2d(2),
                Upsampling(outputs, outputs),
                nn.Dropout2d(settings.dropout),
            ]
        super().__init__(*stages, nn.Conv2d(widths[-1], classes, 1))
        self.stride = 2


class EncoderDecoder(nn.Sequential):
    """Table 14: `depth` levels each followed by pooling, and the way back up to 1x1."""

    def __init__(self, channels: int, classes: int, settings: ModelSettings) -> None:
        widths = [settings.base_width * 2**i for i in range(settings.depth)]
        options = (settings.convolutions, settings.normalization, settings.dropout)
        stages: list[nn.Module] = []
        for inputs, outputs in zip([channels, *widths], widths, strict=False):
            stages += [Level(inputs, outputs, *options), nn.MaxPool2d(2)]
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            stages += [Upsampling(inputs, outputs), Level(outputs, outputs, *options)]
        last = max(4, settings.base_width // 8)
        super().__init__(*stages, Upsampling(widths[0], last), nn.Conv2d(last, classes, 1))
        self.stride = 2**settings.depth


class UNet(nn.Module):
    """Ex. 2.3 (after Ronneberger et al. 2015): the encoder's features are concatenated.

    As in the report, the last convolution of a decoder level has no normalisation while its
    transposed convolution has.
    """

    def __init__(self, channels: int, classes: int, settings: ModelSettings) -> None:
        super().__init__()
        widths = [settings.base_width * 2**i for i in range(settings.depth)]
        count, normalization = settings.convolutions, settings.normalization
        self.encoder = nn.ModuleList(
            Level(inputs, outputs, count, normalization, settings.dropout)
            for inputs, outputs in zip([channels, *widths], widths, strict=False)
        )
        self.ups = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.ups.append(
                nn.Sequential(
                    Upsampling(inputs, outputs), make_normalization(normalization, outputs)
                )
            )
            earlier = Level(2 * outputs, outputs, count - 1, normalization, 0.0)
            last = convolution(2 * outputs if count == 1 else outputs, outputs, "none")
            self.decoder.append(nn.Sequential(earlier, last, nn.Dropout2d(settings.dropout)))
        self.head = nn.Conv2d(widths[0], classes, 1)
        self.stride = 2 ** (settings.depth - 1)

    def forward(self, features: Tensor) -> Tensor:
        skipped: list[Tensor] = []
        for number, level in enumerate(self.encoder):
            features = level(F.max_pool2d(features, 2) if number else features)
            skipped.append(features)
        skipped.pop()
        for up, level in zip(self.ups, self.decoder, strict=True):
            features = level(self.join(up(features), skipped.pop()))
        return self.head(features)

    def join(self, features: Tensor, skipped: Tensor) -> Tensor:
        """The channels of both, with a gradient that is quick to go back."""
        if features.requires_grad:
            features.register_hook(dense)
        return torch.cat([features, skipped], dim=1)


class ResNet(nn.Sequential):
    """Ex. 2.4 (after He et al. 2016): the U-Net without its concatenations, residual levels.

    The report's drawing leaves open where its 784,930 weights go without a normalisation; here
    the transposed convolutions have none.
    """

    def __init__(self, channels: int, classes: int, settings: ModelSettings) -> None:
        widths = [settings.base_width * 2**i for i in range(settings.depth)]
        options = (settings.residual, settings.normalization, settings.dropout)
        stages: list[nn.Module] = [ResidualLevel(channels, widths[0], *options)]
        for inputs, outputs in pairwise(widths):
            stages += [nn.MaxPool2d(2), ResidualLevel(inputs, outputs, *options)]
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            stages += [Upsampling(inputs, outputs), ResidualLevel(outputs, outputs, *options)]
        super().__init__(*stages, nn.Conv2d(widths[0], classes, 1))
        self.stride = 2 ** (settings.depth - 1)


ARCHITECTURES = {
    "fcn": FullyConvolutional,
    "encoder_decoder": EncoderDecoder,
    "unet": UNet,
    "resnet": ResNet,
}


class SegmentationModel(nn.Module):
    """A network behind channel normalisation, for images of any height and width.

    forward: (N, C, H, W) images in [0, 1] -> (N, classes, H, W) logits.
    mean, standard_deviation: C values each, of the training images alone.
    """

    def __init__(
        self,
        settings: ModelSettings,
        mean: Sequence[float],
        standard_deviation: Sequence[float],
        classes: int = 2,
    ) -> None:
        super().__init__()
        self.network = ARCHITECTURES[settings.architecture](len(mean), classes, settings)
        stride = self.network.stride
        assert isinstance(stride, int)
        self.stride = stride
        initialize(self.network, settings.initialization)
        self.standardization = Standardization(mean, standard_deviation)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        images = self.standardization(images)
        missing = [-size % self.stride for size in (width, height)]
        if any(missing):
            images = F.pad(images, (0, missing[0], 0, missing[1]), mode="replicate")
        logits: Tensor = self.network(images)
        return logits[:, :, :height, :width]
