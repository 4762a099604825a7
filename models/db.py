"""DB: real-time scene text detection with differentiable binarization (Liao et al., AAAI 2020), without the network.

Section 3.4: labels and box formation. Network and loss are in `compress.models.networks.db`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from compress.models.contract import IMAGENET_MEAN, IMAGENET_STD, LARGEST, Algorithm, Detections, Deviation, Input, Mean, Sample, Weight
from compress.models.geometry import FRACTION_BITS, area, fill, offset, perimeter, rectangles, short_side, subpixels
from compress.models.registry import BACKBONES, NECKS, checked, named, of_network


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three parts of the loss. The paper (equation 7) has alpha = 1 for `binary` and beta = 10 for `threshold`."""

    probability: Weight = 1.0
    threshold: Weight = 10.0
    binary: Weight = 1.0


TARGETS = ("shrink", "shrink_mask", "threshold", "threshold_mask")


def db_targets(
    sample: Sample,
    shrink_ratio: float = 0.4,
    threshold_min: float = 0.3,
    threshold_max: float = 0.7,
    min_size: float = 8.0,
) -> dict[str, np.ndarray]:
    """Label maps of an image (section 3.4), each (1, H, W).

    `shrink`, `shrink_mask` and `threshold_mask` are uint8, 0 or 1; `threshold` is float32 from `threshold_min` to `threshold_max`.
    Words that are not to be judged are left out of every map and masked: do-not-care words, words whose rectangle of least area
    is narrower than `min_size` pixels, and words of which shrinking leaves nothing.
    """
    height, width = sample.image.shape[:2]
    shrink = np.zeros((1, height, width), np.uint8)
    shrink_mask = np.ones_like(shrink)
    threshold = np.full((1, height, width), threshold_min, np.float32)
    threshold_mask = np.zeros_like(shrink)
    for polygon, ignore in zip(sample.truth.polygons, sample.truth.ignore, strict=True):
        judged = not ignore and short_side(polygon) >= min_size
        distance = area(polygon) * (1 - shrink_ratio**2) / perimeter(polygon) if judged else 0.0  # equation 10
        kernel = offset(polygon, -distance) if distance else []
        grown = offset(polygon, distance) if kernel else []
        if grown:
            fill(shrink[0], kernel, 1)
            fill(threshold_mask[0], grown, 1)
            draw_border(threshold[0], polygon, distance, threshold_min, threshold_max)
        else:
            fill(shrink_mask[0], [polygon], 0)
    return dict(zip(TARGETS, (shrink, shrink_mask, threshold, threshold_mask), strict=True))


def draw_border(threshold: np.ndarray, polygon: np.ndarray, distance: float, low: float, high: float) -> None:
    """Paint one word's border on the (H, W) map, in place: `high` on its outline, down to `low` at `distance` pixels from it."""
    height, width = threshold.shape
    margin = min(int(distance), height + width) + 2  # an outline beyond the image's edge still reaches this far in
    left, top = np.maximum(np.floor(polygon.min(0)).astype(int), 0) - margin
    right, bottom = np.minimum(np.ceil(polygon.max(0)).astype(int) + 1, (width, height)) + margin
    if right <= max(left, 0) or bottom <= max(top, 0) or left >= width or top >= height:
        return
    outline = np.ones((bottom - top, right - left), np.uint8)
    cv2.polylines(outline, [subpixels(polygon - (left, top))], True, 0, shift=FRACTION_BITS)
    far = cv2.distanceTransform(outline, cv2.DIST_L2, cv2.DIST_MASK_5)
    border = (high - (high - low) / distance * far)[max(-top, 0) : height - top, max(-left, 0) : width - left]
    window = threshold[max(top, 0) : bottom, max(left, 0) : right]
    np.maximum(window, border, out=window)


