"""Random views of an image of one line of text: one warp straight to the size of the input, one colour matrix, blur and noise."""

from __future__ import annotations

import math

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from compress.data.pixels import blurred, noisy, tinted
from compress.data.prepare import padded
from compress.models.contract import Input, Sample


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
    view = cv2.transform(view, tinted(config.brightness, config.saturation, rng))
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
