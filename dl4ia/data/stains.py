"""From tissue in colour to its two stains, as the course's images have them."""

import numpy as np
from PIL import Image

# Haematoxylin and eosin, optical densities of red, green and blue (the vectors "H&E" of ImageJ's
# Colour Deconvolution, G. Landini after Ruifrok and Johnston 2001). With them and Lanczos's filter
# the course's own images come out within a third of a grey level.
STAINS = ((0.644211, 0.716556, 0.266844), (0.092789, 0.954111, 0.283111))
DENSITY_UNIT = np.log(1e6)  # scikit-image's stains are in logarithms to the base of a million
STRIP = 1 << 20  # pixels unmixed at once, at 72 bytes each


def unmix(pixels: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W, 3) uint8 in colour -> (height, width, 3): red haematoxylin, green eosin, blue 0.

    size: (width, height) of what is returned, by default that of `pixels`.

    A stain's value is 255 times the light that it takes away, 1 - exp(-density). Resized with
    Lanczos's filter, which smooths first, so that nothing aliases; centres of cells stay centres.
    """
    strips = np.array_split(pixels, -(-pixels[..., 0].size // STRIP))
    taken = np.concatenate([_light_taken(strip) for strip in strips])
    size = size or (pixels.shape[1], pixels.shape[0])
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(taken[..., channel])).resize(
                size, Image.Resampling.LANCZOS
            )
        )
        for channel in range(2)
    ]
    out = np.zeros((size[1], size[0], 3), np.uint8)
    out[..., :2] = np.stack(channels, -1).clip(0, 255).round()
    return out


def _light_taken(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W, 2) float32, of each stain, from 0 to 255."""
    from skimage.color import separate_stains  # slow to import

    stains = [np.array(stain) / np.linalg.norm(stain) for stain in STAINS]
    rest = np.cross(*stains)
    matrix = np.linalg.inv(np.stack([*stains, rest / np.linalg.norm(rest)]))
    densities = separate_stains(pixels, matrix)[..., :2] * DENSITY_UNIT
    taken: np.ndarray = (255 * (1 - np.exp(-densities)).clip(0, 1)).astype(np.float32)
    return taken
