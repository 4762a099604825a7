"""The search for decoding settings: finds the best, prefers where it started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compress.data.formats import from_options
from compress.errors import CompressError
from compress.models.contract import Algorithm, Sample, Words
from compress.models.registry import build
from compress.predictor import Predictor, combinations, tune
from compress.recipe import changed
from compress.report.evaluation import evaluation_text
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


def test_overrides_beside_data_change_the_data_and_how_images_are_shown(tmp_path):
    (tmp_path / "train_images").mkdir()
    data, model = from_options("icdar2015", tmp_path), build("db")
    overrides = ["evaluate.short_side=480", "evaluate.box_threshold=0.9", "data.damaged=skip"]
    found, evaluate = changed(data, EvaluateDetection(short_side=96, bin_threshold=0.4), model, overrides)
    assert (evaluate.short_side, evaluate.settings(model).bin_threshold, evaluate.settings(model).box_threshold) == (480, 0.4, 0.9)
    assert found == data.model_copy(update={"damaged": "skip"})
    assert changed(data, EvaluateDetection(), model, []) == (data, EvaluateDetection())


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stages.a.epochs=1", "-o stages.a.epochs=1: beside --data, `data` and `evaluate` alone can be changed"),
        ("evaluate.short_sid=480", "evaluate.short_sid"),
        ("evaluate.short_side=small", "evaluate.short_side"),
        ("data.rot=elsewhere", "data.rot"),
    ],
)
def test_overrides_beside_data_that_change_nothing_are_refused(tmp_path, override, told):
    with pytest.raises(CompressError) as refused:
        changed(from_options("icdar2015", tmp_path), EvaluateDetection(), build("db"), [override])
    assert told in str(refused.value)


def test_settings_tuned_on_images_of_another_size_are_refused() -> None:
    tuned = {"settings": {"box_threshold": 0.9}, "shown": EvaluateDetection(short_side=96).how_shown(), "val_score": 1.0}
    found, samples = predictor([maps_with(0.8, 0.0)] * 2, {})
    found = replace(found, tuned=tuned)
    assert found.predict(samples[0].image).polygons == []  # 0.8 is below the tuned threshold
    for section in (EvaluateDetection(short_side=96, protocol="deteval"), EvaluateDetection(short_side=96, bin_threshold=0.4)):
        assert section.with_tuned(tuned).settings(build("db")).box_threshold == 0.9
    other = replace(found, evaluate=EvaluateDetection(short_side=64))
    with pytest.raises(CompressError, match=r"tuned with short_side 96, and images are shown with short_side 64 here; tune them again"):
        other.predict(samples[0].image)
    assert EvaluateDetection(short_side=64).with_tuned({}) == EvaluateDetection(short_side=64)


def test_an_evaluation_leaves_settings_out_that_were_tuned_at_another_size(tmp_path, monkeypatch, caplog) -> None:
    from compress import assess

    found, _ = predictor([maps_with(0.8, 0.0)] * 40, {"box_threshold": (0.5, 0.7)})
    stored = []
    monkeypatch.setattr(assess, "open_predictor", lambda *_, **__: replace(found, tuned=stored[-1] if stored else {}))
    monkeypatch.setattr(assess, "save_tuned", lambda _folder, tuned: stored.append(tuned))
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        "model: {name: db}\ndata: {format: synthetic, train: 2, val: 2, test: 2, size: 96}\nevaluate: {short_side: 96}\n"
        "stages: [{train: {name: a, epochs: 1}}]\n"
    )
    tuned = assess.assess(tmp_path, recipe=recipe, tune=True)
    assert tuned["tuned"]["val_score"] == stored[0]["val_score"]
    told = f"The tuned settings are written to {tmp_path / 'tuned.json'}; they hold for images shown with short_side 96 alone."
    assert evaluation_text(tuned).splitlines()[-1] == told
    assert stored[0]["shown"] == {"short_side": 96}
    assert assess.assess(tmp_path, recipe=recipe)["tuned"]["settings"]["short_side"] == 96
    assert not caplog.messages
    assert assess.assess(tmp_path, recipe=recipe, overrides=["evaluate.short_side=64"])["tuned"] is None
    assert "tuned with short_side 96" in caplog.text
