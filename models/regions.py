"""What detectors share that label the pixels of words: growing of labels from seeds, and labels to polygons.

Labels are (H, W) int32 maps: 0 is background, the pixels of word i have the value i, i >= 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from compress.models.contract import LARGEST, Detections
from compress.models.geometry import offset, rectangles

Accepts = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class RegionThresholds:
    """How labelled maps become words. The areas are in pixels of the network's input.

    bin_threshold: a pixel is text, or kernel, above this probability; 0 to 1.
    score_threshold: a word is kept from this mean probability of text over its pixels on; 0 to 1.
    min_kernel_area: smaller kernels are noise; 0 or more. min_area: smaller words are noise; 0 or more.
    polygons: outlines of any length instead of four-cornered boxes.
    """

    bin_threshold: float = 0.5
    score_threshold: float = 0.9
    min_kernel_area: float = 5.0
    min_area: float = 300.0
    polygons: bool = False

    probabilities: ClassVar[tuple[str, ...]] = ("bin_threshold", "score_threshold")
    positive: ClassVar[tuple[str, ...]] = ("min_kernel_area", "min_area")

    def __post_init__(self) -> None:
        for name in self.probabilities:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability: it must be between 0 and 1, not {getattr(self, name)}.")
        for name in self.positive:
            if not 0 <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} must be a number from 0 to {LARGEST:g}, not {getattr(self, name)}.")


def checked_maps(name: str, maps: np.ndarray, channels: int, images: int) -> np.ndarray:
    """`maps` as contiguous float32. Raises ValueError unless they are finite and of shape (images, channels, H, W)."""
    maps = np.ascontiguousarray(maps, np.float32)
    if maps.ndim != 4 or maps.shape[:2] != (images, channels):
        raise ValueError(f"decoding {images} images takes `{name}` of shape ({images}, {channels}, H, W), not {maps.shape}.")
    if not np.isfinite(maps).all():
        raise ValueError(f"the map `{name}` holds values that are not finite: the network that made it is broken.")
    return maps


def seeds(kernels: np.ndarray, min_area: float) -> np.ndarray:
    """Labels of the 4-connected regions of the (H, W) bool map `kernels` that have at least `min_area` pixels of it.

    With a frame of background, (H + 2, W + 2), as :func:`grow` takes them; numbered from 1 in the order of their first pixels' rows.
    """
    framed = cv2.copyMakeBorder(kernels.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    if min_area <= 1:
        return cv2.connectedComponents(framed, connectivity=4, ltype=cv2.CV_32S)[1]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(framed, connectivity=4, ltype=cv2.CV_32S)
    large = stats[:, cv2.CC_STAT_AREA] >= min_area
    large[0] = False
    return (np.cumsum(large) * large).astype(np.int32)[labels]


def grow(labels: np.ndarray, inside: np.ndarray, accepts: Accepts | None = None) -> None:
    """Grow framed labels, in place, over the pixels of the (H, W) bool map `inside`, a pixel a step in four directions, to the end.

    A pixel that several labels reach in the same step takes the highest. accepts: (pixels, their labels-to-be) -> bool, given
    indices into the flattened framed map; what it refuses stays free for other labels.
    """
    width = labels.shape[1]
    steps = np.array([-width, -1, 1, width])
    flat = labels.reshape(-1)
    framed = np.zeros(labels.shape, bool)
    np.logical_and(inside, labels[1:-1, 1:-1] == 0, out=framed[1:-1, 1:-1])
    free = framed.reshape(-1)
    candidates = np.flatnonzero(free)
    while len(candidates):
        claims = flat[candidates[:, None] + steps]
        if accepts is not None:
            rows, columns = claims.nonzero()
            claims[rows, columns] *= accepts(candidates[rows], claims[rows, columns])
        claims = claims.max(1)
        taken = claims > 0
        pixels = candidates[taken]
        flat[pixels] = claims[taken]
        free[pixels] = False
        around = pixels[:, None] + steps
        candidates = np.unique(around[free[around]])


def words(labels: np.ndarray, text: np.ndarray, size: tuple[int, int], thresholds: RegionThresholds, stride: int) -> Detections:
    """The labelled words that are large and sure enough, the highest score first.

    labels: (H, W). text: (H, W) probability. size: (height, width) of the image, which the maps cover, in whose pixels polygons
    are given, clipped to it. stride: pixels of the network's input to one of the maps, in which areas are counted. The area of a
    word, and its box, are those of its whole pixels and not of their centres.
    """
    flat = labels.ravel()
    pixels = np.flatnonzero(flat > 0)
    owners = flat[pixels]
    counts = np.bincount(owners)
    means = np.bincount(owners, text.ravel()[pixels]) / np.maximum(counts, 1)
    kept = (counts >= max(thresholds.min_area / stride**2, 1)) & (means >= thresholds.score_threshold)
    chosen = np.flatnonzero(kept)
    chosen = chosen[np.argsort(-means[chosen], kind="stable")]
    if not len(chosen):
        return Detections([], np.zeros(0, np.float32))
    limit = np.array(size[::-1], np.float64)
    scale = limit / labels.shape[::-1]
    outlines = contours(labels, chosen) if thresholds.polygons else boxes(labels.shape[1], pixels, owners, chosen)
    # From the centres of the maps' pixels to those of the image's.
    polygons = [np.clip((outline + 0.5) * scale - 0.5, 0, limit).astype(np.float32) for outline in outlines]
    return Detections(polygons, means[chosen].astype(np.float32))


def boxes(width: int, pixels: np.ndarray, owners: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Rectangles of least area around the chosen labels, (len(chosen), 4, 2); see :func:`whole_pixels`.

    pixels: indices, ascending, into the flattened map that is `width` wide; owners: their labels.
    """
    order = np.argsort(owners, kind="stable")
    pixels, owners = pixels[order], owners[order]
    # The first and the last pixel of a word's row alone can be corners of its hull.
    rows = owners.astype(np.int64) * (pixels.max() + 1) + pixels // width
    changes = np.flatnonzero(np.diff(rows))
    ends = np.sort(np.concatenate([[0], changes, changes + 1, [len(rows) - 1]]))
    points = np.stack([pixels[ends] % width, pixels[ends] // width], 1).astype(np.float32)
    starts = np.searchsorted(owners[ends], chosen), np.searchsorted(owners[ends], chosen, "right")
    return whole_pixels([cv2.minAreaRect(points[start:end]) for start, end in zip(*starts, strict=True)])


def whole_pixels(rectangles_of_centres: Sequence[Any]) -> np.ndarray:
    """Corners, (n, 4, 2), of what `cv2.minAreaRect` gives for centres of pixels, half a pixel wider on each side."""
    centres, sides, angles = (np.array(column) for column in zip(*rectangles_of_centres, strict=True))
    return rectangles(centres, sides + 1, angles)


def contours(labels: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """Outlines of the chosen labels, half a pixel outside of the centres of their pixels, within half a percent of their length."""
    outlines = []
    for label in chosen:
        (contour, *_), _ = cv2.findContours((labels == label).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        simpler = cv2.approxPolyDP(contour, 0.005 * cv2.arcLength(contour, True), True)[:, 0].astype(np.float64)
        # A line of pixels has no inside that could grow.
        grown = offset(simpler, 0.5) if len(simpler) > 2 else []
        outlines.append(grown[0] if grown else whole_pixels([cv2.minAreaRect(contour)])[0])
    return outlines
