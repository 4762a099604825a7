"""The search for thresholds: finds the best, prefers where it started."""

from __future__ import annotations

import numpy as np
import pytest

from compress.errors import CompressError
from compress.evaluation.icdar import evaluate
from compress.evaluation.tune import combinations, tune
from compress.models.db import Thresholds, db_decode

WORD = np.array([(20, 20), (80, 20), (80, 40), (20, 40)], np.float32)


def maps_with(word: float, clutter: float) -> dict[str, np.ndarray]:
    probability = np.zeros((1, 1, 96, 128), np.float32)
    probability[..., 26:35, 26:75] = word
    probability[..., 60:80, 30:100] = clutter
    return {"probability": probability}


def test_the_best_combination_is_found() -> None:
    outputs, sizes, truth = [maps_with(0.9, 0.65), maps_with(0.72, 0.55)], [(96, 128)] * 2, [([WORD], [False])] * 2
    tunable = {"box_threshold": (0.4, 0.5, 0.6, 0.7, 0.8), "unclip_ratio": (0.2, 1.0, 1.5, 2.0)}
    start = Thresholds(unclip_ratio=0.2)
    best, score = tune(outputs, sizes, truth, db_decode, start, tunable)
    assert best.box_threshold == 0.7
    assert best.unclip_ratio >= 1
    assert score.hmean == 1.0

    def reached(thresholds: Thresholds) -> float:
        found = [db_decode(maps, [size], thresholds)[0].polygons for maps, size in zip(outputs, sizes, strict=True)]
        return evaluate([(polygons, *words) for polygons, words in zip(found, truth, strict=True)]).hmean

    assert reached(best) == score.hmean == max(reached(candidate) for candidate in combinations(start, tunable))
    assert reached(start) < 1


def test_of_equals_the_nearest_to_the_start_is_taken() -> None:
    outputs, sizes, truth = [maps_with(0.9, 0.0)], [(96, 128)], [([WORD], [False])]
    tunable = {"bin_threshold": (0.2, 0.3, 0.4), "box_threshold": (0.4, 0.5, 0.6)}
    start = Thresholds(bin_threshold=0.35, box_threshold=0.45)
    assert tune(outputs, sizes, truth, db_decode, start, tunable)[0] == start
    nothing = tune([maps_with(0.0, 0.0)], sizes, truth, db_decode, start, tunable)
    assert nothing[0] == start
    assert nothing[1].hmean == 0


def test_all_combinations_once_and_nearest_first() -> None:
    start = Thresholds(bin_threshold=0.3, unclip_ratio=1.5)
    tried = combinations(start, {"bin_threshold": (0.2, 0.3, 0.4), "unclip_ratio": (1.0, 2.0)})
    assert tried[0] == start
    assert len(tried) == len({(item.bin_threshold, item.unclip_ratio) for item in tried}) == 9
    assert {item.box_threshold for item in tried} == {start.box_threshold}


def test_overrides_beside_data_are_refused_rather_than_ignored(tmp_path):
    from compress.assess import find_data

    with pytest.raises(CompressError, match=r"-o evaluate\.short_side=480 changes a recipe"):
        find_data(tmp_path, None, "icdar2015", tmp_path, ["evaluate.short_side=480"])
