"""Random changes of what an image looks like that leave everything where it is: its colours, blur and noise."""

from __future__ import annotations

import math

import cv2
import numpy as np

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
MIDDLE = 127.5  # grey level about which contrast changes
SPREAD = 73.9  # standard deviation of the whole numbers from 0 to 255, all as likely
LEAST = 0.25  # pixels of blur, and grey levels of noise, below which nothing would be seen of it


def tinted(brightness: float, saturation: float, rng: np.random.Generator) -> np.ndarray:
    """A random (3, 3) matrix of colours. Brightness and saturation, each changed by at most that share, are linear in a pixel's colours."""
    bright = 1 + brightness * rng.uniform(-1, 1)
    vivid = 1 + saturation * rng.uniform(-1, 1)
    return bright * (vivid * np.eye(3) + (1 - vivid) * GREY)


def hues_turned(angle: float) -> np.ndarray:
    """The (3, 3) matrix that turns colours by `angle`, in radians, about the axis of the greys, which stay as they are (Rodrigues)."""
    cosine, third = math.cos(angle), (1 - math.cos(angle)) / 3
    aside = math.sin(angle) / math.sqrt(3)
    return cosine * np.eye(3) + third + aside * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])


def with_contrast(matrix: np.ndarray, factor: float, *, negative: bool) -> np.ndarray:
    """The (3, 4) matrix that does what the (3, 3) `matrix` does, then changes contrast about the middle grey, and makes it a negative."""
    slope, shift = factor, MIDDLE * (1 - factor)
    if negative:
        slope, shift = -slope, 2 * MIDDLE - shift
    return np.column_stack([slope * matrix, np.full(3, shift)])


def blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """The image blurred by a Gaussian; as it is where nothing would be seen of it."""
    return cv2.GaussianBlur(image, (0, 0), deviation) if deviation >= LEAST else image


def noisy(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """The image with noise, evenly spread, of a standard deviation in grey levels; as it is where nothing would be seen of it."""
    if deviation < LEAST:
        return image
    strength = deviation / SPREAD
    noise = rng.integers(0, 256, image.shape, np.uint8)
    return cv2.addWeighted(image, 1, noise, strength, -127.5 * strength)
