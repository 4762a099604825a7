"""Random views of lines that are to be read: the text bent, stretched and cut a little in one warp, colours inverted, lines joined."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from pydantic import Field

from compress.data.lines.augment import AugmentLine
from compress.data.pixels import blurred, noisy, tinted
from compress.data.prepare import padded
from compress.models.contract import Input, Line, Sample


class AugmentText(AugmentLine):
    """What may happen to a line in training; the first three are those of Luo et al. 2020, "Learn to Augment", without the learning.

    distort: largest shift of each corner, as a share of the image's height.
    bend: largest shift of each of the points along the upper and the lower edge, one a height apart, as a share of the height.
    stretch: largest shift of these points along the text, above and below alike, as a share of what lies between two.
    crop: largest share of the height that is cut off above and below. invert: share of the lines whose colours are inverted.
    join: share of the lines that another line is put behind, where both fit into the input; 0.5 in PP-OCRv3 (RecConAug).
    The others are those of :class:`AugmentLine`.
    """

    bend: float = Field(default=0.06, ge=0, le=0.3)
    stretch: float = Field(default=0.2, ge=0, le=0.45)
    crop: float = Field(default=0.08, ge=0, le=0.3)
    invert: float = Field(default=0.1, ge=0, le=1)
    join: float = Field(default=0.0, ge=0, le=1)


def augment_text(sample: Sample, config: AugmentText, size: tuple[int, int], wanted: Input, rng: np.random.Generator) -> Sample:
    """A random view of `sample`, exactly (height, width, 3) uint8, padded on the right where the line is narrower.

    The padding is that of :func:`compress.data.prepare.fit_into`, as the network is shown it at inference: nothing is done to it.
    """
    height, width = size
    own = min(width, max(1, math.ceil(sample.image.shape[1] * height / sample.image.shape[0])))
    places = source_places(bent_edges(sample.image.shape[:2], config, rng), (height, own))
    across, down = np.ascontiguousarray(places.transpose(2, 0, 1))
    view = cv2.remap(sample.image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    view = cv2.transform(view, tinted(config.brightness, config.saturation, rng))
    view = cv2.bitwise_not(view) if rng.random() < config.invert else view
    view = noisy(blurred(view, config.blur * rng.random()), config.noise * rng.random(), rng)
    return Sample(sample.name, padded(view, width, wanted.mean), sample.truth)


def bent_edges(size: tuple[int, int], config: AugmentText, rng: np.random.Generator) -> np.ndarray:
    """(2, n, 2): x, y of the points of an image of `size` (height, width) that come to lie along the upper and the lower edge of a view."""
    height, width = size
    count = max(2, round(width / height) + 1)
    gap = width / (count - 1)
    edges = np.empty((2, count, 2))
    edges[..., 0] = np.linspace(0, width, count)
    edges[0, :, 1], edges[1, :, 1] = height * config.crop * rng.random(), height * (1 - config.crop * rng.random())
    edges[:, 1:-1, 0] += config.stretch * gap * rng.uniform(-1, 1, count - 2)
    # Along a line that is narrower than high, shifts are in widths, or its ends could change places.
    unit = np.array([min(height, width), height])
    corners = config.distort * unit * rng.uniform(-1, 1, (2, 2, 2))
    share = np.linspace(0, 1, count)[:, None]
    edges += corners[:, :1] * (1 - share) + corners[:, 1:] * share
    edges += config.bend * rng.random() * np.minimum(unit, gap) * rng.uniform(-1, 1, edges.shape)
    return edges


def source_places(edges: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 2) float32: where in the image each pixel of a view of `size` comes from, linear between the points of `edges`."""
    height, width = size
    columns = np.linspace(0, width, edges.shape[1])
    centres = np.arange(width) + 0.5
    upper, lower = (
        np.stack([np.interp(centres, columns, row[:, axis]) for axis in (0, 1)], 1).astype(np.float32) - np.float32(0.5) for row in edges
    )
    down = ((np.arange(height, dtype=np.float32) + np.float32(0.5)) / np.float32(height))[:, None, None]
    return upper + down * (lower - upper)


def joined(sample: Sample, another: Callable[[], Sample], config: AugmentText, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Perhaps the line with another one behind it, and their texts without a space between them; PP-OCR's RecConAug.

    size: height and width of the input that both must fit into.
    """
    if not config.join or rng.random() >= config.join:
        return sample
    height, other = len(sample.image), another()
    width = max(1, round(other.image.shape[1] * height / len(other.image)))
    if (sample.image.shape[1] + width) * size[0] > size[1] * height:
        return sample
    behind = cv2.resize(other.image, (width, height), interpolation=cv2.INTER_LINEAR)
    return Sample(sample.name, np.hstack([sample.image, behind]), Line(sample.truth.text + other.truth.text))
