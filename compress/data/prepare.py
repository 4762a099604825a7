"""From a picture to a network's input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from compress.models.contract import Algorithm


def resize_for(image: np.ndarray, short_side: int, multiple: int) -> np.ndarray:
    """(H, W, 3) uint8 resized so that its shorter side is `short_side`, both sides then rounded up to `multiple`.

    The whole picture is stretched to the rounded size, so that a map's x and y scale back separately. 720 x 1280 at 736 becomes
    736 x 1312.
    """
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    new_height, new_width = (max(multiple, math.ceil(round(side * scale, 3) / multiple) * multiple) for side in (height, width))
    if (new_height, new_width) == (height, width):
        return image
    return cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)


def normalise(images: Tensor, mean_std: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in channels-last memory: scaled to 0..1, minus mean, over std, per channel."""
    width = images.shape[2]
    # A row at a time: along an axis of 3 torch computes one number after the other, which takes three times as long.
    mean, std = ((torch.tensor(values, dtype=torch.float32, device=images.device) * 255).repeat(width) for values in mean_std)
    return images.flatten(2).float().sub_(mean).div_(std).unflatten(2, (width, 3)).permute(0, 3, 1, 2)


def network_input(images: Sequence[np.ndarray], mean_std: tuple[Sequence[float], Sequence[float]]) -> np.ndarray:
    """Equal-sized (H, W, 3) uint8 pictures as one (B, 3, H, W) float32 array."""
    return np.ascontiguousarray(normalise(torch.from_numpy(np.stack(images)), mean_std).numpy())


def inference_input(image: np.ndarray, short_side: int, algorithm: Algorithm) -> Tensor:
    """One (H, W, 3) uint8 RGB picture as the (1, 3, H', W') float32 tensor that the algorithm's network is shown at inference."""
    resized = resize_for(image, short_side, algorithm.multiple)
    return torch.from_numpy(network_input([resized], (algorithm.mean, algorithm.std)))
