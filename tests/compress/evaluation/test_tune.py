"""The search for decoding settings: finds the best, prefers where it started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from compress.errors import CompressError
from compress.models.contract import Algorithm, Sample, Words
from compress.models.registry import build
from compress.predictor import Predictor, combinations, tune
from compress.tasks.detection import DETECTION, EvaluateDetection

WORD = np.array([(20, 20), (80, 20), (80, 40), (20, 40)], np.float32)


def maps_with(word: float, clutter: float) -> np.ndarray:
    probability = np.zeros((1, 1, 96, 128), np.float32)
    probability[..., 26:35, 26:75] = word
    probability[..., 60:80, 30:100] = clutter
    return probability


def predictor(maps: Sequence[np.ndarray], tunable: dict[str, Any], **start: float) -> tuple[Predictor, list[Sample]]:
    """One that gives these maps, one after the other, whatever the images are, and as many images of one word each."""
    whole = build("db")
    algorithm = Algorithm(**{**vars(whole), "tunable": tunable})
    given = iter(maps)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"probability": np.concatenate([next(given) for _ in images])}

    samples = [Sample(str(n), np.zeros((96, 128, 3), np.uint8), Words([WORD], np.array([False]), ["w"])) for n in range(len(maps))]
    return Predictor(run, algorithm, EvaluateDetection(short_side=96, **start), {}, "plain", "fp32"), samples


def test_the_best_combination_is_found() -> None:
    maps = [maps_with(0.9, 0.65), maps_with(0.72, 0.55)]
    tunable = {"box_threshold": (0.4, 0.5, 0.6, 0.7, 0.8), "unclip_ratio": (0.2, 1.0, 1.5, 2.0)}
    best, scores = tune(*predictor(maps, tunable, unclip_ratio=0.2))
    assert best["box_threshold"] == 0.7
    assert best["unclip_ratio"] >= 1
    assert scores["hmean"] == 1.0

    decode = build("db").decode

    def reached(values: dict[str, float]) -> float:
        settings = build("db").settings(**values)
        pairs = [(decode({"probability": one}, [(96, 128)], settings)[0], Words([WORD], np.array([False]))) for one in maps]
        return DETECTION.judge(pairs, EvaluateDetection())["hmean"]

    start = {"box_threshold": 0.6, "unclip_ratio": 0.2}
    assert reached(best) == scores["hmean"] == max(reached(candidate) for candidate in combinations(start, tunable))
    assert reached(start) < 1


def test_of_equals_the_nearest_to_the_start_is_taken() -> None:
    tunable, start = {"bin_threshold": (0.2, 0.3, 0.4), "box_threshold": (0.4, 0.5, 0.6)}, {"bin_threshold": 0.35, "box_threshold": 0.45}
    assert tune(*predictor([maps_with(0.9, 0.0)], tunable, **start))[0] == start
    settings, scores = tune(*predictor([maps_with(0.0, 0.0)], tunable, **start))
    assert settings == start
    assert scores["hmean"] == 0


def test_all_combinations_once_and_nearest_first() -> None:
    start = {"bin_threshold": 0.3, "unclip_ratio": 1.5}
    tried = combinations(start, {"bin_threshold": (0.2, 0.3, 0.4), "unclip_ratio": (1.0, 2.0)})
    assert tried[0] == start
    assert len(tried) == len({tuple(item.values()) for item in tried}) == 9


def test_overrides_beside_data_are_refused_rather_than_ignored(tmp_path):
    from compress.assess import find_data

    with pytest.raises(CompressError, match=r"-o evaluate\.short_side=480 changes a recipe"):
        find_data(tmp_path, None, "icdar2015", tmp_path, ["evaluate.short_side=480"])
