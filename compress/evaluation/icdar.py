"""The ICDAR2015 protocol for text detection (Karatzas et al. 2015; Robust Reading Challenge 4, task 4.1): one-to-one at IoU > 0.5.

Many images are matched together: bounding boxes leave a few thousand pairs out of all, and those are clipped in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import shapely

from compress.errors import CompressError

# Detections, polygons and do-not-care flags; transcriptions may follow, which other protocols read.
Scene = tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[bool]] | tuple[Any, ...]
AnyScene = TypeVar("AnyScene", bound=tuple[Any, ...])

# Ratios this near to one half count as one half, which is not enough: where corners are integers that is the exact decision.
TIE = 1e-9
PAIRS = 1 << 20  # words times detections that are looked at together, at about 50 bytes each


@dataclass(frozen=True)
class Score:
    """Precision, recall and their harmonic mean over a whole split, each in 0..1, with the counts that they come from.

    matched: words found, or what a protocol credits for them. detected: detections that count. words: words that count. Of `cleval`, all
    three are characters.
    """

    precision: float
    recall: float
    hmean: float
    matched: float
    detected: int
    words: int


def evaluate(images: Iterable[Scene]) -> Score:
    """Score a split; `images` gives (detections, polygons, ignore) for each image, as :func:`match` takes them.

    A ratio over nothing is 0, as in the official script.
    """
    return total(match_all(list(images)))


def total(counts: np.ndarray) -> Score:
    """The score of a split from the (images, 3) counts of :func:`match_all`."""
    matched, detected, words = (int(count) for count in counts.sum(0))
    precision = matched / detected if detected else 0.0
    recall = matched / words if words else 0.0
    hmean = 2 * precision * recall / (precision + recall) if matched else 0.0
    return Score(precision, recall, hmean, matched, detected, words)


def match(detections: Sequence[np.ndarray], polygons: Sequence[np.ndarray], ignore: Sequence[bool]) -> tuple[int, int, int]:
    """(matched, detected, words) of one image.

    detections, polygons: (n, 2) arrays of x, y pixels, n >= 3; detections are rounded to whole pixels, as in a submission.
    ignore: True for each of `polygons` that is a do-not-care word. A detection with more than half of its area on one such word
    does not count. Of the others, words in order take the first detection in order that is free and has IoU > 0.5.
    """
    matched, detected, words = match_all([(detections, polygons, ignore)])[0]
    return int(matched), int(detected), int(words)


def match_all(images: Sequence[Scene], whole_pixels: bool = True) -> np.ndarray:
    """(images, 3) counts: matched, detected, words; see :func:`match`. whole_pixels: round the corners of detections."""
    return np.concatenate([np.zeros((0, 3), int), *(match_some(some, whole_pixels) for some in in_parts(images))])


def in_parts(images: Sequence[AnyScene]) -> Iterator[Sequence[AnyScene]]:
    """The images in runs of at most `PAIRS` pairs of a word and a detection, and of one image at least."""
    first = pairs = 0
    for place, (found, truth, *_) in enumerate(images):
        more = len(found) * len(truth)
        if pairs + more > PAIRS and place > first:
            yield images[first:place]
            first, pairs = place, 0
        pairs += more
    if first < len(images):
        yield images[first:]


def match_some(images: Sequence[Scene], whole_pixels: bool) -> np.ndarray:
    """:func:`match_all` of images that fit into memory together."""
    found = matches(images, whole_pixels)
    matched = np.zeros(len(found.cared), bool)
    matched[found.box] = True
    ignored = np.array([flag for image in images for flag in image[2]], bool)
    found_image, truth_image = (np.repeat(np.arange(len(images)), [len(image[side]) for image in images]) for side in (0, 1))
    per_image = [(found_image, matched), (found_image, found.cared), (truth_image, ~ignored)]
    return np.stack([np.bincount(image[chosen], minlength=len(images)) for image, chosen in per_image], 1)


@dataclass(frozen=True)
class Matches:
    """Which detection every word takes. Words and detections of several images are numbered through, image after image.

    word, box: (n,) int, the pairs that :func:`match` counts. cared: (detections,) bool, False for those on do-not-care words.
    """

    word: np.ndarray
    box: np.ndarray
    cared: np.ndarray


def matches(images: Sequence[Scene], whole_pixels: bool = True) -> Matches:
    """The pairs that :func:`match` counts, of images that fit into memory together."""
    corners, lengths = joined([polygon for image in images for polygon in image[0]])
    found = shapes(np.rint(corners) if whole_pixels else corners, lengths)
    truth = shapes(*joined([polygon for image in images for polygon in image[1]]))
    ignored = np.array([flag for image in images for flag in image[2]], bool)
    if len(ignored) != len(truth.areas):
        raise CompressError(f"The ground truth has {len(truth.areas)} polygons but {len(ignored)} do-not-care flags.")
    found_image = np.repeat(np.arange(len(images)), [len(image[0]) for image in images])
    truth_image = np.repeat(np.arange(len(images)), [len(image[1]) for image in images])

    word, box, shared = overlapping_boxes(truth, found, *pairs(truth_image, found_image))
    # A union is never less than either area, so that IoU > 1/2 needs an intersection of a third of both areas together.
    needed = np.where(ignored[word], found.areas[box] / 2, (found.areas[box] + truth.areas[word]) / 3) * (1 + TIE)
    near = shared >= needed * (1 - 2 * TIE)
    word, box, needed = word[near], box[near], needed[near]
    enough = intersections(truth, word, found, box) > needed
    word, box = word[enough], box[enough]

    counts = ~ignored[word]
    cared = np.ones(len(found.areas), bool)
    cared[box[~counts]] = False
    free_word, free_box = ~ignored, cared.copy()
    taken = []
    for i, j in zip(word[counts].tolist(), box[counts].tolist(), strict=True):
        if free_word[i] and free_box[j]:
            free_word[i] = free_box[j] = False
            taken.append((i, j))
    word, box = np.array(taken, int).reshape(-1, 2).T
    return Matches(word, box, cared)


@dataclass(frozen=True)
class Shapes:
    """All polygons of a kind. Corners are complex numbers, x + iy.

    areas: (n,). low, high: (2, n) bounding boxes. convex: (n,) bool, True for convex quadrilaterals: their corners, positively
    oriented, are in `quads`, (n, 4). What is none is a shapely geometry in `others`, (n,).
    """

    areas: np.ndarray
    low: np.ndarray
    high: np.ndarray
    convex: np.ndarray
    quads: np.ndarray
    others: np.ndarray


def joined(polygons: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All corners of (n, 2) polygons in one (corners, 2) array, and the number of corners of each."""
    lengths = np.array([len(polygon) for polygon in polygons], int)
    if not polygons:
        return np.zeros((0, 2)), lengths
    if lengths.min() < 3:
        raise CompressError(f"A polygon has {lengths.min()} corners; ground truth and detections need at least 3 each.")
    corners = np.concatenate(polygons).astype(np.float64)
    if not np.isfinite(corners).all():
        raise CompressError("A polygon has a corner that is not a finite number; check what made the detections or the ground truth.")
    return corners, lengths