@dataclass(frozen=True)
class Thresholds:
    """How maps become boxes.

    bin_threshold: a pixel is text above this probability; 0 to 1.
    box_threshold: a box is kept from this mean probability inside it on; 0 to 1.
    unclip_ratio: a region grows by area * ratio / perimeter (section 3.4, r'); 0 or more.
    min_size: shortest side, in pixels of the map, between centres of pixels, of the rectangle of least area around a region.
    max_candidates: of more boxes than this on an image, those with the highest scores are kept; at least 1.
    polygons: outlines of any length instead of four-cornered boxes.
    """

    bin_threshold: float = 0.3
    box_threshold: float = 0.6
    unclip_ratio: float = 1.5
    min_size: int = 3
    max_candidates: int = 1000
    polygons: bool = False

    def __post_init__(self) -> None:
        for name in ("bin_threshold", "box_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability: it must be between 0 and 1, not {getattr(self, name)}.")
        for name, least in (("unclip_ratio", 0), ("min_size", 0), ("max_candidates", 1)):
            if not least <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} must be a number from {least} to {LARGEST:g}, not {getattr(self, name)}.")


def db_decode(outputs: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]], thresholds: Thresholds) -> list[Detections]:
    """Boxes from probability maps (section 3.4): regions, their scores, and growth by the unclip ratio.

    outputs: `probability`, (B, 1, H, W), finite, in 0..1 (clipped where not); each map is the whole image, stretched to H x W.
    sizes: (height, width) of the B original images, in whose pixels the polygons are given, clipped to the image.
    Detections come with the highest score first. Raises ValueError for a map that is not finite or of another shape.
    """
    maps = np.asarray(outputs["probability"])
    if maps.ndim != 4 or maps.shape[1] != 1 or len(maps) != len(sizes):
        raise ValueError(f"decoding {len(sizes)} images takes probability maps of shape ({len(sizes)}, 1, H, W), not {maps.shape}.")
    return [decode_map(probability[0], size, thresholds) for probability, size in zip(maps, sizes, strict=True)]


def decode_map(probability: np.ndarray, size: tuple[int, int], thresholds: Thresholds) -> Detections:
    """:func:`db_decode` for one (H, W) map."""
    probability = np.ascontiguousarray(probability, np.float32)
    if not in_unit_range(probability):
        if not np.isfinite(probability).all():
            raise ValueError("the probability map holds values that are not finite: the network that made it is broken.")
        probability = probability.clip(0, 1)
    regions = find_regions(probability, thresholds.bin_threshold)
    boxes = [cv2.minAreaRect(region) for region in regions]
    kept = [i for i, (_, sides, _) in enumerate(boxes) if min(sides) >= max(thresholds.min_size, 1e-6)]
    if not kept:
        return Detections([], np.zeros(0, np.float32))
    centres, sides, angles = (np.array(column) for column in zip(*(boxes[i] for i in kept), strict=True))
    if thresholds.polygons:
        outlines = [outline(regions[i]) for i in kept]
    else:
        # Growing a rectangle by area * ratio / perimeter gives a rectangle: no clipper is needed.
        growth = sides.prod(1, keepdims=True) * thresholds.unclip_ratio / sides.sum(1, keepdims=True)  # on both sides together
        outlines, grown = rectangles(centres, np.stack([sides, sides + growth]), angles)
    scores = mean_inside(probability, outlines)
    best = np.argsort(-scores, kind="stable")[: thresholds.max_candidates]
    best = best[scores[best] >= thresholds.box_threshold]
    limit = np.array(size[::-1], np.float64)
    scale = limit / probability.shape[::-1]
    if thresholds.polygons:
        grown = [np.clip(unclip(outlines[i], thresholds.unclip_ratio) * scale, 0, limit).astype(np.float32) for i in best]
    else:
        grown = list(np.clip(grown[best] * scale, 0, limit).astype(np.float32))
    return Detections(grown, scores[best])


ONE = np.float32(1).view(np.uint32)


def in_unit_range(values: np.ndarray) -> bool:
    """Whether all of a contiguous float32 array is in 0..1, in one pass: as integers, the bits of all else are greater."""
    return values.size == 0 or values.view(np.uint32).max() <= ONE


def find_regions(probability: np.ndarray, bin_threshold: float) -> list[np.ndarray]:
    """Outer outlines, each (n, 1, 2) int32, of the 8-connected regions above `bin_threshold`; a region in another's hole counts.

    Linked runs take a third of the time of border following. Corners are the ends of rows of pixels. Holes run the other way round;
    those a single pixel high look like a line, which callers leave out as too narrow.
    """
    contours, _ = cv2.findContoursLinkRuns((probability > bin_threshold).view(np.uint8))
    return [contour for contour in contours if cv2.contourArea(contour, True) >= 0]


