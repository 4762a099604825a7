"""Label maps: sizes from the paper's formulas, brute-force distances, what is masked."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from compress.models.contract import Sample, Words
from compress.models.db import Thresholds, db, db_decode, db_targets
from compress.models.geometry import area, offset, perimeter, rectangles, short_side


def sample(polygons: list, ignore: list[bool] | None = None, size: tuple[int, int] = (160, 200)) -> Sample:
    arrays = [np.array(polygon, np.float32) for polygon in polygons]
    flags = np.array(ignore if ignore is not None else [False] * len(arrays), bool)
    return Sample("image", np.zeros((*size, 3), np.uint8), Words(arrays, flags))


def upright(left: float, top: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def rotated(centre: tuple[float, float], sides: tuple[float, float], angle: float) -> np.ndarray:
    return cv2.boxPoints((centre, sides, angle))


def test_maps_have_the_shapes_and_types_that_are_promised() -> None:
    maps = db_targets(sample([upright(20, 30, 100, 40)]))
    assert {name: (array.shape, array.dtype.name) for name, array in maps.items()} == {
        "shrink": ((1, 160, 200), "uint8"),
        "shrink_mask": ((1, 160, 200), "uint8"),
        "threshold": ((1, 160, 200), "float32"),
        "threshold_mask": ((1, 160, 200), "uint8"),
    }
    for name in ("shrink", "shrink_mask", "threshold_mask"):
        assert set(np.unique(maps[name])) <= {0, 1}


def test_a_rectangle_shrinks_by_equation_10() -> None:
    width, height = 100, 40
    distance = width * height * (1 - 0.4**2) / (2 * (width + height))  # 12 pixels
    maps = db_targets(sample([upright(20, 30, width, height)]))
    expected = np.zeros((160, 200), np.uint8)
    expected[round(30 + distance) : round(70 - distance) + 1, round(20 + distance) : round(120 - distance) + 1] = 1
    np.testing.assert_array_equal(maps["shrink"][0], expected)
    assert maps["shrink_mask"].all()


@pytest.mark.parametrize("angle", [0, 17, 45, -30])
@pytest.mark.parametrize("centre", [(100, 80), (12, 150), (199, 0)])
def test_threshold_map_is_the_distance_to_the_outline(angle: float, centre: tuple[float, float]) -> None:
    polygon = rotated(centre, (70, 30), angle)
    distance = 70 * 30 * (1 - 0.4**2) / (2 * (70 + 30))
    maps = db_targets(sample([polygon]))
    y, x = np.mgrid[:160, :200]
    far = np.full(x.shape, np.inf)
    for start, end in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        along = np.clip(((x - start[0]) * (end - start)[0] + (y - start[1]) * (end - start)[1]) / ((end - start) ** 2).sum(), 0, 1)
        far = np.minimum(far, np.hypot(x - start[0] - along * (end - start)[0], y - start[1] - along * (end - start)[1]))
    expected = 0.3 + 0.4 * np.clip(1 - far / distance, 0, 1)
    error = np.abs(maps["threshold"][0] - expected) * distance / 0.4
    assert error.max() < 1.5  # pixels: the outline is drawn in whole ones
    assert error[far < distance].mean() < 0.5
    inside = np.array([[cv2.pointPolygonTest(polygon, (float(u), float(v)), True) for u in range(200)] for v in range(160)])
    assert (maps["threshold_mask"][0][inside > -distance + 1] == 1).all()
    assert (maps["threshold_mask"][0][inside < -distance - 1] == 0).all()


def test_words_that_are_not_judged_are_masked_and_leave_no_other_trace() -> None:
    small = upright(150, 100, 30, 5)
    ignored = upright(20, 30, 100, 40)
    maps = db_targets(sample([ignored, small], [True, False]), min_size=8)
    assert not maps["shrink"].any()
    assert not maps["threshold_mask"].any()
    assert (maps["threshold"] == np.float32(0.3)).all()
    expected = np.ones((160, 200), np.uint8)
    expected[30:71, 20:121] = 0
    expected[100:106, 150:181] = 0
    np.testing.assert_array_equal(maps["shrink_mask"][0], expected)


def test_a_word_that_shrinks_to_nothing_is_masked() -> None:
    # Within one simple outline something is always left (Bonnesen's inequality); one that crosses itself has area 0.
    crossed = [(20, 20), (120, 60), (120, 20), (20, 60)]
    maps = db_targets(sample([crossed]))
    assert not maps["shrink"].any()
    assert not maps["threshold_mask"].any()
    assert maps["shrink_mask"][0, 40, 30] == maps["shrink_mask"][0, 40, 110] == 0
    assert maps["shrink_mask"][0, 100, 70] == 1


def test_a_do_not_care_word_hides_what_lies_under_it() -> None:
    maps = db_targets(sample([upright(20, 30, 100, 40), upright(60, 20, 30, 60)], [False, True]))
    assert maps["shrink"][0, 50, 75] == 1
    assert maps["shrink_mask"][0, 50, 75] == 0
    assert maps["shrink_mask"][0, 50, 40] == 1


def test_corner_count_and_orientation_do_not_matter() -> None:
    quad = upright(20, 30, 100, 40)
    with_middles = [point for a, b in zip(quad, quad[1:] + quad[:1], strict=True) for point in (a, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2))]
    expected = db_targets(sample([quad]))
    for other in (quad[::-1], quad[2:] + quad[:2], with_middles):
        for name, array in db_targets(sample([other])).items():
            np.testing.assert_array_equal(array, expected[name])


def test_words_beyond_the_edge_cost_nothing_and_crash_nothing() -> None:
    empty = db_targets(sample([]))
    for polygon in (upright(-500, -500, 100, 40), upright(5000, 50, 300, 90), upright(205, 10, 2, 30)):
        for name, array in db_targets(sample([polygon])).items():
            assert (array == empty[name]).all() or name.startswith("threshold")
    over_all = db_targets(sample([upright(-2000, -2000, 5000, 5000)]))
    assert over_all["shrink"].all()


def test_degenerate_polygons_are_masked_not_fatal() -> None:
    points = [[(50, 50)] * 4, [(10, 10), (100, 10), (50, 10)], [(20, 20), (120, 60), (120, 20), (20, 60)]]
    for polygon in points:
        maps = db_targets(sample([polygon]))
        assert all(np.isfinite(array).all() for array in maps.values())
        assert not db_targets(sample([polygon], [True]))["shrink"].any()


@pytest.mark.parametrize("aspect", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("polygons", [False, True])
def test_shrunk_words_decode_to_the_words(aspect: float, polygons: bool) -> None:
    height = 60.0
    width = height * aspect
    words = [
        rotated((300, 120), (width, height), 12),
        rotated((400, 330), (width, height), -25),
        rotated((250, 560), (width, height), 0),
    ]
    maps = db_targets(sample(words, size=(700, 800)))
    distance = width * height * (1 - 0.4**2) / (2 * (width + height))
    inner_width, inner_height = width - 2 * distance, height - 2 * distance
    ratio = distance * 2 * (inner_width + inner_height) / (inner_width * inner_height)
    probability = maps["shrink"][None].astype(np.float32)
    (found,) = db_decode({"probability": probability}, [(700, 800)], Thresholds(unclip_ratio=ratio, polygons=polygons))
    assert len(found.polygons) == len(words)
    for word in words:
        assert max(overlap(word, polygon) for polygon in found.polygons) > 0.8


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU by counting pixels."""
    first, second = (cv2.fillPoly(np.zeros((700, 800), np.uint8), [np.rint(polygon).astype(np.int32)], 1) for polygon in (a, b))
    return (first & second).sum() / (first | second).sum()


