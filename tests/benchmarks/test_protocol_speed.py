"""Polygon IoU, DetEval and CLEval over a split at once, against loops over all pairs of polygons."""

from __future__ import annotations

import time

import numpy as np
import pytest
from plain_protocols import arc, box, plain_cleval, plain_deteval, plain_polygon_iou

from compress.evaluation import cleval, deteval, icdar
from compress.evaluation.overlaps import overlaps

IMAGES = 40


def images() -> list:
    """Twelve words each, five of them curved, a third do-not-care; most found once, some in two pieces, together or
    too wide; a few detections astray."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(IMAGES):
        words, found = [], []
        for index in range(12):
            where = np.array([index % 4 * 310 + 90, index // 4 * 230 + 90]) + rng.uniform(-20, 20, 2)
            size = rng.uniform(20, 70, 2)
            word = np.rint(box(*where, 3 * size[0], size[1]) if index % 2 or index == 6 else arc(tuple(where), size[0], size[1] / 2))
            words.append(word)
            (left, top), (right, bottom) = word.min(0), word.max(0)
            if index % 3:
                found.append(word + rng.normal(0, 1.5, word.shape))
            elif index % 2:
                middle = rng.uniform(left, right)
                found += [box(left, top, middle - left - 1, bottom - top), box(middle, top, right - middle, bottom - top)]
            else:
                found.append(box(left - 3, top - 3, 500 if index else 1.4 * (right - left), bottom - top + 6))
        found += [box(*rng.uniform(0, (1200, 700)), *rng.uniform(20, 80, 2)) for _ in range(4)]
        made.append((found, words, list(rng.random(12) < 0.33), ["word" * int(rng.integers(1, 4)) for _ in words]))
    return made


def judged(judge) -> list:
    return lambda data: [judge(seen, image) for seen, image in zip(overlaps(data), data, strict=True)]


CASES = {
    "polygon_iou": (lambda data: icdar.match_all(data, whole_pixels=False), lambda image: plain_polygon_iou(*image[:3]), 3),
    "deteval": (judged(lambda seen, _image: deteval.judge(seen)), lambda image: plain_deteval(*image[:3]), 3),
    "cleval": (judged(cleval.judge), lambda image: plain_cleval(*image), 2),
}


@pytest.mark.parametrize("protocol", CASES)
def test_a_split_is_judged_many_times_faster_than_by_loops(protocol: str) -> None:
    whole, plain, ratio = CASES[protocol]
    data = images()
    start = time.perf_counter()
    expected = [plain(image) for image in data]
    slow = time.perf_counter() - start
    times = []
    for _ in range(5):
        start = time.perf_counter()
        found = whole(data)
        times.append(time.perf_counter() - start)
    fast = min(times)
    np.testing.assert_allclose(np.array(found, float), np.array(expected, float), atol=1e-9)
    assert np.sum(expected, 0).min() > 0
    print(f"\n{protocol}, {IMAGES} images: {fast * 1e3:.1f} ms, plain {slow * 1e3:.0f} ms, {slow / fast:.1f} times faster")
    assert fast < slow / ratio
