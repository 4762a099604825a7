"""CLEval, its detection part (Baek et al. 2020, CLEval: character-level evaluation for text detection and recognition tasks).

Every word stands for as many points as it has characters, in the middle of where each should be: pseudo character centers. Detections are
credited with the points inside them; words found in pieces and words found together cost a point for each cut. As the authors' scripts
have it, with one thing mended: there the length guessed of a false positive falls with its width; here it is the one that the paper
guesses of a word without a transcription.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import shapely

from compress.errors import CompressError
from compress.evaluation.icdar import TIE, Scene, Score, geometries
from compress.evaluation.overlaps import Overlap, overlaps

PRECISION = 0.3  # area precision from which a detection can be of a word, or of a do-not-care region
UPRIGHT = 0.5  # a quadrilateral less wide than this, in heights, is read downwards
LONGEST = 10  # characters guessed at most


def evaluate(images: Sequence[Scene]) -> Score:
    """Score a split; every count is of characters. An image's fourth part are its transcriptions.

    A word without one has as many characters as its shape lets one guess. Raises CompressError where transcriptions are missing.
    """
    if any(len(image) < 4 or len(image[3]) != len(image[1]) for image in images):
        raise CompressError("The cleval protocol needs a transcription, which may be empty, for each word.")
    judged = [judge(seen, image) for seen, image in zip(overlaps(images), images, strict=True)]
    found, split, merged, detected, words = (int(count) for count in np.sum(judged, axis=0)) if judged else (0,) * 5
    recall, precision = max(found - split, 0) / max(words, 1), max(found - merged, 0) / max(detected, 1)
    hmean = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return Score(precision, recall, hmean, found, detected, words)


def judge(seen: Overlap, image: Scene) -> tuple[int, int, int, int, int]:
    """Characters found, cuts through words, words joined, characters detected and characters there on one image (section 3.2)."""
    detections, polygons, ignore, texts = image[:4]
    lengths = [
        guessed_length(polygon) if skip or not text else len(text) for polygon, skip, text in zip(polygons, ignore, texts, strict=True)
    ]
    points = np.concatenate([np.zeros((0, 2)), *(centres(polygon, count) for polygon, count in zip(polygons, lengths, strict=True))])
    owner = np.repeat(np.arange(len(polygons)), lengths)
    outlines = geometries(seen.found, seen.first_found + np.arange(len(detections)))
    shapely.prepare(outlines)
    inside = shapely.contains_xy(outlines[:, None], *points.T[:, None])
    starts = np.searchsorted(owner, np.arange(len(polygons)))  # of each word's points, of which there is at least one
    hits = np.add.reduceat(inside, starts, 1, int).T if len(polygons) else np.zeros((0, len(detections)), int)
    shares = area_precision(seen, outlines)

    words = ~seen.ignore
    close = shares >= PRECISION - TIE
    on_ignored = np.where(hits > 0, shares, 0)[seen.ignore].sum(0) >= PRECISION - TIE
    boxes = ~(close[seen.ignore].any(0) | on_ignored)
    match = matches(hits > 0, close, shares, words[:, None] & boxes)

    inside &= match[owner].T
    found = int(inside.any(0).sum())
    strays = sum(guessed_length(detections[box]) for box in np.flatnonzero(boxes & ~match.any(0)))
    cuts, joins = (int(np.maximum(match.sum(axis) - 1, 0).sum()) for axis in (1, 0))
    return found, cuts, joins, int(inside.sum()) + strays, int(words[owner].sum())


def matches(hit: np.ndarray, close: np.ndarray, shares: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(words, detections) bool: pairs that belong together, one to one, a word to many detections, or many words to a detection."""
    both = hit & close
    one_to_one = both & (both.sum(1) == 1)[:, None] & (both.sum(0) == 1)
    in_pieces = both & valid & ((both & valid).sum(1) >= 2)[:, None]
    joint = hit & valid
    together = joint & (joint.sum(0) >= 2) & (np.where(joint, shares, 0).sum(0) >= PRECISION - TIE)
    return one_to_one & valid | in_pieces | together


def area_precision(seen: Overlap, outlines: np.ndarray) -> np.ndarray:
    """(words, detections): the share of a detection on a word; do-not-care regions end where a word that counts begins."""
    shared = seen.shared.copy()
    ignored, counted = np.flatnonzero(seen.ignore), np.flatnonzero(~seen.ignore)
    if len(ignored) and len(counted):
        regions, cared = (geometries(seen.words, seen.first_word + chosen) for chosen in (ignored, counted))
        meet = shapely.intersects(regions[:, None], cared)
        cut = meet.any(1)
        if cut.any():
            rest = shapely.difference(regions[cut], shapely.union_all(cared[meet.any(0)]))
            shared[ignored[cut]] = shapely.area(shapely.intersection(rest[:, None], outlines))
    return shared / np.where(seen.found_areas > 0, seen.found_areas, np.inf)


def centres(polygon: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) pseudo character centers (section 3.1): midway between the polygon's first half, the upper side, and its second.

    Both sides are divided into as many parts, equally long in corners, as there are characters.
    """
    corners = np.asarray(polygon, np.float64) @ (1, 1j)
    if len(corners) == 4 and width_in_heights(polygon) < UPRIGHT:
        corners = corners[[1, 2, 3, 0]]
    if len(corners) == 4:  # both sides are straight
        start, end = corners[0] + corners[3], corners[1] + corners[2]
        middles = start + (np.arange(count) + 0.5) / count * (end - start)
        return (middles / 2)[:, None].view(np.float64)
    half = len(corners) // 2
    places = np.arange(count + 1) / count
    sides = (corners[:half], corners[: half - 1 : -1])
    ends = sum(np.interp(places * (len(side) - 1), np.arange(len(side)), side) for side in sides)
    return ((ends[:-1] + ends[1:]) / 4)[:, None].view(np.float64)


def guessed_length(polygon: np.ndarray) -> int:
    """How many characters a shape seems to have: it is so many times as long as wide."""
    polygon = np.asarray(polygon, np.float32)
    ratio = width_in_heights(polygon) if len(polygon) == 4 else np.divide(*(np.array(cv2.minAreaRect(polygon)[1]) + 1e-5))
    return int(min(np.rint(0.5 + max(ratio, 1 / ratio)), LONGEST))


def width_in_heights(quad: np.ndarray) -> float:
    """The mean of the first and the third side by that of the others."""
    a, b, c, d = (complex(x, y) for x, y in np.asarray(quad, np.float64).tolist())  # for four numbers, in less than half of numpy's time
    return (abs(b - a) + abs(d - c) + 2e-5) / (abs(c - b) + abs(a - d) + 2e-5)
