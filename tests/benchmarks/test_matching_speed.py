"""Matching 500 images at once against loops over polygons that skip pairs whose bounding boxes are apart."""

from __future__ import annotations

import time

import numpy as np
import pytest
import shapely

from compress.evaluation.icdar import Scene, match_all


def images(each: int, strays: int) -> list[Scene]:
    """500 images of 12 words like ICDAR2015's, two thirds do-not-care, with `each` detections on a word and some elsewhere."""
    rng = np.random.default_rng(0)

    def quads(count: int) -> np.ndarray:
        sides = np.stack([rng.uniform(20, 120, count), rng.uniform(10, 35, count)], 1)
        angle = rng.normal(0, 0.15, count)
        local = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * sides[:, None] / 2
        turn = np.stack([np.stack([np.cos(angle), np.sin(angle)], 1), np.stack([-np.sin(angle), np.cos(angle)], 1)], 1)
        return np.rint(local @ turn + rng.uniform((0, 0), (1280, 720), (count, 1, 2)))

    made = []
    for _ in range(500):
        words = quads(12)
        detections = np.concatenate([np.repeat(words, each, 0) + rng.normal(0, 1.5, (12 * each, 4, 2)), quads(strays)])
        made.append((list(detections[rng.permutation(len(detections))]), list(words), list(rng.random(12) < 0.65)))
    return made


def plain_match(detections: list, polygons: list, ignore: list) -> tuple[int, int, int]:
    found = [shapely.Polygon(np.rint(polygon)) for polygon in detections]
    truth = [shapely.Polygon(polygon) for polygon in polygons]
    boxes, words = [shape.bounds for shape in found], [shape.bounds for shape in truth]

    def shared(i: int, j: int) -> float:
        (a, b, c, d), (e, f, g, h) = words[i], boxes[j]
        return truth[i].intersection(found[j]).area if a < g and e < c and b < h and f < d else 0.0

    hidden = [i for i, flag in enumerate(ignore) if flag]
    dropped = {j for j, shape in enumerate(found) if any(shared(i, j) > (0.5 + 1e-9) * shape.area for i in hidden)}
    taken: set[int] = set()
    for i, flag in enumerate(ignore):
        for j, shape in enumerate(found):
            if not flag and j not in dropped and j not in taken:
                area = shared(i, j)
                if area > (0.5 + 1e-9) * (shape.area + truth[i].area - area):
                    taken.add(j)
                    break
    return len(taken), len(found) - len(dropped), len(ignore) - len(hidden)


@pytest.mark.parametrize(("each", "strays"), [(1, 2), (3, 10)], ids=["usual", "crowded"])
def test_matching_is_many_times_faster_than_loops(each: int, strays: int) -> None:
    data = images(each, strays)
    start = time.perf_counter()
    expected = [plain_match(*image) for image in data]
    plain = time.perf_counter() - start
    times = []
    for _ in range(5):
        start = time.perf_counter()
        counts = match_all(data)
        times.append(time.perf_counter() - start)
    ours = min(times)
    np.testing.assert_array_equal(counts, expected)
    print(f"\nmatching 500 images, {12 * each + strays} detections each: {ours * 1e3:.0f} ms, plain {plain * 1e3:.0f} ms")
    assert ours < plain / 3
