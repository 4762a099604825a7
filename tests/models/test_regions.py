"""Labels that grow, and labels that become words, against queues and pixel counting."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from compress.models.regions import RegionThresholds, checked_maps, grow, seeds, words


def labelled(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Label i on the i-th box: first and last column and row."""
    labels = np.zeros(shape, np.int32)
    for i, (left, top, right, bottom) in enumerate(boxes, 1):
        labels[top : bottom + 1, left : right + 1] = i
    return labels


def found(labels: np.ndarray, text: np.ndarray | None = None, size: tuple[int, int] | None = None, stride: int = 1, **thresholds):
    settings = {"min_area": 0, "score_threshold": 0, **thresholds}
    text = np.ones(labels.shape, np.float32) if text is None else text
    return words(labels, text, size or labels.shape, RegionThresholds(**settings), stride)


def test_seeds_are_numbered_by_rows_and_small_ones_left_out() -> None:
    kernels = labelled((50, 2, 55, 4), (3, 3, 3, 3), (10, 20, 12, 25), (13, 26, 20, 27)) > 0
    everything, large = seeds(kernels, 0)[1:-1, 1:-1], seeds(kernels, 2)[1:-1, 1:-1]
    assert [everything[y, x] for y, x in ((2, 50), (3, 3), (20, 10), (26, 13))] == [1, 2, 3, 4]  # corners do not connect
    assert [large[y, x] for y, x in ((2, 50), (3, 3), (20, 10), (26, 13))] == [1, 0, 2, 3]
    np.testing.assert_array_equal(everything > 0, kernels)


def test_labels_meet_in_the_middle_and_ties_go_to_the_highest() -> None:
    line = np.ones((1, 8), bool)
    labels = np.zeros((3, 10), np.int32)
    labels[1, 1], labels[1, 8] = 2, 1
    grow(labels, line)
    np.testing.assert_array_equal(labels[1, 1:-1], [2, 2, 2, 2, 1, 1, 1, 1])
    labels[1, 1:-1] = (1, 0, 0, 0, 2, 0, 0, 0)
    grow(labels, line)
    np.testing.assert_array_equal(labels[1, 1:-1], [1, 1, 2, 2, 2, 2, 2, 2])


def test_growth_stays_inside_and_goes_round_corners() -> None:
    inside = np.ones((9, 9), bool)
    inside[4, :8] = False
    labels = seeds(labelled((0, 0, 0, 0), shape=(9, 9)) > 0, 0)
    grow(labels, inside)
    np.testing.assert_array_equal(labels[1:-1, 1:-1] > 0, inside)
    assert not labels[[0, -1]].any()
    assert not labels[:, [0, -1]].any()


def test_an_upright_word_is_the_area_of_its_pixels() -> None:
    (box,) = found(labelled((10, 5, 29, 14))).polygons
    np.testing.assert_allclose(box, [(9.5, 4.5), (29.5, 4.5), (29.5, 14.5), (9.5, 14.5)], atol=1e-4)
    (box,) = found(labelled((10, 5, 29, 14)), size=(160, 240), stride=4).polygons
    np.testing.assert_allclose(box, [(39.5, 19.5), (119.5, 19.5), (119.5, 59.5), (39.5, 59.5)], atol=1e-4)
    (box,) = found(labelled((0, 0, 59, 39)), size=(20, 120)).polygons
    np.testing.assert_allclose(box, [(0, 0), (119.5, 0), (119.5, 19.5), (0, 19.5)], atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_those_of_all_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((80, 120), np.int32)
    for label in (3, 1, 2):
        rectangle = (rng.uniform((20, 20), (100, 60)), rng.uniform(5, 40, 2), rng.uniform(0, 90))
        cv2.fillPoly(labels, [cv2.boxPoints(rectangle).astype(np.int32)], label)
    text = rng.random(labels.shape, np.float32)
    result = found(labels, text)
    means = {label: text[labels == label].mean() for label in np.unique(labels) if label}
    order = sorted(means, key=means.get, reverse=True)
    np.testing.assert_allclose(result.scores, [means[label] for label in order], rtol=1e-5)
    for label, polygon in zip(order, result.polygons, strict=True):
        points = np.argwhere(labels == label)[:, ::-1].astype(np.float32)
        _, sides, _ = cv2.minAreaRect(points)
        assert cv2.contourArea(polygon) == pytest.approx((sides[0] + 1) * (sides[1] + 1), rel=0.02) or polygon.min() == 0
        inside = [cv2.pointPolygonTest(polygon, (float(x), float(y)), True) for x, y in points]
        assert min(inside) > -0.01


def test_thresholds_decide_what_is_kept() -> None:
    labels = labelled((1, 1, 20, 8), (30, 1, 33, 4), (1, 20, 20, 27))
    text = np.where(labels == 3, 0.6, 0.9).astype(np.float32)
    assert len(found(labels, text).polygons) == 3
    assert len(found(labels, text, score_threshold=0.7).polygons) == 2
    assert len(found(labels, text, min_area=17).polygons) == 2
    assert len(found(labels, text, min_area=16 * 4, stride=2).polygons) == 3
    assert len(found(labels, text, min_area=16 * 4 + 1, stride=2).polygons) == 2
    nothing = found(labels, text, score_threshold=1)
    assert nothing.polygons == []
    assert nothing.scores.shape == (0,)


def test_labels_that_are_not_there_are_no_words() -> None:
    labels = labelled((1, 1, 20, 8))
    labels[labels > 0] = 7
    assert len(found(labels).polygons) == 1
    assert found(np.zeros_like(labels)).polygons == []


def test_polygons_follow_a_bent_word_where_boxes_cannot() -> None:
    labels = cv2.ellipse(np.zeros((96, 128), np.int32), (64, 90), (50, 60), 0, 200, 340, 1, 12)
    (bent,), (box,) = found(labels, polygons=True).polygons, found(labels).polygons
    assert len(bent) > 4
    assert len(box) == 4
    assert cv2.contourArea(bent) == pytest.approx((labels > 0).sum(), rel=0.1)
    assert cv2.contourArea(box) > 1.2 * cv2.contourArea(bent)


def test_polygons_of_a_pixel_and_of_a_line_have_an_area() -> None:
    pixel, line = found(labelled((5, 5, 5, 5), (10, 10, 30, 10)), polygons=True).polygons
    assert cv2.contourArea(pixel) == pytest.approx(1)
    assert cv2.contourArea(line) == pytest.approx(21, rel=0.05)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(value: float) -> None:
    maps = np.zeros((1, 2, 8, 8), np.float32)
    maps[0, 1, 3, 3] = value
    with pytest.raises(ValueError, match="`text` holds values that are not finite"):
        checked_maps("text", maps, 2, 1)


@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8), (1, 3, 8, 8), (2, 2, 8, 8)])
def test_maps_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`text` of shape \(1, 2, H, W\)"):
        checked_maps("text", np.zeros(shape, np.float32), 2, 1)


@pytest.mark.parametrize(
    "wrong",
    [{"bin_threshold": -0.1}, {"score_threshold": 1.1}, {"min_area": -1}, {"min_kernel_area": float("inf")}, {"min_area": float("nan")}],
)
def test_thresholds_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegionThresholds(**wrong)
