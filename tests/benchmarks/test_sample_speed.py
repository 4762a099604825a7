"""One training sample at crop 640 from a 720 x 1280 image with 12 words, against doing each step on the whole image."""

from __future__ import annotations

import statistics
import time

import cv2
import numpy as np
import pytest

from compress.data.detection.augment import Augment
from compress.data.split import Annotation, Split
from compress.data.training import TrainingSet
from compress.models.contract import Sample, Words
from compress.models.registry import build

CROP = 640


@pytest.fixture(autouse=True)
def one_thread():
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def scene() -> Sample:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (45, 80, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (1280, 720), interpolation=cv2.INTER_CUBIC)
    polygons = []
    for number in range(12):
        left, top = 40 + 300 * (number % 4), 60 + 220 * (number // 4)
        polygons.append(np.array([(left, top), (left + 110, top + 8), (left + 108, top + 42), (left - 2, top + 34)], np.float32))
    return Sample("scene", image, Words(polygons, np.zeros(12, bool), ["word"] * 12))


def plain_sample(sample: Sample, config: Augment, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Colours, scale, rotation and crop one after another on the whole image, and each word's label on the whole crop."""
    saturation, brightness = 1 + rng.uniform(-0.5, 0.5), 1 + rng.uniform(-0.125, 0.125)
    image = sample.image.astype(np.float32)
    grey = (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    image = (brightness * (saturation * image + (1 - saturation) * grey)).clip(0, 255).astype(np.uint8)
    scale = max(config.scales[rng.integers(len(config.scales))], config.cover * CROP / 720)
    image = cv2.resize(image, None, fx=scale, fy=scale)
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-10, 10), 1.0)
    image = cv2.warpAffine(image, matrix, (width, height))
    polygons = [polygon * scale @ matrix[:, :2].T + matrix[:, 2] for polygon in sample.truth.polygons]
    if rng.random() < 0.5:
        image = image[:, ::-1]
        polygons = [polygon * (-1, 1) + (width - 1, 0) for polygon in polygons]
    corner = rng.integers(0, (width - CROP + 1, height - CROP + 1))
    image = np.ascontiguousarray(image[corner[1] : corner[1] + CROP, corner[0] : corner[0] + CROP])
    polygons = [polygon - corner for polygon in polygons]
    return {"image": image, **plain_targets([p for p in polygons if (p.max(0) > 0).all() and (p.min(0) < CROP).all()])}


def plain_targets(polygons: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The distance of every pixel to every side, as the formula of the threshold map is written."""
    y, x = np.mgrid[0:CROP, 0:CROP].astype(np.float32)
    shrink = np.zeros((CROP, CROP), np.float32)
    threshold = np.zeros((CROP, CROP), np.float32)
    for polygon in polygons:
        area, perimeter = cv2.contourArea(polygon.astype(np.float32)), cv2.arcLength(polygon.astype(np.float32), True)
        reach = area * (1 - 0.4**2) / perimeter
        nearest = np.full((CROP, CROP), np.inf, np.float32)
        for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            side = end - start
            along = (((x - start[0]) * side[0] + (y - start[1]) * side[1]) / (side @ side)).clip(0, 1)
            nearest = np.minimum(nearest, np.hypot(x - start[0] - along * side[0], y - start[1] - along * side[1]))
        threshold = np.maximum(threshold, 1 - (nearest / reach).clip(0, 1))
        inside = cv2.fillPoly(np.zeros((CROP, CROP), np.uint8), [polygon.round().astype(np.int32)], 1)
        shrink[(inside == 1) & (nearest > reach)] = 1
    return {"shrink": shrink, "threshold": threshold * 0.4 + 0.3}


def milliseconds(make, count: int) -> list[float]:
    times = []
    for index in range(count):
        start = time.perf_counter()
        make(index)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def test_a_training_sample(capsys):
    sample = scene()
    config = Augment()
    split = Split("train", [Annotation("scene", sample.truth)], lambda _: sample.image, "")
    data = TrainingSet(split, build("db"), config, (CROP, CROP), 0)
    milliseconds(lambda index: data[index, 0], 4)
    views, samples, plain = [], [], []
    for part in range(4):  # interleaved, so that a busy moment of the machine is shared
        views += milliseconds(lambda index, part=part: data.view(10 * part + index, 0), 10)
        samples += milliseconds(lambda index, part=part: data[10 * part + index, 0], 10)
        plain += milliseconds(lambda index, part=part: plain_sample(sample, config, np.random.default_rng((part, index))), 2)
    view, ours, theirs = statistics.median(views), statistics.median(samples), statistics.median(plain)
    with capsys.disabled():
        print(f"\ntraining sample, crop {CROP}: {ours:.1f} ms, of which view {view:.1f} ms; step by step {theirs:.1f} ms")
    assert ours * 4 < theirs
