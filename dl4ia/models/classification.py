"""The report's digit networks, with their widths and layers as choices, and a modern small one.

Every network takes (N, channels, H, W) and gives logits (N, classes).

Weights of the report's own points (28x28, one channel, ten classes): fully connected 109,386;
convolutional 21,688, with a head of 50 units 84,848, of 200 units 321,698. The all-convolutional
one has 20,156 at a base width of 14 with batch normalization.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from dl4ia.models.layers import ACTIVATIONS, Standardization, initialize, make_normalization


@dataclass(frozen=True)
class ModelSettings:
    """The hyperparameters of a network; those that do not apply keep their defaults."""

    architecture: str
    hidden_width: int = 128
    base_width: int = 8
    head_width: int = 10
    pool: str = "after_activation"
    activation: str = "relu"
    normalization: str = "none"
    dropout: float = 0.0
    initialization: str = "he"
    standardize: bool = True


class FullyConnected(nn.Sequential):
    """Ex. 1.1: two hidden layers, the second half as wide as the first, each with dropout."""

    def __init__(self, shape: Sequence[int], classes: int, settings: ModelSettings) -> None:
        channels, height, width = shape
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = channels * height * width
        for outputs in (settings.hidden_width, settings.hidden_width // 2):
            layers.append(nn.Linear(inputs, outputs))
            if settings.normalization == "batch":
                layers.append(nn.BatchNorm1d(outputs))
            layers += [ACTIVATIONS[settings.activation](), nn.Dropout(settings.dropout)]
            inputs = outputs
        super().__init__(*layers, nn.Linear(inputs, classes))


class Convolutional(nn.Sequential):
    """Ex. 1.2 to 1.5: three convolutions, the first two with pooling, and a dense head.

    pool: the report's sheet asks in Ex. 1.3 for `before_activation`, which is the same function
    where the activation is monotone; its code pooled `before_convolution`, which is another.
    """

    def __init__(self, shape: Sequence[int], classes: int, settings: ModelSettings) -> None:
        channels, height, width = shape
        activation = ACTIVATIONS[settings.activation]
        widths = [settings.base_width * 2**i for i in range(3)]
        pools = (settings.pool, settings.pool, "none")
        layers: list[nn.Module] = []
        for inputs, outputs, pool in zip([channels, *widths], widths, pools, strict=False):
            layers += [
                *_pooling(pool == "before_convolution"),
                nn.Conv2d(inputs, outputs, 3, padding=1),
                make_normalization(settings.normalization, outputs),
                *_pooling(pool == "before_activation"),
                activation(),
                *_pooling(pool == "after_activation"),
            ]
        super().__init__(
            *layers,
            nn.Flatten(),
            nn.Linear(widths[-1] * (height // 4) * (width // 4), settings.head_width),
            activation(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.head_width, classes),
        )


class AllConvolutional(nn.Sequential):
    """Five convolutions and global average pooling (Lin et al. 2014, Springenberg et al. 2015).

    (N, C, H, W) -> twice w channels, pooling, twice 2w, pooling, once 2w, mean, dropout, logits.
    """

    def __init__(self, shape: Sequence[int], classes: int, settings: ModelSettings) -> None:
        width, activation = settings.base_width, ACTIVATIONS[settings.activation]
        widths = [shape[0], width, width, 2 * width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            layers += [
                *_pooling(number in (2, 4)),
                nn.Conv2d(inputs, outputs, 3, padding=1),
                make_normalization(settings.normalization, outputs),
                activation(),
            ]
        super().__init__(
            *layers,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(settings.dropout),
            nn.Linear(2 * width, classes),
        )


def _pooling(here: bool) -> list[nn.Module]:
    return [nn.MaxPool2d(2)] if here else []


ARCHITECTURES = {
    "fully_connected": FullyConnected,
    "convolutional": Convolutional,
    "all_convolutional": AllConvolutional,
}


class ClassificationModel(nn.Module):
    """A network behind channel standardization (where `standardize`), for images of one size.

    forward: (N, *shape) images in [0, 1] -> (N, classes) logits.
    shape: (C, H, W). mean, standard_deviation: C values each, of the training images alone.
    """

    def __init__(
        self,
        settings: ModelSettings,
        shape: Sequence[int],
        classes: int,
        mean: Sequence[float],
        standard_deviation: Sequence[float],
    ) -> None:
        super().__init__()
        self.network = ARCHITECTURES[settings.architecture](shape, classes, settings)
        kind = settings.initialization
        if kind == "report" and settings.architecture == "fully_connected":
            kind = "report_dense"
        initialize(self.network, kind)
        self.standardization: nn.Module = nn.Identity()
        if settings.standardize:
            self.standardization = Standardization(mean, standard_deviation)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.standardization(images))
        return logits
