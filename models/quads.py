"""Quads: areas, overlaps, and locality-aware non-maximum suppression (Zhou et al. 2017, "EAST: an efficient and accurate scene text
detector", section 3.5). Every function takes many at once: (n, 4, 2) arrays of x, y, y downwards, clockwise where they are convex.
"""

from __future__ import annotations

import numpy as np


def signed_areas(polygons: np.ndarray) -> np.ndarray:
    """Areas, (n,), of (n, k, 2) polygons by the shoelace formula; positive where they run clockwise on the screen."""
    x, y = polygons[..., 0], polygons[..., 1]
    return (x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1) / 2


def convex(quads: np.ndarray) -> np.ndarray:
    """Whether each quad is convex, clockwise, and has an area; (n,) bool."""
    edges = np.roll(quads, -1, 1) - quads
    after = np.roll(edges, -1, 1)
    turns = edges[..., 0] * after[..., 1] - edges[..., 1] * after[..., 0]
    return (turns > 0).all(1)


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU, (n,), of each of (n, 4, 2) convex clockwise quads with the one in the same place of `second`.

    By Green's theorem: the border of what two quads share are the parts of each one's edges that lie within the other. An edge that
    both have in common counts for the first alone. Pairs whose upright boxes are apart are not calculated.
    """
    ious = np.zeros(len(first))
    near = ((first.min(1) < second.max(1)) & (second.min(1) < first.max(1))).all(1)
    if not near.any():
        return ious
    first, second = first[near], second[near]
    origin = first[:, :1]
    # (4, n) coordinates: numpy runs fastest along the last axis.
    a, b = ((quads - origin).transpose(2, 1, 0) for quads in (first, second))
    shared = np.maximum(border_within(a, b, common=True) + border_within(b, a, common=False), 0)
    ious[near] = shared / (signed_areas(first) + signed_areas(second) - shared)
    return ious


def border_within(quads: np.ndarray, others: np.ndarray, *, common: bool) -> np.ndarray:
    """Half the integral of x dy - y dx, (n,), over the parts of the quads' edges that lie within the others; both (2, 4, n).

    An edge p + t d, 0 <= t <= 1, is on the inner side of another's where distance + t rate >= 0 (Cyrus and Beck 1978). common: whether
    edges that lie on the others' count.
    """
    start, edge = quads[:, :, None], (np.roll(quads, -1, 1) - quads)[:, :, None]
    (x, y), (dx, dy) = others[:, None], (np.roll(others, -1, 1) - others)[:, None]
    distance = dx * (start[1] - y) - dy * (start[0] - x)  # (edges, the others' edges, n)
    rate = dx * edge[1] - dy * edge[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        where = -distance / rate
    enter = np.where(rate > 0, where, 0).max(1)
    leave = np.where(rate < 0, where, 1).min(1)
    apart = (rate == 0) & (distance < 0 if common else distance <= 0)
    share = np.where(apart.any(1), 0, np.maximum(np.minimum(leave, 1) - np.maximum(enter, 0), 0))
    return (share * (start[0, :, 0] * edge[1, :, 0] - start[1, :, 0] * edge[0, :, 0])).sum(0) / 2


def locality_aware_nms(quads: np.ndarray, scores: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """The quads that are left of the convex (n, 4, 2) `quads` of pixels in the order of rows, the highest score first.

    Each is merged with the one before where their IoU is above `threshold`, by the mean weighted with the scores; scores add up. Of the
    `most` merged ones with the highest scores, those that overlap a higher one by more than `threshold` then go.
    """
    if not len(quads):
        return quads
    quads, scores = merged(quads, scores, threshold)
    best = np.argsort(-scores, kind="stable")[:most]
    return quads[best][without_overlaps(quads[best], threshold)]


def merged(quads: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of runs of quads, and sums of their scores; a run ends where the next quad does not overlap its mean so far.

    Where runs begin depends on nothing but what came before. So a guess of all beginnings that gives itself, when each quad is held
    against the mean of its run by that guess, is what going through them one by one would find; all are held at once.
    """
    places = np.arange(len(quads))
    sums = np.concatenate([np.zeros((1, 4, 2)), np.cumsum(quads * scores[:, None, None], 0)])
    weights = np.concatenate([[0], np.cumsum(scores)])
    begins = np.ones(len(quads), bool)
    begins[1:] = overlaps(quads[:-1], quads[1:]) <= threshold
    while True:
        run = np.maximum.accumulate(np.where(begins, places, 0))[:-1]
        means = (sums[1:-1] - sums[run]) / (weights[1:-1] - weights[run])[:, None, None]
        apart = overlaps(means, quads[1:]) <= threshold
        if (apart == begins[1:]).all():
            break
        begins[1:] = apart
    first = np.flatnonzero(begins)
    after = np.append(first[1:], len(quads))
    totals = weights[after] - weights[first]
    return (sums[after] - sums[first]) / totals[:, None, None], totals


def without_overlaps(quads: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the quads that overlap none before them that stays by more than `threshold`."""
    low, high = quads.min(1), quads.max(1)
    near = ((low[:, None] < high) & (low < high[:, None])).all(2)
    one, other = np.triu(near, 1).nonzero()
    covers = np.zeros_like(near)
    covers[one, other] = overlaps(quads[one], quads[other]) > threshold
    stays = np.ones(len(quads), bool)
    for index in range(len(quads)):
        if stays[index]:
            stays &= ~covers[index]
    return np.flatnonzero(stays)
