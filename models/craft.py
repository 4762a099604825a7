"""CRAFT: character region awareness for text detection (Baek et al., CVPR 2019), in the order of the paper.

Section 3.2.1 labels, 3.3 boxes; the network and the loss are in `networks/craft.py`. Data sets of words have no boxes of characters. The
paper lets the network that is being trained find them (section 3.2.2); here a word is divided into equal cells, one for each character of
its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from compress.models.contract import IMAGENET_MEAN, IMAGENET_STD, Algorithm, Detections, Deviation, Input, Mean, Sample
from compress.models.geometry import fill, rectangles, short_side
from compress.models.regions import checked_maps
from compress.models.registry import of_network
from compress.models.sast import strip_of

STRIDE = 2  # pixels of the network's input to one of its maps
SIGMA = 0.25  # of a character's Gaussian, in sides of its cell
ENLARGED = 1.5  # a Gaussian is drawn on a cell that is so many times as wide and as high, at whose border it is nearly 0
SQUARE = 1.1  # a rectangle whose sides are within this ratio is no more turned one way than another


def craft_targets(sample: Sample, min_size: float = 8.0) -> dict[str, np.ndarray]:
    """Label maps of an image (section 3.2.1), each (1, H / 2, W / 2): `region` and `affinity`, float32 in 0..1, and `mask`, uint8, 0 or 1.

    Words that are not to be judged are left out of both maps and masked: do-not-care words, and words whose rectangle of least area is
    narrower than `min_size` pixels.
    """
    height, width = (side // STRIDE for side in sample.image.shape[:2])
    region, affinity = np.zeros((2, 1, height, width), np.float32)
    mask = np.ones((1, height, width), np.uint8)
    words = sample.truth
    for polygon, ignore, text in zip(words.polygons, words.ignore, words.texts or [""] * len(words.polygons), strict=True):
        shape = (np.asarray(polygon, np.float64) + 0.5) / STRIDE - 0.5  # in pixels of the maps
        if ignore or short_side(polygon) < min_size:
            fill(mask[0], [shape], 0)
            continue
        cells = character_cells(strip_of(shape), len(text))
        draw(region[0], cells)
        draw(affinity[0], affinity_cells(cells))
    return {"region": region, "affinity": affinity, "mask": mask}


def character_cells(strip: np.ndarray, characters: int) -> np.ndarray:
    """A word divided into cells of equal length along it, one for each character: (n, 4, 2), corners clockwise from the upper left one.

    strip: (2, k, 2), k points of the upper side and k of the lower, both from left to right. characters: 0 where they are not known:
    then there are as many as cells that are about as wide as high.
    """
    middle = strip.mean(0)
    steps = np.linalg.norm(np.diff(middle, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    heights = np.linalg.norm(strip[1] - strip[0], axis=1)
    count = characters or max(1, round(along[-1] / max(heights.mean(), 1e-6)))
    places = np.linspace(0, along[-1], count + 1)
    upper, lower = (np.stack([np.interp(places, along, side[:, axis]) for axis in (0, 1)], 1) for side in strip)
    return np.stack([upper[:-1], upper[1:], lower[1:], lower[:-1]], 1)


def affinity_cells(cells: np.ndarray) -> np.ndarray:
    """The boxes between neighbouring cells (figure 3), (n - 1, 4, 2).

    The diagonals of a cell divide it into four triangles; the corners are the centres of the upper and the lower one of both cells.
    """
    centres = cells.mean(1)  # near where the diagonals cross
    upper = (cells[:, 0] + cells[:, 1] + centres) / 3
    lower = (cells[:, 2] + cells[:, 3] + centres) / 3
    return np.stack([upper[:-1], upper[1:], lower[1:], lower[:-1]], 1)


def gaussian(side: int) -> np.ndarray:
    """The Gaussian of a cell on its enlarged square, (side, side) float32, 1 in the middle."""
    axis = ((np.arange(side) + 0.5) / side - 0.5) * ENLARGED
    line = np.exp(-0.5 * (axis / SIGMA) ** 2)
    return np.outer(line, line).astype(np.float32)


PATTERN = gaussian(64)
PATTERN_CORNERS = np.array([[-0.5, -0.5], [63.5, -0.5], [63.5, 63.5], [-0.5, 63.5]], np.float32)


def draw(canvas: np.ndarray, cells: np.ndarray) -> None:
    """Warp a Gaussian into each of (n, 4, 2) cells on the (H, W) `canvas`, in place; where several meet, the highest value counts."""
    height, width = canvas.shape
    centres = cells.mean(1, keepdims=True)
    for quad in centres + (cells - centres) * ENLARGED:
        left, top = np.maximum(np.floor(quad.min(0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(quad.max(0)) + 1, (width, height)).astype(int)
        if left >= right or top >= bottom:
            continue
        matrix = cv2.getPerspectiveTransform(PATTERN_CORNERS, (quad - (left, top)).astype(np.float32))
        window = canvas[top:bottom, left:right]
        np.maximum(window, cv2.warpPerspective(PATTERN, matrix, (right - left, bottom - top)), out=window)


@dataclass(frozen=True)
class Settings:
    """How maps become boxes. All thresholds are in 0..1.

    text_threshold: a word is kept from this highest region score on. low_text: a pixel belongs to a word above this region score.
    link_threshold: a pixel joins two words above this affinity. min_area: pixels of a map that a word has at least.
    polygons: outlines of any length instead of four-cornered boxes.
    """

    text_threshold: float = 0.7
    link_threshold: float = 0.4
    low_text: float = 0.4
    min_area: int = 10
    polygons: bool = False

    def __post_init__(self) -> None:
        for name in ("text_threshold", "link_threshold", "low_text"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a score: it must be between 0 and 1, not {getattr(self, name)}.")
        if self.min_area < 0:
            raise ValueError(f"min_area must be at least 0, not {self.min_area}.")


def craft_decode(outputs: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]], settings: Settings) -> list[Detections]:
    """Words from the two maps (section 3.3): regions that affinity joins, and boxes around them.

    outputs: `region` and `affinity`, (B, 1, h, w), finite, in 0..1, each the whole image. sizes: (height, width) of the B original images,
    in whose pixels the polygons are given, clipped to the image. A word's score is its highest region score; Detections come with the
    highest first. Raises ValueError for maps that are not finite or of another shape.
    """
    region, affinity = (checked_maps(name, outputs[name], 1, len(sizes)) for name in ("region", "affinity"))
    if region.shape != affinity.shape:
        raise ValueError(f"decoding takes maps of one size, not of {region.shape} and {affinity.shape}.")
    return [decode_maps(*of_image, settings) for of_image in zip(region[:, 0], affinity[:, 0], sizes, strict=True)]


def decode_maps(region: np.ndarray, affinity: np.ndarray, size: tuple[int, int], settings: Settings) -> Detections:
    """:func:`craft_decode` for the (h, w) maps of one image."""
    text = region > settings.low_text
    joined = (text | (affinity > settings.link_threshold)).view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=4, ltype=cv2.CV_32S)
    pixels = np.flatnonzero(text)  # what only affinity joins is no part of the box
    owners = labels.reshape(-1)[pixels]
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, np.asarray(owners), region.reshape(-1)[pixels])
    kept = np.flatnonzero((stats[:, cv2.CC_STAT_AREA] >= settings.min_area) & (peaks > 0) & (peaks >= settings.text_threshold))
    kept = kept[np.argsort(-peaks[kept], kind="stable")]
    if not len(kept):
        return Detections([], np.zeros(0, np.float32))
    grown = growth(stats)
    outlines: Sequence[np.ndarray] | np.ndarray
    if settings.polygons:
        outlines = [outline(labels == label, text, stats[label], grown[label]) for label in kept]
    else:
        outlines = boxes(text.shape, pixels, owners, kept, grown)
    limit = np.array(size[::-1], np.float64)
    # From the centres of the maps' pixels to those of the image's.
    scale = limit / text.shape[::-1]
    polygons = [np.clip((polygon + 0.5) * scale - 0.5, 0, limit).astype(np.float32) for polygon in outlines]
    return Detections(polygons, np.minimum(peaks[kept], 1))


def growth(stats: np.ndarray) -> np.ndarray:
    """How much wider and higher each region becomes, in pixels: (n,) int, by its area and its upright box, as the authors' code has it.

    2 sqrt(area * shorter side / (width * height)): what the threshold takes off a word of that height.
    """
    area, width, height = (stats[:, column].astype(np.float64) for column in (cv2.CC_STAT_AREA, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT))
    return (2 * np.sqrt(area * np.minimum(width, height) / np.maximum(width * height, 1))).astype(int)


def boxes(shape: tuple[int, int], pixels: np.ndarray, owners: np.ndarray, kept: np.ndarray, grown: np.ndarray) -> np.ndarray:
    """Rectangles of least area around the dilated regions, (len(kept), 4, 2).

    Those that are nearly square stand upright. shape: (h, w) of the map. pixels: indices, ascending, of text in the flattened map; owners:
    their regions. grown: by how many pixels each region is dilated.
    """
    order = np.argsort(owners, kind="stable")
    pixels, owners = pixels[order], owners[order].astype(np.int64)
    # The first and the last pixel of a region's row alone can be corners of its hull.
    changes = np.flatnonzero(np.diff(owners * shape[0] + pixels // shape[1]))
    ends = np.unique(np.concatenate([[0], changes, changes + 1, [len(pixels) - 1]]))
    owners = owners[ends]
    points = np.stack([pixels[ends] % shape[1], pixels[ends] // shape[1]], 1)
    # The hull of a dilated region is that of the corners of the squares around its pixels.
    after = (1 + grown[owners]) // 2
    low, high = points - (grown[owners] - after)[:, None], points + after[:, None]
    corners = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], 1)
    corners = corners.clip(0, np.array(shape[::-1]) - 1).astype(np.float32)
    starts, stops = np.searchsorted(owners, kept), np.searchsorted(owners, kept, "right")
    return np.stack([least_rectangle(corners[start:stop].reshape(-1, 2)) for start, stop in zip(starts, stops, strict=True)])


def least_rectangle(points: np.ndarray) -> np.ndarray:
    """Corners, (4, 2), of the rectangle of least area around (n, 2) float32 points; of the upright one where it is nearly square."""
    centre, sides, angle = cv2.minAreaRect(points)
    if max(sides) <= SQUARE * min(sides):
        low, high = points.min(0), points.max(0)
        centre, sides, angle = (low + high) / 2, high - low, 0.0
    return rectangles(np.array([centre]), np.array([sides]), np.array([angle]))[0]


def outline(member: np.ndarray, text: np.ndarray, box: np.ndarray, grown: int) -> np.ndarray:
    """The outline, (n, 2), of one dilated region, within half a percent of its length; its rectangle where it has no inside.

    member, text: (h, w) bool; the region is what both have in common. box: its row of OpenCV's statistics.
    """
    left, top, width, height = box[[cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    rows = slice(max(top - grown, 0), top + height + grown)
    columns = slice(max(left - grown, 0), left + width + grown)
    region = (member[rows, columns] & text[rows, columns]).view(np.uint8)
    dilated = cv2.dilate(region, np.ones((1 + grown, 1 + grown), np.uint8))
    found, _ = cv2.findContours(dilated, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(found, key=len)
    simpler = cv2.approxPolyDP(contour, 0.005 * cv2.arcLength(contour, True), True)
    corners = simpler[:, 0] if len(simpler) > 2 else least_rectangle(contour[:, 0].astype(np.float32))
    return corners + np.array([columns.start, rows.start], np.float64)


def craft(
    width: Annotated[float, Field(gt=0, le=4)] = 1.0,
    min_size: Annotated[float, Field(ge=0, le=1e6)] = 8.0,
    mean: Mean = IMAGENET_MEAN,
    std: Deviation = IMAGENET_STD,
) -> Algorithm:
    """CRAFT as an :class:`Algorithm`.

    width: factor on the channels of all layers. min_size: pixels; narrower words are masked in training. mean, std: of R, G and B, of
    images in 0..1.
    """
    return Algorithm(
        task="detection",
        network=partial(of_network, "craft", "CRAFTNet", width),
        targets=partial(craft_targets, min_size=min_size),
        loss=partial(of_network, "craft", "craft_loss"),
        decode=craft_decode,
        settings=Settings,
        tunable=TUNABLE,
        copies=MappingProxyType({"region": "dice", "affinity": "dice"}),
        features=("ups.*",),
        kept_layers=("maps",),
        input=Input(mean=tuple(mean), std=tuple(std)),
    )


TUNABLE = MappingProxyType(
    {"text_threshold": (0.5, 0.6, 0.7, 0.8), "link_threshold": (0.2, 0.3, 0.4, 0.5), "low_text": (0.3, 0.35, 0.4, 0.45, 0.5)}
)