def test_targets_and_decode_travel_to_worker_processes() -> None:
    algorithm = db(shrink_ratio=0.5)
    targets, decode = pickle.loads(pickle.dumps((algorithm.targets, algorithm.decode)))
    word = sample([upright(20, 30, 100, 40)])
    np.testing.assert_array_equal(targets(word)["shrink"], db_targets(word, shrink_ratio=0.5)["shrink"])
    assert decode is db_decode


def test_area_and_perimeter_of_known_shapes() -> None:
    triangle = np.array([(0, 0), (30, 0), (0, 40)], float) + 1000
    assert area(triangle) == area(triangle[::-1]) == pytest.approx(600)
    assert perimeter(triangle) == pytest.approx(120)
    assert short_side(np.array(upright(5, 5, 40, 7))) == pytest.approx(7, abs=1e-3)


def test_offset_grows_with_round_corners_and_shrinks_to_nothing() -> None:
    square = np.array(upright(10, 10, 20, 20), float)
    (grown,) = offset(square, 5)
    assert area(grown) == pytest.approx(400 + 4 * 20 * 5 + np.pi * 25, rel=0.02)
    assert offset(square, -11) == []
    dumbbell = np.array(
        [(0, 0), (20, 0), (20, 8), (60, 8), (60, 0), (90, 0), (90, 20), (60, 20), (60, 12), (20, 12), (20, 20), (0, 20)], float
    )
    parts = offset(dumbbell, -3)
    assert [area(part) for part in parts] == pytest.approx([24 * 14, 14 * 14], abs=3)


def test_rectangles_are_opencvs_and_begin_at_the_top_left() -> None:
    rng = np.random.default_rng(0)
    centres, sides, angles = rng.uniform(50, 90, (200, 2)), rng.uniform(5, 60, (200, 2)), rng.uniform(-90, 180, 200)
    corners = rectangles(centres, sides, angles)
    assert (corners.sum(2).argmin(1) == 0).all()
    for centre, side, angle, ours in zip(centres, sides, angles, corners, strict=True):
        theirs = cv2.boxPoints((tuple(centre), tuple(side), float(angle)))
        assert all(np.hypot(*(theirs - corner).T).min() < 1e-3 for corner in ours)
        (ax, ay), (bx, by) = ours[1] - ours[0], ours[2] - ours[1]
        assert ax * by - ay * bx > 0  # clockwise where y points down
