"""Overlaps of quads against shapely, and locality-aware suppression against one quad after another."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import Polygon

from compress.models.quads import areas, convex, locality_aware_nms, merged, overlapping, overlaps

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)


def random_quads(rng: np.random.Generator, count: int, spread: float = 6.0) -> np.ndarray:
    """Convex clockwise quads around random places, (n, 4, 2)."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, (4 * count, 4)), 1)
    corners = np.stack([np.cos(angles), np.sin(angles)], 2) * rng.uniform(2, 8, (4 * count, 1, 2)) + rng.uniform(
        0, spread, (4 * count, 1, 2)
    )
    return corners[convex(last(corners))][:count]


def last(quads: np.ndarray) -> np.ndarray:
    """(n, 4, 2) as the (4, 2, n) of the functions."""
    return quads.transpose(1, 2, 0)


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    first, second = Polygon(a), Polygon(b)
    return first.intersection(second).area / first.union(second).area


def test_overlaps_equal_shapely_for_random_quads() -> None:
    rng = np.random.default_rng(0)
    first, second = random_quads(rng, 150), random_quads(rng, 150)
    expected = np.array([plain_iou(a, b) for a, b in zip(first, second, strict=True)])
    assert (expected > 0.2).any()
    assert (expected == 0).any()
    np.testing.assert_allclose(overlaps(last(first), last(second)), expected, atol=1e-9)
    np.testing.assert_allclose(areas(last(first)), [Polygon(a).area for a in first])
    for threshold in (0.0, 0.2, 0.7):
        np.testing.assert_array_equal(overlapping(last(first), last(second), threshold), expected > threshold)


def test_quads_that_differ_little_overlap_as_shapely_says() -> None:
    rng = np.random.default_rng(1)
    first = random_quads(rng, 150)
    second = first + rng.normal(0, 0.3, first.shape)
    good = convex(last(second))
    first, second = first[good], second[good]
    expected = np.array([plain_iou(a, b) for a, b in zip(first, second, strict=True)])
    for threshold in (0.2, 0.5, 0.8, 0.95):
        found = overlapping(last(first), last(second), threshold)
        assert found.any()
        np.testing.assert_array_equal(found, expected > threshold)


@pytest.mark.parametrize(
    ("other", "iou"),
    [
        (SQUARE, 1),
        (SQUARE[[1, 2, 3, 0]], 1),
        (np.add(SQUARE, (4, 0)), 0),  # a side in common from outside
        (SQUARE * (0.5, 1), 0.5),  # three sides in common from inside
        (np.add(SQUARE, (2, 0)), 1 / 3),
        (SQUARE / 4 + 1, 1 / 16),
        (np.add(SQUARE, (4, 4)), 0),  # a corner in common
        (SQUARE + 100, 0),
    ],
)
def test_edges_in_common_are_counted_once(other: np.ndarray, iou: float) -> None:
    for one, two in ((SQUARE, other), (other, SQUARE)):
        assert overlaps(last(one[None]), last(two[None]))[0] == pytest.approx(iou, abs=1e-12)
        assert overlapping(last(one[None]), last(two[None]), 0.3)[0] == (iou > 0.3)


def test_only_clockwise_convex_quads_with_an_area_are_convex() -> None:
    dented, crossed = SQUARE.copy(), SQUARE[[0, 2, 1, 3]]
    dented[2] = 1, 1
    quads = np.stack([SQUARE, SQUARE[::-1], dented, crossed, SQUARE * (1, 0)])
    np.testing.assert_array_equal(convex(last(quads)), [True, False, False, False, False])


def plain_merging(quads: np.ndarray, scores: np.ndarray, threshold: float) -> list[tuple[np.ndarray, float]]:
    """Each quad merged with the one before, as it is by then, where they overlap."""
    found = [(quads[0], scores[0])]
    for quad, score in zip(quads[1:], scores[1:], strict=True):
        mean, weight = found[-1]
        if plain_iou(mean, quad) > threshold:
            found[-1] = ((mean * weight + quad * score) / (weight + score), weight + score)
        else:
            found.append((quad, score))
    return found


def plain_suppression(quads: np.ndarray, scores: np.ndarray, threshold: float, most: int) -> list[np.ndarray]:
    best = sorted(plain_merging(quads, scores, threshold), key=lambda pair: -pair[1])[:most]
    kept: list[np.ndarray] = []
    for quad, _ in best:
        if all(plain_iou(quad, other) <= threshold for other in kept):
            kept.append(quad)
    return kept


def wandering(rng: np.random.Generator, count: int) -> np.ndarray:
    """Rectangles that move little from one to the next and jump at times: runs that end because their mean lags behind."""
    steps = np.where(rng.random((count, 1)) < 0.1, rng.uniform(-30, 30, (count, 2)), rng.uniform(-0.5, 1.5, (count, 2)))
    return np.cumsum(steps, 0)[:, None] + np.array([[0, 0], [12, 0], [12, 5], [0, 5]]) + rng.normal(0, 0.2, (count, 4, 2))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_merging_all_at_once_equals_one_after_another(threshold: float) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        quads, scores = wandering(rng, 80), rng.uniform(0.5, 1, 80)
        means, weights = merged(last(quads), scores, threshold)
        expected = plain_merging(quads, scores, threshold)
        assert 3 < len(expected) < 80
        np.testing.assert_allclose(means.transpose(2, 0, 1), [quad for quad, _ in expected], atol=1e-9)
        np.testing.assert_allclose(weights, [weight for _, weight in expected])


@pytest.mark.parametrize("most", [5, 1000])
def test_suppression_equals_one_after_another(most: int) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        quads, scores = wandering(rng, 100) % 40, rng.uniform(0.5, 1, 100)
        good = convex(last(quads))
        quads, scores = quads[good], scores[good]
        found = locality_aware_nms(last(quads), scores, 0.2, most)
        expected = plain_suppression(quads, scores, 0.2, most)
        assert 1 < len(expected) < len(quads)
        np.testing.assert_allclose(found.transpose(2, 0, 1), expected, atol=1e-9)


def test_no_quads_are_no_words() -> None:
    assert locality_aware_nms(np.zeros((4, 2, 0)), np.zeros(0), 0.2, 10).shape == (4, 2, 0)