def mean_inside(probability: np.ndarray, polygons: Sequence[np.ndarray]) -> np.ndarray:
    """Mean probability, of a map in 0..1, over the pixels of each polygon, which may reach beyond the map; (len(polygons),) float32.

    The sum is the L1 norm, which OpenCV has for masks at a quarter of the time of its mean.
    """
    ends = np.cumsum([len(polygon) for polygon in polygons])
    starts = np.concatenate([[0], ends[:-1]])
    flat = np.concatenate(polygons)
    low = np.maximum(np.floor(np.minimum.reduceat(flat, starts)), 0).astype(int)
    high = np.minimum(np.ceil(np.maximum.reduceat(flat, starts)) + 1, probability.shape[::-1]).astype(int)
    corners = subpixels(flat - np.repeat(low, ends - starts, 0))
    scores = []
    for start, end, (left, top), (right, bottom) in zip(starts.tolist(), ends.tolist(), low.tolist(), high.tolist(), strict=True):
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [corners[start:end]], 1, shift=FRACTION_BITS)
        total = cv2.norm(probability[top:bottom, left:right], cv2.NORM_L1, mask)
        scores.append(total / max(cv2.countNonZero(mask), 1))
    return np.array(scores, np.float32)


def outline(region: np.ndarray) -> np.ndarray:
    """A region's contour with fewer corners: within half a percent of its length (Douglas and Peucker)."""
    simpler = cv2.approxPolyDP(region, 0.005 * cv2.arcLength(region, True), True)
    return (simpler if len(simpler) >= 3 else region)[:, 0].astype(np.float64)


def unclip(polygon: np.ndarray, ratio: float) -> np.ndarray:
    """`polygon` grown by area * ratio / perimeter; of several parts the largest."""
    return (offset(polygon, area(polygon) * ratio / perimeter(polygon)) or [polygon])[0]


def db(
    backbone: str | Mapping[str, Any] = "mobilenet_v3_small",
    neck: str | Mapping[str, Any] = MappingProxyType({"name": "fpn", "channels": 96}),
    steepness: Annotated[float, Field(gt=0, le=1e6)] = 50.0,
    loss: Mapping[str, Any] = MappingProxyType({}),
    shrink_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.4,
    head_kernel: Literal[3, 5, 7, 9] = 3,
    local: bool = False,
    mean: Mean = IMAGENET_MEAN,
    std: Deviation = IMAGENET_STD,
) -> Algorithm:
    """DB as an :class:`Algorithm`.

    backbone, neck: a name from `compress.models.registry`, or a mapping of `name` and keywords. steepness: k of equation 2. loss: fields of
    :class:`LossWeights`. shrink_ratio: r of equation 10. head_kernel: of the branches' first convolution; 7 in PP-OCRv3's teacher.
    local: whether the probability comes from a :class:`LocalBranch`, as in PP-OCRv4's server detector. mean, std: of R, G and B, of
    images in 0..1. Raises ValueError for unknown names or keywords and for wrong values.
    """
    parts = named(BACKBONES, backbone, "model.backbone"), named(NECKS, neck, "model.neck")
    weights = checked(LossWeights, loss, "model.loss")()
    return Algorithm(
        task="detection",
        network=partial(of_network, "db", "db_network", *parts, steepness, head_kernel, local),
        targets=partial(db_targets, shrink_ratio=shrink_ratio),
        loss=partial(of_network, "db", "db_loss", weights=weights),
        decode=db_decode,
        settings=Thresholds,
        tunable=TUNABLE,
        copies=MappingProxyType({"probability": "dice", "binary": "dice"}),
        features=("neck.smooths.*",),
        kept_layers=("*.up2", "probability.last") if local else ("*.up2",),
        input=Input(mean=tuple(mean), std=tuple(std)),
    )


TUNABLE = MappingProxyType(
    {
        "bin_threshold": (0.2, 0.3, 0.4, 0.5, 0.6),
        "box_threshold": (0.4, 0.5, 0.6, 0.7),
        "unclip_ratio": (1.2, 1.4, 1.6, 1.8, 2.0, 2.2),
    }
)
