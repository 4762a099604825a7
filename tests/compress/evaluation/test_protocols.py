"""Polygon IoU, DetEval and CLEval: examples worked by hand, and plain loops with shapely on random images."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from dataclasses import asdict
from typing import get_args

import numpy as np
import pytest
import shapely
from plain_protocols import arc, box, plain_cleval, plain_deteval, plain_polygon_iou, random_images

from compress.errors import CompressError
from compress.evaluation import cleval, deteval, icdar
from compress.evaluation.icdar import Scene, Score
from compress.evaluation.protocols import PROTOCOLS
from compress.models.registry import build
from compress.tasks.detection import EvaluateDetection as Evaluate
from compress.tasks.detection import Protocol


def evaluate(images: Iterable[Scene], protocol: str = "icdar2015") -> Score:
    return PROTOCOLS[protocol](list(images))


def hmean(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_every_protocol_that_a_recipe_can_name_is_there() -> None:

    assert tuple(PROTOCOLS) == get_args(Protocol)
    assert Evaluate().protocol == "icdar2015"
    word = box(0, 0, 40, 10)
    for name in PROTOCOLS:
        assert evaluate([], name) == Score(0, 0, 0, 0, 0, 0)
        score = evaluate(iter([([word], [word], [False], ["word"])]), name)
        assert (score.precision, score.recall, score.hmean) == (1, 1, 1)
        assert evaluate([([], [word], [False], ["word"])], name).hmean == 0
        assert evaluate([([word], [word], [True], ["word"])], name).detected == 0


def test_the_default_stays_as_it_was() -> None:
    images = random_images(50, seed=5)
    assert evaluate(images) == icdar.evaluate([image[:3] for image in images])


# The `evaluate` section


def test_a_table_tells_all_that_a_score_depends_on() -> None:
    algorithm = build({"name": "db"})
    chosen = Evaluate(short_side=320, protocol="deteval", box_threshold=0.5)
    assert Evaluate(**chosen.model_dump()) == chosen
    reported = chosen.reported(algorithm)
    assert reported == {"short_side": 320, "protocol": "deteval", **asdict(algorithm.settings(box_threshold=0.5))}
    assert Evaluate().reported(algorithm)["protocol"] == "icdar2015"
    assert chosen.with_settings({"box_threshold": 0.7}) == Evaluate(short_side=320, protocol="deteval", box_threshold=0.7)
    with pytest.raises(CompressError, match="did you mean 'protocol'"):
        Evaluate(protokol="cleval").settings(algorithm)
    with pytest.raises(ValueError, match="protocol"):
        Evaluate(protocol="deteval2")


# Polygon IoU


def test_polygon_iou_takes_corners_as_they_are() -> None:
    word = box(10, 10, 60, 20)
    just = box(29.6, 10, 60, 20)  # IoU 0.507; rounded, it is the half that does not match
    assert evaluate([([just], [word], [False], [""])], "polygon_iou").matched == 1
    assert evaluate([([just], [word], [False], [""])], "icdar2015").matched == 0
    word, half = arc((50, 50), 30, 12, corners=10), arc((50, 50), 30, 6, corners=10)
    assert evaluate([([arc((52, 50), 30, 12, 10)], [word], [False], [""])], "polygon_iou").matched == 1
    assert evaluate([([half], [word], [False], [""])], "polygon_iou").matched == 0
    bounding = box(*word.min(0), *(word.max(0) - word.min(0)))
    assert evaluate([([bounding], [word], [False], [""])], "polygon_iou").matched == 0


def test_polygon_iou_is_what_loops_find() -> None:
    images = random_images(150, seed=0)
    matched, detected, words = np.sum([plain_polygon_iou(*image[:3]) for image in images], axis=0)
    score = evaluate(images, "polygon_iou")
    assert (score.matched, score.detected, score.words) == (matched, detected, words)
    assert 50 < matched < detected


# DetEval


def credit(found: list, words: list, ignore: list | None = None) -> tuple[float, float, int, int]:
    image = (found, words, ignore or [False] * len(words))
    (seen,) = deteval.overlaps([image])
    return deteval.judge(seen)


def test_deteval_by_hand() -> None:
    word = box(0, 0, 100, 20)
    assert credit([word], [word]) == (1, 1, 1, 1)
    assert credit([box(0, 0, 80, 20)], [word]) == (1, 1, 1, 1)  # area recall exactly 0.8
    assert credit([box(0, 0, 79, 20)], [word]) == (0, 0, 1, 1)
    assert credit([box(0, 0, 100, 50)], [word]) == (1, 1, 1, 1)  # area precision exactly 0.4
    assert credit([box(0, 0, 100, 51)], [word]) == (0, 0, 1, 1)
    # In two pieces: 0.8 for the word, 0.8 for each piece.
    assert credit([box(0, 0, 50, 20), box(50, 0, 50, 20)], [word]) == (0.8, 1.6, 2, 1)
    assert credit([box(0, 0, 50, 20), box(70, 0, 30, 20)], [word]) == pytest.approx((0.8, 1.6, 2, 1))  # together exactly 0.8
    assert credit([box(0, 0, 50, 20), box(71, 0, 29, 20)], [word]) == (0, 0, 2, 1)
    # Two words in one detection: both found, one detection right.
    assert credit([box(0, 0, 100, 20)], [box(0, 0, 40, 20), box(60, 0, 40, 20)]) == (2, 1, 1, 2)
    # A second detection that touches the word: no one-to-one, but one piece suffices.
    assert credit([word, box(90, 0, 100, 20)], [word]) == (1, 1, 2, 1)


def test_deteval_leaves_out_what_is_not_to_be_judged() -> None:
    word, other = box(0, 0, 100, 20), box(200, 0, 100, 20)
    assert credit([word, other], [word, other], [False, True]) == (1, 1, 1, 1)
    assert credit([box(200, 0, 250, 20)], [other], [True]) == (0, 0, 1, 0)  # exactly 0.4 of it on the do-not-care word
    assert credit([box(200, 0, 249, 20)], [other], [True]) == (0, 0, 0, 0)
    assert credit([], [other], [True]) == (0, 0, 0, 0)
    # A do-not-care word within a detection is not one of those that it finds together.
    assert credit([box(0, 0, 100, 20)], [box(0, 0, 70, 20), box(70, 0, 30, 20)], [False, True]) == (1, 1, 1, 1)


def test_deteval_is_what_the_scripts_loops_find() -> None:
    images = random_images(60, seed=1)
    expected = np.array([plain_deteval(*image[:3]) for image in images])
    found = np.array([deteval.judge(seen) for seen in deteval.overlaps(images)])
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (found[:, 0] != found[:, 1]).sum() > 5  # words in pieces, and words found together
    score = evaluate(images, "deteval")
    recall, precision = expected[:, 0].sum() / expected[:, 3].sum(), expected[:, 1].sum() / expected[:, 2].sum()
    assert (score.recall, score.precision) == pytest.approx((recall, precision))
    assert score.hmean == pytest.approx(hmean(precision, recall))


# CLEval


def characters(found: list, words: list, texts: list, ignore: list | None = None) -> tuple[int, int, int, int, int]:
    image = (found, words, ignore or [False] * len(words), texts)
    return cleval.judge(*deteval.overlaps([image]), image)


def test_pseudo_character_centers() -> None:
    np.testing.assert_allclose(cleval.centres(box(0, 0, 40, 10), 4), [(5, 5), (15, 5), (25, 5), (35, 5)])
    np.testing.assert_allclose(cleval.centres(box(0, 0, 10, 40), 2), [(5, 10), (5, 30)])  # upright: read downwards
    bent = np.array([(0, 0), (10, 10), (20, 0), (20, 4), (10, 14), (0, 4)], float)
    np.testing.assert_allclose(cleval.centres(bent, 2), [(5, 7), (15, 7)])
    np.testing.assert_allclose(cleval.centres(bent, 1), [(10, 2)])
    on_arc = cleval.centres(arc((0, 0), 100, 20, corners=60), 7)
    np.testing.assert_allclose(np.linalg.norm(on_arc, axis=1), 110, atol=3)


def test_cleval_by_hand() -> None:
    word = box(0, 0, 50, 10)  # five characters, at 5, 15, 25, 35, 45
    assert characters([word], [word], ["hello"]) == (5, 0, 0, 5, 5)
    assert characters([box(0, 0, 30, 10)], [word], ["hello"]) == (3, 0, 0, 3, 5)
    # Found in two pieces: all characters, one cut.
    assert characters([box(0, 0, 20, 10), box(20, 0, 30, 10)], [word], ["hello"]) == (5, 1, 0, 5, 5)
    # Pieces that overlap: the third character is detected twice and right once.
    assert characters([box(0, 0, 30, 10), box(20, 0, 30, 10)], [word], ["hello"]) == (5, 1, 0, 6, 5)
    # Two words in one detection: one join.
    other = box(60, 0, 30, 10)
    assert characters([box(0, 0, 90, 10)], [word, other], ["hello", "you"]) == (8, 0, 1, 8, 8)
    # Nothing there: a detection three times as long as wide seems to have three characters, one of any length ten at most.
    assert characters([box(200, 0, 30, 10)], [word], ["hello"]) == (0, 0, 0, 3, 5)
    assert characters([box(200, 0, 900, 10)], [], []) == (0, 0, 0, 10, 0)
    # Too wide to be of the word: area precision below 0.3.
    assert characters([box(0, 0, 50, 40)], [word], ["hello"]) == (0, 0, 0, 2, 5)
    score = evaluate([([box(0, 0, 20, 10), box(20, 0, 30, 10)], [word], [False], ["hello"])], "cleval")
    assert (score.recall, score.precision) == (4 / 5, 5 / 5)


def test_cleval_and_do_not_care() -> None:
    word, hidden = box(0, 0, 50, 10), box(100, 0, 50, 10)
    assert characters([hidden], [word, hidden], ["hello", "###"], [False, True]) == (0, 0, 0, 0, 5)
    # A do-not-care region around a word ends where the word begins.
    around = box(-5, -5, 60, 20)
    assert characters([word], [word, around], ["hello", "###"], [False, True]) == (5, 0, 0, 5, 5)
    assert characters([box(100, 0, 50, 34)], [hidden], ["###"], [True])[3] == 2  # 0.29 of it on the do-not-care word
    assert characters([box(100, 0, 50, 33)], [hidden], ["###"], [True])[3] == 0
    with pytest.raises(CompressError, match="transcription"):
        evaluate([([word], [word], [False])], "cleval")


def test_cleval_is_what_its_steps_give() -> None:
    images = random_images(100, seed=2)
    expected = np.array([plain_cleval(*image) for image in images])
    found = [cleval.judge(seen, image) for seen, image in zip(deteval.overlaps(images), images, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert (expected.sum(0) > 20).all()
    characters_found, cuts, joins, detected, there = expected.sum(0)
    score = evaluate(images, "cleval")
    assert score.recall == pytest.approx((characters_found - cuts) / there)
    assert score.precision == pytest.approx((characters_found - joins) / detected)


def test_a_better_detection_is_never_worth_less() -> None:
    """Shrinking the one detection of a word lowers no protocol's score below that of a smaller one."""
    word = arc((100, 100), 60, 24, corners=8)
    middle = shapely.Polygon(word)
    for name in PROTOCOLS:
        found = [np.array(middle.buffer(-cut).exterior.coords)[:-1] for cut in (0, 2, 5, 9, 11)]
        scores = [evaluate([([polygon], [word], [False], ["curved"])], name).hmean for polygon in found]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_do_not_depend_on_how_many_images_are_looked_at_together(protocol, monkeypatch):
    rng = np.random.default_rng(0)

    def boxes(count: int) -> list[np.ndarray]:
        corners = rng.uniform(0, 60, (count, 2))
        return [np.array([(x, y), (x + 20, y), (x + 20, y + 9), (x, y + 9)], np.float32) for x, y in corners]

    scenes = [(boxes(found), boxes(words), [bool(n % 3 == 0) for n in range(words)], ["word"] * words) for found, words in COUNTS]
    together = PROTOCOLS[protocol](scenes)
    for pairs in (1, 20, 47):
        monkeypatch.setattr(icdar, "PAIRS", pairs)
        assert PROTOCOLS[protocol](scenes) == together
        parts = list(icdar.in_parts(scenes))
        assert [scene for part in parts for scene in part] == scenes
        assert all(len(part) == 1 or sum(len(scene[0]) * len(scene[1]) for scene in part) <= pairs for part in parts)


COUNTS = [(0, 0), (5, 7), (0, 4), (6, 6), (3, 0), (9, 5), (1, 1)]


@pytest.mark.parametrize("protocol", ["icdar2015", "deteval"])
def test_many_full_pages_are_scored_in_little_memory(protocol):
    def page(shift: int) -> list[np.ndarray]:
        return [
            np.array([(x, y), (x + 30, y), (x + 30, y + 9), (x, y + 9)], np.float32) + shift
            for x in range(0, 800, 40)
            for y in range(0, 300, 15)
        ]

    scenes = [(page(1), page(0), [False] * 400, ["word"] * 400)] * 40
    tracemalloc.start()
    score = PROTOCOLS[protocol](scenes)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert score.hmean > 0.7
    assert most < 150e6  # all 6.4 million pairs at once take more than 400 MB
