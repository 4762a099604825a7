"""Quads: areas, overlaps, and locality-aware non-maximum suppression (Zhou et al. 2017, "EAST: an efficient and accurate scene text
detector", section 3.6).

All functions take many at once, as (4, 2, n) arrays: the corners, their x and y with y downwards, and the quads last, along which numpy
runs fastest. Corners go clockwise on the screen.
"""

from __future__ import annotations

import numpy as np


def areas(quads: np.ndarray) -> np.ndarray:
    """Areas, (n,), by the shoelace formula; negative where corners go counterclockwise."""
    return cross(quads[2] - quads[0], quads[3] - quads[1]) / 2


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """z of the cross product of vectors (2, ...)."""
    return a[0] * b[1] - a[1] * b[0]


def convex(quads: np.ndarray) -> np.ndarray:
    """Whether each quad is convex, clockwise, and has an area; (n,) bool."""
    edges = np.roll(quads, -1, 0) - quads
    return np.all([cross(edges[i], edges[i - 3]) > 0 for i in range(4)], 0)


def overlapping(first: np.ndarray, second: np.ndarray, threshold: float) -> np.ndarray:
    """Whether the IoU of each convex quad with the one in the same place of `second` is above `threshold`; (n,) bool.

    Two bounds decide most pairs of a picture's pixels, in a tenth of the time that :func:`overlaps` takes. What two quads share is at
    most what their upright boxes share. And where corners are moved from one quad to the other, edges sweep all that only one of them
    has: each at most the mean path of its ends times its length.
    """
    both = areas(first) + areas(second)
    common = np.minimum(first.max(0), second.max(0)) - np.maximum(first.min(0), second.min(0))
    possible = common.clip(min=0).prod(0) * (1 + threshold) > threshold * both
    lengths = np.maximum(norms(np.roll(first, -1, 0) - first), norms(np.roll(second, -1, 0) - second))
    paths = norms(second - first)
    swept = (lengths * (paths + np.roll(paths, -1, 0))).sum(0) / 2
    above = possible & ((both - swept) / 2 * (1 + threshold) > threshold * both)
    unsure = np.flatnonzero(possible & ~above)
    if len(unsure):
        above[unsure] = overlaps(first.take(unsure, 2), second.take(unsure, 2)) > threshold
    return above


def norms(vectors: np.ndarray) -> np.ndarray:
    """Lengths, (4, n), of (4, 2, n) vectors."""
    return np.sqrt(vectors[:, 0] ** 2 + vectors[:, 1] ** 2)


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU, (n,), of each convex quad with the one in the same place of `second`.

    By Green's theorem: the border of what two quads share are the parts of each one's edges that lie within the other. An edge that
    both have in common counts for the first alone.
    """
    origin = first[0]
    first, second = first - origin, second - origin
    shared = np.maximum(border_within(first, second, common=True) + border_within(second, first, common=False), 0)
    return shared / (areas(first) + areas(second) - shared)


def border_within(quads: np.ndarray, others: np.ndarray, *, common: bool) -> np.ndarray:
    """Half the integral of x dy - y dx, (n,), over the parts of the quads' edges that lie within the others.

    An edge p + t d, 0 <= t <= 1, is on the inner side of another's where distance + t rate >= 0 (Cyrus and Beck 1978). common: whether
    edges count that lie on the others', and run the same way: then both quads are on the same side of them.
    """
    (starts, edges), (corners, sides) = (
        (shape.swapaxes(0, 1), (np.roll(shape, -1, 0) - shape).swapaxes(0, 1)) for shape in (quads, others)
    )
    distance = cross(sides[:, None], starts[:, :, None] - corners[:, None])  # (edges, the others' edges, n)
    rate = cross(sides[:, None], edges[:, :, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        where = -distance / rate
    enter = np.where(rate > 0, where, 0).max(1).clip(min=0)
    leave = np.where(rate < 0, where, 1).min(1).clip(max=1)
    same_way = (edges[:, :, None] * sides[:, None]).sum(0) > 0 if common else np.False_
    outside = ((rate == 0) & ((distance < 0) | (distance == 0) & ~same_way)).any(1)
    share = np.where(outside, 0, (leave - enter).clip(min=0))
    return (share * cross(starts, edges)).sum(0) / 2


def locality_aware_nms(quads: np.ndarray, scores: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """What is left of convex quads of pixels in the order of rows, (4, 2, m), the highest score first.

    Each is merged with the one before where their IoU is above `threshold`, by the mean weighted with the scores, (n,), which are above
    0; scores add up. Of the `most` merged ones with the highest scores, those that overlap a higher one by more than `threshold` then go.
    """
    if not len(scores):
        return quads
    quads, scores = merged(quads, scores, threshold)
    quads = quads.take(np.argsort(-scores, kind="stable")[:most], 2)
    return quads.take(without_overlaps(quads, threshold), 2)


def merged(quads: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Merge neighbouring quads that overlap: the weighted mean of each run, and the sum of its scores.

    A run ends before the first quad that does not overlap the mean of the run so far. To find all runs at once, the start of each run is
    guessed and the guess is checked for all quads together: every quad is compared with the mean of its run so far. If the check gives the
    guess again, it is the result of the sequential rule, because a run depends only on the quads before it; otherwise it is the next guess.
    """
    sums = np.concatenate([np.zeros((4, 2, 1)), np.cumsum(quads * scores, 2)], 2)
    weights = np.concatenate([[0], np.cumsum(scores)])
    places = np.arange(len(scores))
    begins = np.ones(len(scores), bool)
    begins[1:] = ~overlapping(quads[..., :-1], quads[..., 1:], threshold)
    while True:
        run = np.maximum.accumulate(np.where(begins, places, 0))[:-1]
        means = (sums[..., 1:-1] - sums.take(run, 2)) / (weights[1:-1] - weights[run])
        together = overlapping(means, quads[..., 1:], threshold)
        if (together != begins[1:]).all():
            break
        begins[1:] = ~together
    first = np.flatnonzero(begins)
    after = np.append(first[1:], len(scores))
    totals = weights[after] - weights[first]
    return (sums.take(after, 2) - sums.take(first, 2)) / totals, totals


def without_overlaps(quads: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the quads that overlap none that comes before them, and stays, by more than `threshold`."""
    low, high = quads.min(0), quads.max(0)
    near = (low[0, :, None] < high[0]) & (low[0] < high[0, :, None]) & (low[1, :, None] < high[1]) & (low[1] < high[1, :, None])
    one, other = np.triu(near, 1).nonzero()
    covers = np.zeros_like(near)
    covers[one, other] = overlapping(quads.take(one, 2), quads.take(other, 2), threshold)
    stays = np.ones(len(near), bool)
    for index, covered in enumerate(covers):
        if stays[index]:
            stays &= ~covered
    return np.flatnonzero(stays)
