"""The ICDAR2015 protocol against a plain implementation with shapely and loops."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from compress.errors import CompressError
from compress.evaluation.icdar import convex_intersections, evaluate, match, match_all


def plain_match(detections: list, polygons: list, ignore: list) -> tuple[int, int, int]:
    """The official script's loops."""
    found = [shapely.make_valid(shapely.Polygon(np.rint(polygon))) for polygon in detections]
    truth = [shapely.make_valid(shapely.Polygon(polygon)) for polygon in polygons]
    just_half = 0.5 + 1e-9
    dropped = {
        j
        for j, box in enumerate(found)
        for word, hidden in zip(truth, ignore, strict=True)
        if hidden and box.area > 0 and box.intersection(word).area / box.area > just_half
    }
    taken: set[int] = set()
    for word, hidden in zip(truth, ignore, strict=True):
        for j, box in enumerate(found):
            if hidden or j in taken or j in dropped:
                continue
            shared = box.intersection(word).area
            if shared > 0 and shared / (box.area + word.area - shared) > just_half:
                taken.add(j)
                break
    return len(taken), len(found) - len(dropped), sum(not hidden for hidden in ignore)


def random_quad(rng: np.random.Generator, room: float, jitter: float = 2) -> np.ndarray:
    angle, sides = rng.uniform(0, np.pi), rng.uniform(4, 60, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * sides / 2 @ turn.T + rng.uniform(0, room, 2)
    return corners + rng.normal(0, jitter, (4, 2))


def random_image(rng: np.random.Generator) -> tuple[list, list, list]:
    polygons = [np.rint(random_quad(rng, 120)) for _ in range(rng.integers(0, 6))]
    detections = [random_quad(rng, 120) for _ in range(rng.integers(0, 4))]
    for polygon in polygons:
        detections += [polygon + rng.normal(0, 4, (4, 2)) for _ in range(rng.integers(0, 3))]
        if rng.random() < 0.3:
            detections.append(polygon[::-1])
    order = rng.permutation(len(detections))
    return [detections[i] for i in order], polygons, [bool(flag) for flag in rng.random(len(polygons)) < 0.4]


@pytest.mark.slow
def test_thousands_of_random_images_match_as_the_plain_loops_do() -> None:
    rng = np.random.default_rng(0)
    images = [random_image(rng) for _ in range(2000)]
    expected = [plain_match(*image) for image in images]
    assert sum(matched for matched, _, _ in expected) > 500
    assert sum(detected for _, detected, _ in expected) < sum(len(detections) for detections, _, _ in images) - 500
    np.testing.assert_array_equal(match_all(images), expected)
    assert [match(*image) for image in images[:200]] == expected[:200]


def test_polygons_of_any_length_and_shape() -> None:
    rng = np.random.default_rng(1)
    images = []
    for _ in range(300):
        polygons, detections = [], []
        for _ in range(rng.integers(1, 4)):
            count = rng.integers(3, 9)
            angles = np.sort(rng.uniform(0, 2 * np.pi, count))
            star = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(10, 40, (count, 1)) + rng.uniform(30, 100, 2)
            polygons.append(star)
            detections.append(star + rng.normal(0, 2, star.shape))
            detections.append(star[rng.permutation(count)])
        images.append((detections, polygons, [bool(flag) for flag in rng.random(len(polygons)) < 0.3]))
    np.testing.assert_array_equal(match_all(images), [plain_match(*image) for image in images])


def test_convex_intersections_equal_shapelys() -> None:
    rng = np.random.default_rng(2)
    quads = np.stack([random_quad(rng, 50, jitter=0) for _ in range(4000)])
    first, second = quads[:2000], quads[2000:]
    second[:300] = first[:300]
    second[300:400] = first[300:400] + first[300:400, :1] - first[300:400, 1:2]  # neighbours along one side
    second[400:500] = first[400:500].mean(1, keepdims=True) + 0.3 * (first[400:500] - first[400:500].mean(1, keepdims=True))
    expected = shapely.area(shapely.intersection(shapely.polygons(first), shapely.polygons(second)))
    found = convex_intersections(first @ (1, 1j), second @ (1, 1j))
    assert (expected == 0).any()
    assert (expected > 0).sum() > 500
    np.testing.assert_allclose(found, expected, atol=1e-7)


def box(left: float, top: float, width: float, height: float) -> np.ndarray:
    return np.array([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], float)


@pytest.mark.parametrize("turn", [np.eye(2), np.array([[3, -4], [4, 3]]), np.array([[5, -12], [12, 5]]), np.array([[7, -1], [1, 7]])])
def test_exactly_half_on_a_do_not_care_word_still_counts(turn: np.ndarray) -> None:
    word = box(10, 10, 100, 20) @ turn.T
    half = box(90, 12, 40, 6) @ turn.T
    more = box(89, 12, 40, 6) @ turn.T
    assert match([half], [word], [True]) == (0, 1, 0)
    assert match([more], [word], [True]) == (0, 0, 0)


@pytest.mark.parametrize("turn", [np.eye(2), np.array([[3, -4], [4, 3]]), np.array([[5, -12], [12, 5]])])
def test_an_iou_of_exactly_half_is_no_match(turn: np.ndarray) -> None:
    word = box(10, 10, 60, 20) @ turn.T
    assert match([box(10, 10, 30, 20) @ turn.T], [word], [False]) == (0, 1, 1)
    assert match([box(30, 10, 60, 20) @ turn.T], [word], [False]) == (0, 1, 1)
    assert match([box(29, 10, 60, 20) @ turn.T], [word], [False]) == (1, 1, 1)


def test_detections_are_rounded_to_whole_pixels() -> None:
    word = box(10, 10, 60, 20)
    assert match([box(29.4, 10, 60, 20)], [word], [False]) == (1, 1, 1)
    assert match([box(29.6, 10, 60, 20)], [word], [False]) == (0, 1, 1)


def test_a_word_is_found_once_and_a_detection_finds_one_word() -> None:
    word = box(10, 10, 60, 20)
    assert match([word, word, word], [word], [False]) == (1, 3, 1)
    assert match([word], [word, word], [False, False]) == (1, 1, 2)


def test_first_come_first_served_as_in_the_official_order() -> None:
    long, short = box(0, 0, 100, 20), box(0, 0, 70, 20)
    detections = [box(0, 0, 80, 20), box(0, 0, 45, 20)]
    assert match(detections, [long, short], [False, False]) == (1 + 1, 2, 2)
    assert match(detections, [short, long], [False, False]) == (1, 2, 2)


def test_nothing_to_find_and_nothing_found() -> None:
    word = box(10, 10, 60, 20)
    assert match([], [], []) == (0, 0, 0)
    assert match([word], [], []) == (0, 1, 0)
    assert match([], [word, word], [False, True]) == (0, 0, 1)
    for images in ([], [([], [], [])], [([word], [], [])], [([], [word], [False])]):
        score = evaluate(images)
        assert (score.precision, score.recall, score.hmean) == (0, 0, 0)


def test_a_score_sums_counts_over_images() -> None:
    word, elsewhere = box(10, 10, 60, 20), box(300, 300, 60, 20)
    score = evaluate(iter([([word, elsewhere], [word], [False]), ([word], [word, elsewhere, word], [False, False, False])]))
    assert (score.matched, score.detected, score.words) == (2, 3, 4)
    assert score.precision == pytest.approx(2 / 3)
    assert score.recall == pytest.approx(2 / 4)
    assert score.hmean == pytest.approx(2 * 2 / 3 * 1 / 2 / (2 / 3 + 1 / 2))


def test_images_do_not_see_each_other_and_may_come_in_any_order() -> None:
    rng = np.random.default_rng(3)
    images = [random_image(rng) for _ in range(100)]
    order = rng.permutation(100)
    np.testing.assert_array_equal(match_all([images[i] for i in order]), match_all(images)[order])


@pytest.mark.parametrize(
    "odd",
    [
        np.zeros((4, 2)),
        np.array([(10, 10), (70, 10), (40, 10)]),
        np.array([(10, 10), (10, 10), (70, 10), (70, 30)]),
        np.array([(10, 10), (70, 30), (70, 10), (10, 30)]),
        np.array([(10, 10), (70, 10), (30, 15), (10, 30)]),
    ],
)
def test_odd_polygons_neither_crash_nor_disturb_others(odd: np.ndarray) -> None:
    word = box(200, 200, 60, 20)
    matched, detected, words = match([odd, word], [odd, word], [False, False])
    assert (detected, words) == (2, 2)
    assert matched in (1, 2)
    assert match([word], [odd, word], [True, False]) == (1, 1, 1)


def test_malformed_input_is_refused_in_a_sentence() -> None:
    word = box(10, 10, 60, 20)
    with pytest.raises(CompressError, match="at least 3"):
        match([word[:2]], [word], [False])
    with pytest.raises(CompressError, match="not a finite number"):
        match([word * np.nan], [word], [False])
    with pytest.raises(CompressError, match="2 polygons but 1"):
        match([word], [word, word], [False])
