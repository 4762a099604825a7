"""Polygon IoU, DetEval and CLEval: examples worked by hand, and plain loops with shapely on random pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely

from compress.errors import CompressError
from compress.evaluation import cleval, deteval, icdar
from compress.evaluation.icdar import Score
from compress.evaluation.protocols import PROTOCOLS, evaluate
from compress.evaluation.settings import DEFAULT_PROTOCOL, Evaluate
from models.registry import build


def box(left: float, top: float, width: float, height: float) -> np.ndarray:
    return np.array([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], float)


def arc(centre: tuple[float, float], radius: float, thick: float, corners: int = 6) -> np.ndarray:
    """A word along the upper half of a circle, 2 * corners points."""
    turns = np.linspace(math.pi * 0.85, math.pi * 0.15, corners)
    way = np.stack([np.cos(turns), -np.sin(turns)], 1)
    return np.concatenate([centre + (radius + thick) * way, centre + radius * way[::-1]])


def random_pictures(count: int, seed: int) -> list:
    """Words, straight and curved, with detections on them, on parts of them and over several; some do-not-care."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        words, found = [], []
        for _ in range(rng.integers(0, 6)):
            where, size = rng.uniform(0, 150, 2), rng.uniform(10, 60, 2)
            words.append(np.rint(box(*where, 2 * size[0], size[1]) if rng.random() < 0.6 else arc(tuple(where), size[0], size[1] / 2)))
        for word in words:
            kind = rng.random()
            (left, top), (right, bottom) = word.min(0), word.max(0)
            if kind < 0.4:
                found.append(word + rng.normal(0, 2, word.shape))
            elif kind < 0.6:
                middle = rng.uniform(left, right)
                found += [box(left, top, middle - left - 1, bottom - top), box(middle, top, right - middle, bottom - top)]
            elif kind < 0.8:
                found.append(box(left - 3, top - 3, (right - left) * rng.uniform(0.5, 3), bottom - top + 6))
        found += [box(*rng.uniform(0, 200, 2), *rng.uniform(5, 60, 2)) for _ in range(rng.integers(0, 3))]
        texts = ["word"[: rng.integers(0, 5)] * rng.integers(1, 3) for _ in words]
        pictures.append((found, words, list(rng.random(len(words)) < 0.25), texts))
    return pictures


def geometry(polygon: np.ndarray) -> shapely.Geometry:
    return shapely.make_valid(shapely.Polygon(polygon))


