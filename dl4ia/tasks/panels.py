"""What pictures show of an image and of a prediction, whoever draws them."""

import numpy as np
import torch
from torch import Tensor

MOST_CLASSES, MOST_MISCLASSIFIED = 40, 24  # that one picture shows
HIT, MISSED, INVENTED = (255, 255, 255), (230, 70, 60), (70, 130, 240)


def displayable(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, 3): grey, two stains in red and green, or the first three."""
    image = image[:3]
    channels, height, width = image.shape
    if channels == 1:
        image, channels = image.expand(3, height, width), 3
    blue = torch.zeros(3 - channels, height, width)
    return torch.cat([image, blue]).permute(1, 2, 0).numpy()


def errors(prediction: Tensor, label: Tensor) -> np.ndarray:
    """(H, W) masks -> (H, W, 3) uint8."""
    picture = np.zeros((*label.shape, 3), np.uint8)
    predicted, labelled = prediction.numpy() != 0, label.numpy() != 0
    picture[predicted & labelled] = HIT
    picture[~predicted & labelled] = MISSED
    picture[predicted & ~labelled] = INVENTED
    return picture
