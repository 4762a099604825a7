"""From an image to a network's input. Without torch: exported files are fed by it too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from compress.models.contract import Input

STRIP = 4  # as many times longer than wide, and more, an image is a strip, mostly of a line or two of text
ENLARGED = 4  # times that a strip is enlarged at most: lines of 12 to 24 pixels come to what detectors are trained on
LONGEST = 16  # short sides that the longer side has at most


def scale_of(height: int, width: int, short_side: int) -> float:
    """By how much an image is enlarged so that its shorter side is `short_side`, but for images much longer than wide.

    A strip is enlarged four times at most, since its text is about as high as it is, and no image becomes longer than 16 times
    `short_side`, which bounds the memory that it takes. 720 x 1280 at 736: 1.02; 24 x 3000: 3.93; 800 x 20000: 0.59.
    """
    short, long = sorted((height, width))
    scale = min(short_side / short, LONGEST * short_side / long)
    return min(scale, ENLARGED) if long >= STRIP * short else scale


def resize_short_side(image: np.ndarray, short_side: int, multiple: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 resized so that its shorter side is `short_side`, see :func:`scale_of`; both are then rounded up to `multiple`.

    The whole image is stretched to the rounded size, so that a map's x and y scale back separately. 720 x 1280 at 736 becomes
    736 x 1312.
    """
    height, width = image.shape[:2]
    scale = scale_of(height, width, short_side)
    new_height, new_width = (
        max(step, math.ceil(round(side * scale, 3) / step) * step) for side, step in zip((height, width), multiple, strict=True)
    )
    if (new_height, new_width) == (height, width):
        return image
    return cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)


def fit_into(image: np.ndarray, size: tuple[int, int], mean: Sequence[float]) -> np.ndarray:
    """(H, W, 3) uint8 resized to the height of `size` (height, width), squeezed where wider, padded on the right where narrower.

    mean: of R, G and B, 0..1; the padding has this colour, which is 0 once the image is normalised (up to half a grey level).
    """
    height, width = size
    own = min(width, max(1, math.ceil(image.shape[1] * height / image.shape[0])))
    fitted = image if image.shape[:2] == (height, own) else cv2.resize(image, (own, height), interpolation=cv2.INTER_LINEAR)
    return padded(fitted, width, mean)


def padded(image: np.ndarray, width: int, mean: Sequence[float]) -> np.ndarray:
    """(H, W, 3) uint8, W at most `width`, with the colour `mean`, of R, G and B in 0..1, to the right of it."""
    height, own = image.shape[:2]
    if own == width:
        return image
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = np.round(255 * np.array(mean)).astype(np.uint8)
    canvas[:, :own] = image
    return canvas


def network_input(images: Sequence[np.ndarray], wanted: Input) -> np.ndarray:
    """Equal-sized (H, W, 3) uint8 RGB images as one normalised (B, 3, H, W) float32 array."""
    stacked = np.stack(images)
    rows = stacked.reshape(*stacked.shape[:2], -1)  # a row at a time: along an axis of 3 numpy computes one number after the other
    mean, std = (np.tile(np.array(values, np.float32) * np.float32(255), stacked.shape[2]) for values in (wanted.mean, wanted.std))
    normalised = np.subtract(rows, mean, dtype=np.float32)
    normalised /= std
    return np.ascontiguousarray(normalised.reshape(stacked.shape).transpose(0, 3, 1, 2))