def hmean(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_every_protocol_that_a_recipe_can_name_is_there() -> None:
    from typing import get_args

    from compress.evaluation.settings import Protocol

    assert tuple(PROTOCOLS) == get_args(Protocol)
    assert DEFAULT_PROTOCOL == "icdar2015"
    word = box(0, 0, 40, 10)
    for name in PROTOCOLS:
        assert evaluate([], name) == Score(0, 0, 0, 0, 0, 0)
        score = evaluate(iter([([word], [word], [False], ["word"])]), name)
        assert (score.precision, score.recall, score.hmean) == (1, 1, 1)
        assert evaluate([([], [word], [False], ["word"])], name).hmean == 0
        assert evaluate([([word], [word], [True], ["word"])], name).detected == 0


def test_the_default_stays_as_it_was() -> None:
    pictures = random_pictures(50, seed=5)
    assert evaluate(pictures) == icdar.evaluate([picture[:3] for picture in pictures])


# The `evaluate` section


def test_the_protocol_is_written_down_only_where_it_is_not_the_default() -> None:
    algorithm = build({"name": "db"})
    plain, chosen = Evaluate(short_side=320), Evaluate(short_side=320, protocol="deteval", box_threshold=0.5)
    assert plain.model_dump(mode="json") == {"short_side": 320}
    assert "protocol" not in plain.reported(algorithm)
    assert chosen.model_dump(mode="json") == {"short_side": 320, "protocol": "deteval", "box_threshold": 0.5}
    assert Evaluate(**chosen.model_dump()) == chosen
    assert chosen.reported(algorithm)["protocol"] == "deteval"
    assert chosen.with_thresholds(box_threshold=0.7).protocol == "deteval"
    assert not hasattr(chosen.thresholds(algorithm), "protocol")
    with pytest.raises(CompressError, match="did you mean 'protocol'"):
        Evaluate(protokol="cleval").thresholds(algorithm)
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
    pictures = random_pictures(150, seed=0)
    matched = detected = words = 0
    for found, polygons, ignore, _ in pictures:
        shapes, truth = [geometry(polygon) for polygon in found], [geometry(polygon) for polygon in polygons]
        dropped = {j for j, b in enumerate(shapes) for g, skip in zip(truth, ignore, strict=True) if skip and (b & g).area > b.area / 2}
        taken: set[int] = set()
        for word, skip in zip(truth, ignore, strict=True):
            fits = (j for j, b in enumerate(shapes) if j not in dropped | taken and (b & word).area / (b | word).area > 0.5)
            taken |= set() if skip else {j for j in [next(fits, None)] if j is not None}
        matched, detected, words = matched + len(taken), detected + len(shapes) - len(dropped), words + len(ignore) - sum(ignore)
    score = evaluate(pictures, "polygon_iou")
    assert (score.matched, score.detected, score.words) == (matched, detected, words)
    assert 50 < matched < detected


# DetEval


def credit(found: list, words: list, ignore: list | None = None) -> tuple[float, float, int, int]:
    picture = (found, words, ignore or [False] * len(words))
    (seen,) = deteval.overlaps([picture])
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


def plain_deteval(found: list, words: list, ignore: list) -> tuple[float, float, int, int]:
    """The ICDAR2013 script's loops, on polygons."""
    words_all = [geometry(polygon) for polygon in words]
    dets = [
        d for d in map(geometry, found) if not any(skip and (d & w).area / d.area > 0.4 for w, skip in zip(words_all, ignore, strict=True))
    ]
    dets_of = [p for p in found if any(geometry(p).equals(d) for d in dets)]
    gts = [w for w, skip in zip(words_all, ignore, strict=True) if not skip]
    gts_of = [p for p, skip in zip(words, ignore, strict=True) if not skip]
    n, m = len(gts), len(dets)
    recall = [[(g & d).area / g.area for d in dets] for g in gts]
    precision = [[(g & d).area / d.area for d in dets] for g in gts]
    touch = [[r > 1e-9 for r in row] for row in recall]
    gt_hit, det_hit, found_credit, right = [False] * n, [False] * m, 0.0, 0.0

    def good(i: int, j: int) -> bool:
        return recall[i][j] >= 0.8 and precision[i][j] >= 0.4

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        low_a, high_a, low_b, high_b = a.min(0), a.max(0), b.min(0), b.max(0)
        diagonals = math.dist(low_a, high_a) + math.dist(low_b, high_b)
        return 2 * math.dist((low_a + high_a) / 2, (low_b + high_b) / 2) / diagonals

    for i in range(n):
        for j in range(m):
            only = sum(good(i, k) for k in range(m)) == 1 and sum(good(k, j) for k in range(n)) == 1 and good(i, j)
            alone = sum(touch[i]) == 1 and sum(row[j] for row in touch) == 1
            if only and alone and distance(gts_of[i], dets_of[j]) < 1:
                gt_hit[i] = det_hit[j] = True
                found_credit, right = found_credit + 1, right + 1
    for i in range(n):
        pieces = [j for j in range(m) if not gt_hit[i] and not det_hit[j] and precision[i][j] >= 0.4]
        if round(sum(recall[i][j] for j in pieces), 4) >= 0.8 and sum(touch[i]) >= 2:
            gt_hit[i] = True
            for j in pieces:
                det_hit[j] = True
            found_credit += 1 if len(pieces) == 1 else 0.8
            right += 1 if len(pieces) == 1 else 0.8 * len(pieces)
    for j in range(m):
        inside = [i for i in range(n) if not gt_hit[i] and not det_hit[j] and recall[i][j] >= 0.8]
        if round(sum(precision[i][j] for i in inside), 4) >= 0.4 and sum(row[j] for row in touch) >= 2:
            det_hit[j] = True
            for i in inside:
                gt_hit[i] = True
            found_credit, right = found_credit + len(inside), right + 1
    return found_credit, right, m, n


def test_deteval_is_what_the_scripts_loops_find() -> None:
    pictures = random_pictures(200, seed=1)
    expected = np.array([plain_deteval(*picture[:3]) for picture in pictures])
    found = np.array([deteval.judge(seen) for seen in deteval.overlaps(pictures)])
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (found[:, 0] != found[:, 1]).sum() > 20  # words in pieces, and words found together
    score = evaluate(pictures, "deteval")
    recall, precision = expected[:, 0].sum() / expected[:, 3].sum(), expected[:, 1].sum() / expected[:, 2].sum()
    assert (score.recall, score.precision) == pytest.approx((recall, precision))
    assert score.hmean == pytest.approx(hmean(precision, recall))


# CLEval


def characters(found: list, words: list, texts: list, ignore: list | None = None) -> tuple[int, int, int, int, int]:
    picture = (found, words, ignore or [False] * len(words), texts)
    return cleval.judge(*deteval.overlaps([picture]), picture)


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


def plain_cleval(found: list, words: list, ignore: list, texts: list) -> tuple[int, int, int, int, int]:
    """The authors' steps, one after another."""
    lengths = [len(t) if t and not skip else cleval.guessed_length(w) for t, w, skip in zip(texts, words, ignore, strict=True)]
    points = [[shapely.Point(p) for p in cleval.centres(w, length)] for w, length in zip(words, lengths, strict=True)]
    dets, gts = [geometry(p) for p in found], [geometry(p) for p in words]
    for i, skip in enumerate(ignore):
        for k in range(len(gts)) if skip else ():
            if not ignore[k]:
                gts[i] = gts[i] - gts[k]
    share = [[(g & d).area / d.area for d in dets] for g in gts]
    inside = [[[d.contains(p) for p in of] for d in dets] for of in points]
    n, m = len(gts), len(dets)
    dropped = set()
    for j in range(m):
        hidden = [i for i in range(n) if ignore[i]]
        if any(share[i][j] >= 0.3 for i in hidden) or sum(share[i][j] for i in hidden if any(inside[i][j])) >= 0.3:
            dropped.add(j)
    valid_gts, valid_dets = [i for i in range(n) if not ignore[i]], [j for j in range(m) if j not in dropped]

    def both(i: int, j: int) -> bool:
        return share[i][j] >= 0.3 and any(inside[i][j])

    match = set()
    for i in valid_gts:
        for j in valid_dets:
            if both(i, j) and sum(both(i, k) for k in range(m)) == 1 and sum(both(k, j) for k in range(n)) == 1:
                match.add((i, j))
        many = [j for j in valid_dets if both(i, j)]
        match |= {(i, j) for j in many} if len(many) >= 2 else set()
    for j in valid_dets:
        many = [i for i in valid_gts if any(inside[i][j])]
        match |= {(i, j) for i in many} if len(many) >= 2 and sum(share[i][j] for i in many) >= 0.3 else set()
    seen = {(i, k) for i, j in match for k, hit in enumerate(inside[i][j]) if hit}
    total = sum(sum(inside[i][j]) for i, j in match)
    strays = sum(cleval.guessed_length(found[j]) for j in valid_dets if all(other != j for _, other in match))
    cuts = sum(max(sum(i == word for i, _ in match) - 1, 0) for word in range(n))
    joins = sum(max(sum(j == det for _, j in match) - 1, 0) for det in range(m))
    return len(seen), cuts, joins, total + strays, sum(lengths[i] for i in valid_gts)


def test_cleval_is_what_its_steps_give() -> None:
    pictures = random_pictures(200, seed=2)
    expected = np.array([plain_cleval(*picture) for picture in pictures])
    found = [cleval.judge(seen, picture) for seen, picture in zip(deteval.overlaps(pictures), pictures, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert (expected.sum(0) > 20).all()
    characters_found, cuts, joins, detected, there = expected.sum(0)
    score = evaluate(pictures, "cleval")
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
