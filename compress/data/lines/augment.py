"""Random views of an image of one line of text: one warp straight to the size of the input, one colour matrix."""

from __future__ import annotations

import math

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from compress.data.prepare import padded
from compress.models.contract import Input, Sample

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
SPREAD = 73.9  # standard deviation of the whole numbers from 0 to 255, all as likely
LEAST = 0.25  # pixels of blur, and grey levels of noise, below which nothing would be seen of it


class AugmentLine(BaseModel):
    """What may happen to the image of a line in training. Words are never mirrored.

    distort: largest shift of each corner, as a share of the image's height. brightness: largest relative change of brightness.
    saturation: largest relative change of saturation.
    noise: largest standard deviation of the noise, in grey levels. blur: largest standard deviation of the blur, in pixels of the input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    distort: float = Field(default=0.1, ge=0, le=0.3)
    brightness: float = Field(default=0.25, ge=0, lt=1)
    saturation: float = Field(default=0.3, ge=0, le=1)
    noise: float = Field(default=10.0, ge=0, le=70)
    blur: float = Field(default=1.0, ge=0, le=10)


def augment_line(sample: Sample, config: AugmentLine, size: tuple[int, int], wanted: Input, rng: np.random.Generator) -> Sample:
    """A random view of `sample`, exactly (height, width, 3) uint8, padded on the right where the line is narrower.

    The padding is that of :func:`compress.data.prepare.fit_into`, as the network is shown it at inference: nothing is done to it.
    """
    height, width = size
    own = min(width, max(1, math.ceil(sample.image.shape[1] * height / sample.image.shape[0])))
    view = warped(sample.image, (height, own), config.distort * rng.uniform(-1, 1, (4, 2)))
    view = cv2.transform(view, colours(config, rng))
    view = noisy(blurred(view, config.blur * rng.random()), config.noise * rng.random(), rng)
    return Sample(sample.name, padded(view, width, wanted.mean), sample.truth)


def warped(image: np.ndarray, size: tuple[int, int], shifts: np.ndarray) -> np.ndarray:
    """The image at `size`, each corner moved by its row (x, y) of `shifts`, in heights; beyond the edge as at the edge."""
    (height, width), (own_height, own_width) = size, image.shape[:2]
    # A pixel is a square around its centre: the corners of an image are half a pixel outside of it.
    source = np.array([(0, 0), (own_width, 0), (own_width, own_height), (0, own_height)], np.float32) - 0.5
    target = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - 0.5 + height * within(shifts, width / height)
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    return cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def within(shifts: np.ndarray, widths: float) -> np.ndarray:
    """The shifts, in heights; of a line that is narrower than high, those along it are in widths."""
    return shifts * np.array([min(1.0, widths), 1.0])


def colours(config: AugmentLine, rng: np.random.Generator) -> np.ndarray:
    """Brightness and saturation are linear in the colours of a pixel, so both together are one (3, 3) matrix."""
    brightness = 1 + config.brightness * rng.uniform(-1, 1)
    saturation = 1 + config.saturation * rng.uniform(-1, 1)
    return brightness * (saturation * np.eye(3) + (1 - saturation) * GREY)


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
