"""Decoding of DB's maps against the plain way, every contour scored and grown by the clipper; of other detectors' against DB's."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import pyclipper
import pytest

from compress.models import pan, psenet, sast
from compress.models.contract import Sample, Words
from compress.models.db import Thresholds, db_decode

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


def two_rows(touching: bool) -> Sample:
    """20 words in two rows."""
    rng = np.random.default_rng(0)
    places = [(130 + i % 10 * 112, 150 + i // 10 * (30 if touching else 180)) for i in range(20)]
    words = [cv2.boxPoints((place, (rng.uniform(90, 110), 30), 0)) for place in places]
    return Sample("image", np.zeros((*SIZE, 3), np.uint8), Words(words, np.zeros(20, bool)))


def sast_maps(touching: bool) -> dict[str, np.ndarray]:
    """SAST's maps of 20 words, with noise: a few hundredths of probability, and half a pixel of the maps in every offset."""
    rng = np.random.default_rng(0)
    labels = sast.sast_targets(two_rows(touching))
    maps = {name: labels[name][None] + rng.normal(0, 0.5, labels[name].shape).astype(np.float32) for name in ("border", "tvo", "tco")}
    return {"score": 0.97 * labels["score"][None] + 0.02 * rng.random(labels["score"].shape, np.float32), **maps}


def kernel_maps(touching: bool, stride: int = 4) -> np.ndarray:
    """PSENet's seven maps of 20 words, with noise: (1, 7, h, w). Words stand in two rows; the text of `touching` ones is one region."""
    rng = np.random.default_rng(0)
    kernels = psenet.pse_targets(two_rows(touching))["kernels"].astype(np.float32)
    size = SIZE[1] // stride, SIZE[0] // stride
    maps = np.stack([cv2.resize(kernel, size, interpolation=cv2.INTER_AREA) for kernel in kernels])
    return (0.97 * maps + 0.02 * rng.random(maps.shape, np.float32))[None]


@pytest.mark.parametrize("touching", [False, True])
def test_regions_decode_in_at_most_three_times_the_time_of_db(touching: bool) -> None:
    kernels, probability, offsets = kernel_maps(touching), crowded_map(), sast_maps(touching)
    apart = np.zeros((1, 4, *kernels.shape[2:]), np.float32)
    aggregated = {"text": kernels[:, -1:], "kernel": kernels[:, 1:2], "similarity": apart}

    def of_psenet() -> list:
        return psenet.pse_decode({"kernels": kernels}, [SIZE], psenet.Thresholds(score_threshold=0.8))[0].polygons

    def of_pan() -> list:
        return pan.pan_decode(aggregated, [SIZE], pan.Thresholds(score_threshold=0.8))[0].polygons

    def of_sast() -> list:
        return sast.sast_decode(offsets, [SIZE], sast.Thresholds())[0].polygons

    assert len(of_psenet()) == len(of_pan()) == len(of_sast()) == 20
    works = (lambda: db_decode({"probability": probability}, [SIZE], Thresholds()), of_psenet, of_pan, of_sast)
    base, pse, aggregation, assignment = best_ms(*works)
    print(
        f"\ndecoding 736x1312, 20 words, {'touching' if touching else 'apart'}: DB {base:.2f} ms, "
        f"PSENet {pse:.2f} ms ({pse / base:.2f}), PAN {aggregation:.2f} ms ({aggregation / base:.2f}), "
        f"SAST {assignment:.2f} ms ({assignment / base:.2f})"
    )
    assert pse < 3 * base
    assert aggregation < 3 * base
    assert assignment < 3 * base
