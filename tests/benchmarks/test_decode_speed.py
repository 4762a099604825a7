"""Decoding of probability maps against the plain way: every contour scored and grown by the clipper, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import pyclipper

from models.db import Thresholds, db_decode

SIZE = (736, 1312)


def crowded_map(words: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    probability = rng.random(SIZE, np.float32) * 0.1
    for index in range(words):
        centre = (130 + index % 5 * 260 + rng.uniform(-20, 20), 90 + index // 5 * 180 + rng.uniform(-20, 20))
        rectangle = (centre, (rng.uniform(40, 140), rng.uniform(8, 25)), rng.uniform(-20, 20))
        cv2.fillPoly(probability, [cv2.boxPoints(rectangle).astype(np.int32)], 0.9)
    return probability[None, None]


def plain_decode(probability: np.ndarray, thresholds: Thresholds) -> list[tuple[np.ndarray, float]]:
    """The published post-processing, written out."""
    height, width = probability.shape
    contours, _ = cv2.findContours((probability > thresholds.bin_threshold).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours[: thresholds.max_candidates]:
        rectangle = cv2.minAreaRect(contour)
        if min(rectangle[1]) < thresholds.min_size:
            continue
        box = cv2.boxPoints(rectangle)
        left, top = np.clip(np.floor(box.min(0)).astype(int), 0, (width - 1, height - 1))
        right, bottom = np.clip(np.ceil(box.max(0)).astype(int), 0, (width - 1, height - 1))
        mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
        cv2.fillPoly(mask, [(box - (left, top)).astype(np.int32)], 1)
        score = cv2.mean(probability[top : bottom + 1, left : right + 1], mask)[0]
        if score < thresholds.box_threshold:
            continue
        distance = cv2.contourArea(box) * thresholds.unclip_ratio / cv2.arcLength(box, True)
        clipper = pyclipper.PyclipperOffset()
        clipper.AddPath(box.astype(int).tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
        grown = np.array(clipper.Execute(distance)[0], np.float32)
        corners = cv2.boxPoints(cv2.minAreaRect(grown))
        found.append((np.clip(corners, 0, (width, height)), score))
    return found


def best_ms(*works: Callable[[], object], rounds: int = 30) -> list[float]:
    """Fastest round of each, in milliseconds; rounds alternate, so that a busy machine slows all alike."""
    times = []
    for _ in range(rounds):
        row = []
        for work in works:
            start = time.perf_counter()
            work()
            row.append(time.perf_counter() - start)
        times.append(row)
    return (np.min(times, 0) * 1e3).tolist()


def test_decoding_is_faster_than_the_plain_way() -> None:
    maps, thresholds = crowded_map(), Thresholds()
    assert len(plain_decode(maps[0, 0], thresholds)) == len(db_decode({"probability": maps}, [SIZE], thresholds)[0].polygons) == 20
    plain, ours = best_ms(lambda: plain_decode(maps[0, 0], thresholds), lambda: db_decode({"probability": maps}, [SIZE], thresholds))
    print(f"\ndecoding 736x1312, 20 words: {ours:.2f} ms, plain {plain:.2f} ms, {plain / ours:.1f} times faster")
    assert ours < plain
