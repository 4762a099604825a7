"""Maps to boxes: scale, scores, the cap, faults."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from compress.models.db import Thresholds, db_decode


def decode(probability: np.ndarray, size: tuple[int, int] | None = None, **thresholds: float):
    return db_decode({"probability": probability[None, None]}, [size or probability.shape], Thresholds(**thresholds))[0]


def painted(*boxes: tuple[int, int, int, int, float], shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A map with upright boxes: first and last column and row, then the value."""
    probability = np.zeros(shape, np.float32)
    for left, top, right, bottom, value in boxes:
        probability[top : bottom + 1, left : right + 1] = value
    return probability


def test_an_upright_box_grows_by_the_unclip_ratio() -> None:
    found = decode(painted((40, 30, 80, 50, 0.9)), unclip_ratio=1.5)
    growth = 40 * 20 * 1.5 / (2 * 60)
    expected = np.array([(40 - growth, 30 - growth), (80 + growth, 30 - growth), (80 + growth, 50 + growth), (40 - growth, 50 + growth)])
    np.testing.assert_allclose(found.polygons[0], expected, atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9], atol=1e-6)
    assert found.polygons[0].dtype == found.scores.dtype == np.float32


def test_x_and_y_scale_apart_and_boxes_stay_on_the_image() -> None:
    probability = painted((40, 30, 80, 50, 0.9), (1, 60, 30, 80, 0.9))
    plain = decode(probability)
    stretched = decode(probability, size=(96 * 3, 128 * 2))
    for before, after in zip(plain.polygons, stretched.polygons, strict=True):
        np.testing.assert_allclose(after, before * (2, 3), atol=1e-3)
    assert min(polygon.min() for polygon in plain.polygons) == 0


def test_the_score_is_the_mean_inside_the_box() -> None:
    rng = np.random.default_rng(1)
    probability = painted((20, 20, 60, 40, 1.0)) * rng.uniform(0.5, 1, (96, 128)).astype(np.float32)
    found = decode(probability)
    assert found.scores[0] == pytest.approx(probability[20:41, 20:61].mean(), rel=1e-5)


def test_thresholds_decide_what_is_kept() -> None:
    probability = painted((10, 10, 40, 20, 0.65), (60, 10, 100, 20, 0.9), (10, 50, 40, 51, 0.95))
    assert len(decode(probability).polygons) == 2
    assert len(decode(probability, box_threshold=0.7).polygons) == 1
    assert len(decode(probability, bin_threshold=0.7).polygons) == 1
    assert len(decode(probability, min_size=1).polygons) == 3
    assert len(decode(probability, min_size=11).polygons) == 0


def test_the_cap_keeps_the_best_wherever_they_lie() -> None:
    boxes = [(4 + 12 * i, 4 + 12 * j, 12 + 12 * i, 12 + 12 * j, 0.61 + 0.005 * (i + 10 * j)) for i in range(10) for j in range(7)]
    probability = painted(*boxes)
    everything, capped = decode(probability), decode(probability, max_candidates=5)
    assert len(everything.polygons) == 70
    assert (np.diff(everything.scores) <= 0).all()
    np.testing.assert_array_equal(capped.scores, everything.scores[:5])
    np.testing.assert_array_equal(capped.polygons, everything.polygons[:5])


def test_text_in_the_hole_of_other_text_is_found_and_the_hole_is_not() -> None:
    probability = painted((4, 4, 120, 90, 0.9), (14, 14, 110, 80, 0.0), (40, 40, 80, 50, 0.9))
    assert len(decode(probability, box_threshold=0.0).polygons) == 2


def test_regions_that_touch_at_corners_are_one() -> None:
    assert len(decode(painted((10, 10, 30, 30, 0.9), (31, 31, 50, 50, 0.9)), box_threshold=0.2).polygons) == 1


def test_rotated_boxes_keep_their_angle() -> None:
    drawn = cv2.boxPoints(((64, 48), (80, 20), 25))
    probability = cv2.fillPoly(np.zeros((96, 128), np.float32), [np.rint(drawn).astype(np.int32)], 0.9)
    (_, sides, _) = cv2.minAreaRect(decode(probability, unclip_ratio=0).polygons[0])
    assert max(sides) == pytest.approx(80, abs=2.5)
    assert min(sides) == pytest.approx(20, abs=2.5)


def test_polygons_follow_a_bent_word_where_boxes_cannot() -> None:
    probability = cv2.ellipse(np.zeros((96, 128), np.float32), (64, 90), (50, 60), 0, 200, 340, 0.9, 12)
    bent, box = decode(probability, polygons=True).polygons[0], decode(probability, box_threshold=0.1).polygons[0]
    assert len(bent) > 4
    assert len(box) == 4
    assert cv2.contourArea(bent) < 0.8 * cv2.contourArea(box)
    drawn = np.argwhere(probability > 0)[::17, ::-1]
    assert all(cv2.pointPolygonTest(bent, (float(x), float(y)), False) >= 0 for x, y in drawn)


def test_an_empty_map_gives_nothing_and_a_full_one_the_image() -> None:
    nothing = decode(np.zeros((32, 64), np.float32))
    assert nothing.polygons == []
    assert nothing.scores.shape == (0,)
    (everything,) = decode(np.ones((32, 64), np.float32)).polygons
    np.testing.assert_allclose(everything, [(0, 0), (64, 0), (64, 32), (0, 32)])
    assert decode(np.ones((32, 64), np.float32), bin_threshold=1.0).polygons == []


def test_images_of_a_batch_are_independent() -> None:
    first, second = painted((10, 10, 40, 20, 0.8)), painted((60, 40, 100, 60, 0.9))
    both = db_decode({"probability": np.stack([first, second])[:, None]}, [(96, 128), (192, 256)], Thresholds())
    np.testing.assert_array_equal(both[0].polygons, decode(first).polygons)
    np.testing.assert_array_equal(both[1].polygons, decode(second, (192, 256)).polygons)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(value: float) -> None:
    probability = painted((10, 10, 40, 20, 0.8))
    probability[90, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        decode(probability)


@pytest.mark.parametrize("value", [-1e-9, -0.0, 1.0000001])
def test_rounding_beyond_the_unit_range_is_tolerated(value: float) -> None:
    probability = painted((10, 10, 40, 20, 0.8))
    probability[90, 3] = value
    assert len(decode(probability).polygons) == 1


@pytest.mark.parametrize("shape", [(96, 128), (1, 96, 128), (1, 2, 96, 128), (2, 1, 96, 128)])
def test_maps_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        db_decode({"probability": np.zeros(shape, np.float32)}, [(96, 128)], Thresholds())


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_and_strides_are_fine(dtype: type) -> None:
    probability = np.asfortranarray(painted((10, 10, 40, 20, 0.75)).astype(dtype))
    np.testing.assert_allclose(decode(probability).scores, [0.75])


def test_noise_ends_soon_and_keeps_the_cap() -> None:
    noise = np.random.default_rng(0).random((160, 160), np.float32)
    assert len(decode(noise, bin_threshold=0.6, box_threshold=0, min_size=1, max_candidates=20).polygons) == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"bin_threshold": -0.1},
        {"bin_threshold": float("nan")},
        {"box_threshold": 1.1},
        {"unclip_ratio": -1},
        {"unclip_ratio": float("inf")},
        {"min_size": -1},
        {"max_candidates": 0},
    ],
)
def test_thresholds_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Thresholds(**wrong)