def shapes(flat: np.ndarray, lengths: np.ndarray) -> Shapes:
    """Measure polygons, given as by :func:`joined`. One that crosses itself is the region of the even-odd rule, as in the official
    script's clipper.
    """
    if not len(lengths):
        return Shapes(np.zeros(0), np.zeros((2, 0)), np.zeros((2, 0)), np.zeros(0, bool), np.zeros((0, 4), complex), np.zeros(0, object))
    starts = lengths.cumsum() - lengths
    low, high = np.minimum.reduceat(flat.T, starts, 1), np.maximum.reduceat(flat.T, starts, 1)
    four = np.flatnonzero(lengths == 4)
    quads = np.full((len(lengths), 4), np.nan, complex)
    quads[four] = (flat @ (1, 1j))[starts[four, None] + np.arange(4)]
    areas = signed_areas(quads)
    quads = np.where(areas[:, None] < 0, quads[:, ::-1], quads)
    edges = np.roll(quads, -1, 1) - quads
    convex = np.asarray((cross(edges, np.roll(edges, -1, 1)) >= 0).all(1))
    areas = np.abs(areas)
    others = np.full(len(lengths), None, object)
    if not convex.all():
        corner_of = np.repeat(np.arange(len(lengths)), lengths)
        rest = ~convex[corner_of]
        outlines = shapely.linearrings(flat[rest], indices=np.unique(corner_of[rest], return_inverse=True)[1])
        others[~convex] = shapely.make_valid(shapely.polygons(outlines))
        areas[~convex] = shapely.area(others[~convex])
    return Shapes(areas, low, high, convex, quads, others)


def pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs with equal values of two sorted integer arrays, in lexicographic order."""
    begin, end = np.searchsorted(second, first, "left"), np.searchsorted(second, first, "right")
    many = end - begin
    left = np.repeat(np.arange(len(first)), many)
    return left, np.arange(len(left)) + np.repeat(begin - (many.cumsum() - many), many)


def overlapping_boxes(a: Shapes, b: Shapes, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of the pairs `a[i]`, `b[j]` whose bounding boxes share an area, and that area."""
    area = np.ones(())
    for low_a, high_a, low_b, high_b in zip(a.low, a.high, b.low, b.high, strict=True):
        shared = np.minimum(high_a[i], high_b[j]) - np.maximum(low_a[i], low_b[j])
        meet = np.flatnonzero(shared > 0)
        i, j, area = i[meet], j[meet], np.broadcast_to(area, shared.shape)[meet] * shared[meet]
    return i, j, area


def intersections(a: Shapes, i: np.ndarray, b: Shapes, j: np.ndarray) -> np.ndarray:
    """Area of the intersection of `a[i]` and `b[j]`."""
    quick = a.convex[i] & b.convex[j]
    areas = np.empty(len(i))
    areas[quick] = convex_intersections(a.quads[i[quick]], b.quads[j[quick]])
    areas[~quick] = shapely.area(shapely.intersection(geometries(a, i[~quick]), geometries(b, j[~quick])))
    return areas


def geometries(a: Shapes, i: np.ndarray) -> np.ndarray:
    """Shapely geometries of `a[i]`."""
    chosen = a.others[i]
    convex = a.convex[i]
    corners = a.quads[i[convex]]
    chosen[convex] = shapely.polygons(np.stack([corners.real, corners.imag], 2))
    return chosen


def convex_intersections(quads: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Areas of the intersections of (n, 4) positively oriented convex quadrilaterals with as many others.

    Sutherland and Hodgman's clipping (1974) on all pairs at once. A half-plane takes away one run of corners at most and puts two
    in its place, so each of the four cuts needs one corner more; corners to spare lie on others and add no area.
    """
    clips = clips - quads[:, :1]  # small coordinates keep their digits
    corners = quads - quads[:, :1]
    for side in range(4):
        start, end = clips[:, side, None], clips[:, (side + 1) % 4, None]
        height = cross(end - start, corners - start)
        inside = height >= 0
        # Turn each polygon so that, where it is cut, its run of outside corners comes first.
        first = (inside & ~np.roll(inside, -1, 1)).argmax(1) + 1
        order = (first[:, None] + np.arange(corners.shape[1])) % corners.shape[1]
        corners, height, inside = (np.take_along_axis(array, order, 1) for array in (corners, height, inside))
        following, height_after, inside_after = (np.roll(array, -1, 1) for array in (corners, height, inside))
        crosses = inside != inside_after
        crossings = corners + (following - corners) * height / np.where(crosses, height - height_after, 1)
        cut = np.where(crosses[:, -1:], crossings[:, -1:], corners[:, :1])
        corners = np.concatenate([cut, np.where(inside, corners, np.where(inside_after, crossings, cut))], 1)
    return np.abs(signed_areas(corners))


def signed_areas(corners: np.ndarray) -> np.ndarray:
    """Shoelace formula for each row of (n, k) corners."""
    local = corners - corners[:, :1]
    return 0.5 * cross(local, np.roll(local, -1, 1)).sum(1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of vectors in the plane that are written as complex numbers."""
    return a.real * b.imag - a.imag * b.real
