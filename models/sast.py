"""SAST: a single-shot arbitrarily-shaped text detector based on context attended multi-task learning (Wang et al., ACM MM 2019), in the
order of the paper: text instance segmentation by point-to-quad assignment, polygons from the centre line, labels. Network and loss are in
`compress.models.networks.sast`.

TCL is the text centre line (map `score`), TBO the offsets to the upper and the lower border (`border`), TVO those to the four vertices of
the word's quad (`tvo`), TCO those to its centre (`tco`). Offsets lead from a pixel to the point, x before y, in pixels of the maps, which
are at stride 4. A strip is a word as (2, k, 2): k points of its upper side and k of its lower, both from left to right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import Field

from compress.models.contract import IMAGENET_MEAN, IMAGENET_STD, LARGEST, Algorithm, Detections, Deviation, Input, Mean, Sample, Weight
from compress.models.geometry import fill, rectangles, short_side
from compress.models.quads import areas, convex, cross, locality_aware_nms
from compress.models.regions import checked_maps
from compress.models.registry import BACKBONES, NECKS, checked, named, of_network

MAPS = MappingProxyType({"score": 1, "border": 4, "tvo": 8, "tco": 2})  # name -> channels
STRIDE = 4
END_RATIO = 0.15  # of a word's height by which the centre line is shorter at each end


@dataclass(frozen=True)
class Thresholds:
    """How maps become words.

    bin_threshold: a pixel is on a centre line above this probability; 0 to 1.
    nms_threshold: quads that overlap by more than this IoU are one word; 0 to 1.
    score_threshold: a word is kept from this mean probability over its pixels on; 0 to 1.
    min_fill: and from this sum of probabilities over the area of its quad on; 0 to 1. A whole centre line has some 0.3.
    min_area: quads of fewer pixels of the network's input are noise; 0 or more.
    expand_ratio: words are lengthened at both ends by this share of their height, which the centre line lacks; 0 or more. 0.15 is what
    labels lack; 0.3 is published.
    max_candidates: of more quads than this, before those that overlap go, the ones with the most pixels and the highest scores stay.
    polygons: outlines with a pair of points each half a height instead of four-cornered boxes.
    """

    bin_threshold: float = 0.5
    nms_threshold: float = 0.2
    score_threshold: float = 0.5
    min_fill: float = 0.1
    min_area: float = 80.0
    expand_ratio: float = END_RATIO
    max_candidates: int = 1000
    polygons: bool = False

    def __post_init__(self) -> None:
        for name in ("bin_threshold", "nms_threshold", "score_threshold", "min_fill"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share: it must be between 0 and 1, not {getattr(self, name)}.")
        for name, least in (("min_area", 0), ("expand_ratio", 0), ("max_candidates", 1)):
            if not least <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} must be a number from {least} to {LARGEST:g}, not {getattr(self, name)}.")


def sast_decode(outputs: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]], thresholds: Thresholds) -> list[Detections]:
    """Words from the four maps: quads, their pixels, and outlines by the borders along the centre line.

    outputs: the maps of :class:`SAST` as (B, C, h, w) arrays, finite, `score` in 0..1, each the whole image.
    sizes: (height, width) of the B original images, in whose pixels the polygons are given, clipped to the image.
    Detections come with the highest score first. Raises ValueError for maps that are not finite or of another shape.
    """
    maps = [checked_maps(name, outputs[name], channels, len(sizes)) for name, channels in MAPS.items()]
    if len({array.shape[2:] for array in maps}) > 1:
        raise ValueError(f"decoding takes maps of one size, not of {', '.join(str(array.shape[2:]) for array in maps)}.")
    score, border, tvo, tco = maps
    return [decode_maps(*of_image, thresholds) for of_image in zip(score, border, tvo, tco, sizes, strict=True)]


def decode_maps(
    score: np.ndarray, border: np.ndarray, tvo: np.ndarray, tco: np.ndarray, size: tuple[int, int], thresholds: Thresholds
) -> Detections:
    """:func:`sast_decode` for the (C, h, w) maps of one image."""
    pixels = np.flatnonzero(score > thresholds.bin_threshold)
    points = np.stack(np.divmod(pixels, score.shape[2])[::-1]).astype(np.float64)  # (2, n)
    probabilities, corners, centres, borders = (
        array.reshape(len(array), -1).take(pixels, 1).astype(np.float64) for array in (score, tvo, tco, border)
    )
    quads = points + corners.reshape(4, 2, -1)
    good = np.flatnonzero(convex(quads))
    quads = locality_aware_nms(quads.take(good, 2), probabilities[0, good], thresholds.nms_threshold, thresholds.max_candidates)
    if not quads.size:
        return Detections([], np.zeros(0, np.float32))
    owners = nearest(points + centres, quads.mean(0))
    outlines, scores = restored(points, points + borders.reshape(2, 2, -1), probabilities[0], owners, quads, thresholds)
    if not outlines:
        return Detections([], scores)
    limit = np.array(size[::-1], np.float64)
    # From the centres of the maps' pixels to those of the image's.
    corners = (np.concatenate(outlines) + 0.5) * (limit / score.shape[:0:-1]) - 0.5
    ends = np.cumsum([len(outline) for outline in outlines])[:-1]
    return Detections(np.split(np.clip(corners, 0, limit).astype(np.float32), ends), scores)


CHUNK = 1 << 22


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Point-to-quad assignment: for each of (2, n) predicted centres the index of the nearest of (2, m) quads'."""
    rows = max(1, CHUNK // centres.shape[1])
    found = []
    for start in range(0, points.shape[1], rows):
        x, y = points[:, start : start + rows, None] - centres[:, None]
        found.append((x * x + y * y).argmin(1))
    return np.concatenate(found)


def restored(
    points: np.ndarray, sides: np.ndarray, probabilities: np.ndarray, owners: np.ndarray, quads: np.ndarray, thresholds: Thresholds
) -> tuple[list[np.ndarray], np.ndarray]:
    """Outlines and scores of the words that are large and sure enough, the highest score first; in pixels of the maps.

    points: (2, n) pixels of centre lines. sides: (2, 2, n) the points above and below each. owners: (n,) the word of each, an index into
    the (4, 2, m) `quads`. A word's pixels are put in order along the axis of its quad; of equally spaced ones the border points are taken.
    """
    words = quads.shape[2]
    axes = quads[1] + quads[2] - quads[0] - quads[3]
    axes /= np.maximum(np.hypot(*axes), 1e-6)
    along = (points * axes[:, owners]).sum(0)
    order = np.lexsort((along, owners))
    counts = np.bincount(owners, minlength=words)
    filled = np.bincount(owners, probabilities, minlength=words)
    means = filled / np.maximum(counts, 1)
    whole = areas(quads)
    large = (counts > 0) & (whole * STRIDE**2 >= thresholds.min_area) & (filled >= thresholds.min_fill * whole)
    kept = np.flatnonzero(large & (means >= thresholds.score_threshold))
    kept = kept[np.argsort(-means[kept], kind="stable")]
    if not len(kept):
        return [], np.zeros(0, np.float32)
    heights = np.bincount(owners, np.hypot(*(sides[1] - sides[0])), minlength=words) / np.maximum(counts, 1)
    starts = np.cumsum(counts) - counts
    pairs = np.full(len(kept), 2)
    if thresholds.polygons:
        extents = along[order[(starts + counts - 1)[kept]]] - along[order[starts[kept]]]
        pairs = np.maximum(2, np.rint(2 * extents / np.maximum(heights[kept], 1)).astype(int) + 1)
    lasts = np.cumsum(pairs) - 1
    firsts = lasts - pairs + 1
    word, place = np.repeat(kept, pairs), np.arange(lasts[-1] + 1) - np.repeat(firsts, pairs)
    taken = order[starts[word] + place * (counts[word] - 1) // (np.repeat(pairs, pairs) - 1)]
    strips = sides[..., taken].transpose(2, 0, 1)
    lengthen(strips, firsts, lasts, thresholds.expand_ratio * heights[kept], axes[:, kept].T)
    outlines = [outline_of(strips[first : last + 1].swapaxes(0, 1)) for first, last in zip(firsts, lasts, strict=True)]
    return outlines, means[kept].astype(np.float32)


def lengthen(strips: np.ndarray, firsts: np.ndarray, lasts: np.ndarray, by: np.ndarray, axes: np.ndarray) -> None:
    """Move the first and the last pair of points of each word outwards along its centre line, in place.

    strips: (n, 2, 2) pairs of all words. firsts, lasts: their ends, indices into it. by: (words,) how far. axes: (words, 2) the directions
    where two pairs lie on each other.
    """
    middles = strips.mean(1)
    for ends, inner, sign in ((firsts, firsts + 1, -1.0), (lasts, lasts - 1, 1.0)):
        outwards = middles[ends] - middles[inner]
        lengths = np.linalg.norm(outwards, axis=1, keepdims=True)
        outwards = np.where(lengths > 1e-6, outwards / np.maximum(lengths, 1e-6), sign * axes)
        strips[ends] += (outwards * by[:, None])[:, None]


TARGETS = ("score", "border", "tvo", "tco", "height", "mask")


def sast_targets(sample: Sample, centre_ratio: float = 0.3, min_size: float = 8.0) -> dict[str, np.ndarray]:
    """Label maps of an image, each (C, H / 4, W / 4).

    `score` and `mask`, uint8, 0 or 1; `border`, `tvo` and `tco`, float32, where `score` is 1, else 0; `height`, float32, the shorter side
    of the pixel's word in pixels of the maps, at least 1. The centre line is `centre_ratio` of a word's height and shorter than the word.
    Words that are not to be judged are left out of every map and masked: do-not-care words, and words whose rectangle of least area is
    narrower than `min_size` pixels of the image.
    """
    height, width = (side // STRIDE for side in sample.image.shape[:2])
    mask = np.ones((height, width), np.uint8)
    pieces = np.zeros((height, width), np.int32)
    corners: list[np.ndarray] = []
    words: list[int] = []
    quads: list[np.ndarray] = []
    for polygon, ignore in zip(sample.truth.polygons, sample.truth.ignore, strict=True):
        points = (np.asarray(polygon, np.float64) + 0.5) / STRIDE - 0.5
        if ignore or short_side(polygon) < min_size:
            fill(mask, [points], 0)
            continue
        strip = strip_of(points)
        quads.append(quad_of(strip))
        lines, numbers = centre_line(strip, centre_ratio)
        for line, number in zip(lines, numbers.tolist(), strict=True):
            fill(pieces, [line], len(corners) + number + 1)
        corners += list(quads_of(strip))
        words += [len(quads) - 1] * (strip.shape[1] - 1)
    maps = {name: np.zeros((MAPS[name], height, width), np.float32) for name in ("border", "tvo", "tco")}
    heights = np.ones((1, height, width), np.float32)
    rows, columns = pieces.nonzero()
    if len(rows):
        numbers = pieces[rows, columns] - 1
        points = np.stack([columns, rows]).astype(np.float64)
        own = np.stack(quads, 2)[..., np.array(words)[numbers]]
        maps["border"][:, rows, columns] = border_offsets(points, np.stack(corners, 2)[..., numbers]).reshape(4, -1)
        maps["tvo"][:, rows, columns] = (own - points).reshape(8, -1)
        maps["tco"][:, rows, columns] = own.mean(0) - points
        heights[0, rows, columns] = shorter_sides(own)
    return {"score": (pieces > 0).view(np.uint8)[None], **maps, "height": heights, "mask": mask[None]}


def strip_of(polygon: np.ndarray) -> np.ndarray:
    """The strip of an outline whose first half is the upper side, from left to right; mirrored ones are turned the right way round.

    What is no such outline (an odd number of corners, halves that cross or that run across the word) becomes its rectangle of least
    area. Of four corners the longer sides are upper and lower where they are more than 1.5 times the others: text that runs down.
    """
    half = len(polygon) // 2
    if len(polygon) == 2 * half:
        strip = np.stack([polygon[:half], polygon[: half - 1 : -1]])
        strip = strip if piece_areas(strip).sum() >= 0 else strip[:, ::-1]
        if half == 2:
            return lengthwise(strip)
        if runs_along(strip) and (piece_areas(strip) > 0).all():
            return strip
    centre, box, angle = cv2.minAreaRect(polygon.astype(np.float32))
    rectangle = rectangles(np.array([centre]), np.array([box]), np.array([angle]))[0]
    return lengthwise(np.stack([rectangle[:2], rectangle[:1:-1]]))


def outline_of(strip: np.ndarray) -> np.ndarray:
    """The corners of a strip, (2k, 2), clockwise from the upper left one."""
    return np.concatenate([strip[0], strip[1, ::-1]])


def quads_of(strip: np.ndarray) -> np.ndarray:
    """The pieces of a strip, (k - 1, 4, 2), each clockwise from its upper left corner."""
    return np.stack([strip[0, :-1], strip[0, 1:], strip[1, 1:], strip[1, :-1]], 1)


def piece_areas(strip: np.ndarray) -> np.ndarray:
    """Signed areas of a strip's pieces, (k - 1,); their sum is that of the strip."""
    return areas(quads_of(strip).transpose(1, 2, 0))


def runs_along(strip: np.ndarray) -> bool:
    """Whether a strip is no more than 1.5 times as high as long."""
    lengths = np.linalg.norm(np.diff(strip, axis=1), axis=2).sum() / 2
    return 1.5 * lengths >= np.linalg.norm(strip[1] - strip[0], axis=1).mean()


def lengthwise(strip: np.ndarray) -> np.ndarray:
    """A strip of one piece, turned by a quarter where it does not run along."""
    return strip if runs_along(strip) else np.stack([[strip[0, 1], strip[1, 1]], [strip[0, 0], strip[1, 0]]])


def quad_of(strip: np.ndarray) -> np.ndarray:
    """(4, 2): the corners of a strip of one piece, else of the rectangle of least area around it, from the upper left one on."""
    ends = strip[:, [0, -1]]
    if strip.shape[1] == 2:
        return outline_of(ends)
    centre, box, angle = cv2.minAreaRect(outline_of(strip).astype(np.float32))
    rectangle = rectangles(np.array([centre]), np.array([box]), np.array([angle]))[0]
    turned = np.stack([np.roll(rectangle, turn, 0) for turn in range(4)])
    return turned[np.linalg.norm(turned - outline_of(ends), axis=2).sum(1).argmin()]


def centre_line(strip: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """TCL of a strip as quads, (n, 4, 2), and the piece of the strip that each lies in.

    `ratio` of the strip's height, and shorter at each end by `END_RATIO` of the least of its length and the heights of its ends.
    """
    steps = np.linalg.norm(np.diff(strip.mean(0), axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    heights = np.linalg.norm(strip[1, [0, -1]] - strip[0, [0, -1]], axis=1)
    short = END_RATIO * min(along[-1], *heights)
    places = np.concatenate([[short], along[(along > short) & (along < along[-1] - short)], [along[-1] - short]])
    cut = np.stack([np.interp(places, along, side[:, axis]) for side in strip for axis in (0, 1)], 1).reshape(-1, 2, 2).swapaxes(0, 1)
    middle, half = cut.mean(0), (cut[1] - cut[0]) * ratio / 2
    return quads_of(np.stack([middle - half, middle + half])), np.searchsorted(along, places[:-1], "right") - 1


def border_offsets(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """TBO, (2, 2, n): from each of (2, n) points to the upper and the lower line of its quad, (4, 2, n), in the mean direction of the left
    and the right side.
    """
    left, right = quads[3] - quads[0], quads[2] - quads[1]
    direction = left / np.maximum(np.hypot(*left), 1e-6) + right / np.maximum(np.hypot(*right), 1e-6)
    found = []
    for start, end in ((quads[0], quads[1]), (quads[3], quads[2])):
        away, line = start - points, end - start
        across = cross(direction, line)
        crossing = np.abs(across) > 1e-6
        # A side without a length is the one point that there is.
        found.append(np.where(crossing, cross(away, line) / np.where(crossing, across, 1) * direction, away))
    return np.stack(found)


def shorter_sides(quads: np.ndarray) -> np.ndarray:
    """(n,): the lesser of the mean length and the mean height of (4, 2, n) quads, at least 1."""
    edges = np.hypot(*(np.roll(quads, -1, 0) - quads).swapaxes(0, 1))
    return np.maximum(1, np.minimum(edges[::2].mean(0), edges[1::2].mean(0)))


@dataclass(frozen=True)
class LossWeights:
    """Weights of the four parts of the loss. 1, 1, 1.5 and 1.5 in the published training."""

    score: Weight = 1.0
    border: Weight = 1.0
    tvo: Weight = 1.5
    tco: Weight = 1.5


def sast(
    backbone: str | Mapping[str, Any] = "resnet50",
    neck: str | Mapping[str, Any] = MappingProxyType({"name": "cab_fpn", "channels": 128, "blocks": 1}),
    loss: Mapping[str, Any] = MappingProxyType({}),
    centre_ratio: Annotated[float, Field(gt=0, le=1)] = 0.3,
    mean: Mean = IMAGENET_MEAN,
    std: Deviation = IMAGENET_STD,
) -> Algorithm:
    """SAST as an :class:`Algorithm`.

    backbone, neck: a name from `compress.models.registry`, or a mapping of `name` and keywords. loss: fields of :class:`LossWeights`.
    centre_ratio: of a word's height that its centre line is high. mean, std: as in :func:`db`. Raises ValueError for unknown
    names or keywords and for wrong values.
    """
    parts = named(BACKBONES, backbone, "model.backbone"), named(NECKS, neck, "model.neck")
    weights = checked(LossWeights, loss, "model.loss")()
    return Algorithm(
        task="detection",
        network=partial(of_network, "sast", "sast_network", *parts),
        targets=partial(sast_targets, centre_ratio=centre_ratio),
        loss=partial(of_network, "sast", "sast_loss", weights=weights),
        decode=sast_decode,
        settings=Thresholds,
        tunable=TUNABLE,
        copies=MappingProxyType({"score": "dice"}),
        features=("neck.smooths.*",),
        kept_layers=("maps.*",),
        input=Input(mean=tuple(mean), std=tuple(std)),
    )


TUNABLE = MappingProxyType(
    {
        "bin_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
        "nms_threshold": (0.1, 0.2, 0.3, 0.4),
        "score_threshold": (0.5, 0.6, 0.7, 0.8, 0.9),
        "expand_ratio": (0.0, 0.15, 0.3, 0.45),
    }
)
