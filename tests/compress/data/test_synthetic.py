from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import shapely
from pydantic import ValidationError

from compress.data.detection import synthetic
from compress.data.detection.synthetic import CHORD, Synthetic, arc, blend, compose, draw, place, place_on_curve, rim, wave
from compress.errors import CompressError


def small(**fields) -> Synthetic:
    return Synthetic(format="synthetic", **({"train": 4, "val": 2, "test": 2, "size": 160} | fields))


def test_pixel_for_pixel_the_same_in_another_process():
    annotation, image = draw(3, "val", 5, 320)
    code = (
        "import sys, numpy; from compress.data.detection.synthetic import draw; a, i = draw(3, 'val', 5, 320);"
        "sys.stdout.buffer.write(i.tobytes() + numpy.concatenate(a.truth.polygons).tobytes())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert other == image.tobytes() + np.concatenate(annotation.truth.polygons).tobytes()


def test_seed_split_and_index_each_give_another_image():
    images = [draw(*what, 160)[1].tobytes() for what in ((0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1))]
    assert len(set(images)) == 4


def lines(count: int):
    """Placed lines, with the words' quadrilaterals."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        taken = np.zeros((81, 81), np.uint8)
        line = place(compose(320, rng), (320, 320), taken, rng)
        if line is not None:
            yield line


def test_words_are_outlined_tightly():
    seen = 0
    for line in lines(60):
        ink = np.zeros((320, 320))
        (x, y), (h, w) = line.corner, line.ink.shape
        ink[y : y + h, x : x + w] = line.ink / 255.0
        rows, columns = np.nonzero(ink > 0.2)
        weights = ink[rows, columns]
        owner = np.full(len(rows), -1)
        for number, quad in enumerate(line.quads):
            edges = np.roll(quad, -1, axis=0) - quad
            normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1, keepdims=True)
            depth = (np.stack([columns, rows], axis=1)[:, None] - quad) * normals
            depth = depth.sum(axis=2)  # how far inside of each side, pixels
            mine = (depth > -1.0).all(axis=1)
            owner[mine] = number
            # The ink comes near all four sides, and nowhere is a strip of the word left outside.
            assert depth[mine].min(axis=0).max() < 2.0, line.texts
            seen += 1
        assert weights[owner >= 0].sum() > 0.97 * weights.sum()
    assert seen > 60


def test_words_are_clockwise_inside_the_image_and_apart():
    for index in range(25):
        annotation, image = draw(1, "train", index, 320)
        assert image.shape == (320, 320, 3)
        assert image.dtype == np.uint8
        assert len(annotation.truth.polygons) == len(annotation.truth.texts) == len(annotation.truth.ignore) > 0
        cover = np.zeros((320, 320), np.uint8)
        for quad, text in zip(annotation.truth.polygons, annotation.truth.texts, strict=True):
            assert quad.shape == (4, 2)
            assert quad.dtype == np.float32
            assert quad.min() >= 0
            assert quad.max() <= 319
            assert cv2.contourArea(quad, oriented=True) > 0
            assert text.isalnum()
            one = cv2.fillPoly(np.zeros_like(cover), [quad.round().astype(np.int32)], 1)
            cover += one
        assert cover.max() == 1


def test_a_sensible_number_of_words_some_of_them_do_not_care():
    annotations = [draw(0, "train", index, 320)[0] for index in range(40)]
    care = np.array([(~annotation.truth.ignore).sum() for annotation in annotations])
    share = np.concatenate([annotation.truth.ignore for annotation in annotations]).mean()
    assert 4 < care.mean() < 9
    assert care.max() <= 12
    assert 0.03 < share < 0.15


def test_words_that_count_stand_out_from_what_is_behind():
    rng = np.random.default_rng(0)
    for line in lines(40):
        if line.style != "plain":
            continue
        before = np.full((320, 320, 3), int(rng.integers(0, 256)), np.uint8)
        after = before.copy()
        blend(after, line, rng)
        (x, y), (h, w) = line.corner, line.ink.shape
        part = after[y : y + h, x : x + w].mean(axis=2)
        inside = cv2.fillPoly(np.zeros((320, 320), np.uint8), [quad.round().astype(np.int32) for quad in line.quads], 1)
        inked, bare = part[line.ink > 230], part[(cv2.dilate(line.ink, np.ones((3, 3))) == 0) & (inside[y : y + h, x : x + w] == 1)]
        if len(inked) and len(bare):
            assert abs(np.median(inked) - np.median(bare)) > 60


def test_opened_splits_have_the_images_drawn(monkeypatch):
    data = small()
    assert data.splits() == ("train", "val", "test")
    reported = []
    split = data.open("train", 7, progress=lambda done, total: reported.append((done, total)))
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr(synthetic, "draw", None)  # from now on everything is in the cache
    again = data.open("train", 7)
    monkeypatch.undo()
    for opened in (split, again):
        assert len(opened) == 4
        for index in range(4):
            annotation, image = draw(7, "train", index, 160)
            np.testing.assert_array_equal(opened[index].image, image)
            np.testing.assert_array_equal(opened[index].truth.ignore, annotation.truth.ignore)
            assert opened[index].truth.texts == annotation.truth.texts
            for ours, theirs in zip(opened[index].truth.polygons, annotation.truth.polygons, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_fingerprints_tell_configurations_apart(monkeypatch):
    prints = [
        small().open("train", 0).fingerprint(),
        small().open("val", 0).fingerprint(),
        small().open("train", 1).fingerprint(),
        small(train=3).open("train", 0).fingerprint(),
        small(size=128).open("train", 0).fingerprint(),
    ]
    monkeypatch.setattr(synthetic, "GENERATOR", -1)
    prints.append(small().open("train", 0).fingerprint())
    assert len(set(prints)) == 6
    monkeypatch.undo()
    assert small(val=1).open("train", 0).fingerprint() == prints[0]


def test_the_smallest_images_can_be_drawn():
    for index in range(10):
        annotation, image = draw(0, "test", index, 64)
        assert image.shape == (64, 64, 3)
        assert len(annotation.truth.polygons) == len(annotation.truth.ignore)


# Words along curves


def curves(count: int):
    """Placed curved lines, and for each word what covers the whole of its rectangle, 0..1, drawn in place of the letters."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        line = compose(320, rng)
        state = rng.bit_generator.state
        placed = place_on_curve(line, (320, 320), np.zeros((81, 81), np.uint8), rng)
        covers = []
        for word in line.quads if placed else ():
            (left, top), (right, bottom) = (np.rint(corner + 0.5).astype(int) for corner in (word.min(0), word.max(0)))
            block = np.zeros_like(line.ink)
            block[top:bottom, left:right] = 255
            rng.bit_generator.state = state
            covers.append(place_on_curve(replace(line, ink=block), (320, 320), np.zeros((81, 81), np.uint8), rng).ink / 255)
        if placed:
            yield placed, covers


def test_curved_outlines_are_those_of_what_is_drawn():
    seen = 0
    for line, covers in curves(40):
        height, width = line.ink.shape
        inside = np.zeros((height, width), bool)
        for outline, cover in zip(line.quads, covers, strict=True):
            fine = np.rint((outline - line.corner + 0.5) * 8 - 0.5).astype(np.int32)  # an eighth of a pixel
            filled = cv2.fillPoly(np.zeros((8 * height, 8 * width), np.float32), [fine], 1)
            filled = cv2.resize(filled, (width, height), interpolation=cv2.INTER_AREA)
            assert np.abs(filled - cover).sum() < CHORD * cv2.arcLength(outline, True)
            inside |= filled > 0
            seen += 1
            assert len(outline) % 2 == 0
            assert cv2.contourArea(outline, oriented=True) > 0
            assert 0 <= outline.min() <= outline.max() <= 319
        assert line.ink[inside].sum() > 0.97 * line.ink.sum()
    assert seen > 40


@pytest.mark.parametrize("bend", [arc(80.0, 20), arc(-80.0, 20), wave(7.0, 90.0, 1.0)])
def test_bends_and_back(bend):
    points = np.random.default_rng(0).uniform((-60, -15), (60, 15), (50, 2))
    np.testing.assert_allclose(bend.back(bend.onto(points)), points, atol=1e-9)
    low, high = np.array([-60.0, -10.0]), np.array([60.0, 10.0])
    corners = rim(low, high, bend.curvature)
    assert len(corners) < 40
    ring = shapely.LinearRing(bend.onto(corners))
    everywhere = bend.onto(rim(low, high, 100 * bend.curvature))
    assert 0.5 * CHORD < shapely.distance(ring, shapely.points(everywhere)).max() <= CHORD * 1.01


def test_no_curves_unless_asked_for():
    plain, asked = draw(4, "val", 2, 320), draw(4, "val", 2, 320, 0.0)
    assert plain[1].tobytes() == asked[1].tobytes()
    assert small(curved=0.0).open("train", 0).fingerprint() == small().open("train", 0).fingerprint()
    assert small(curved=0.5).open("train", 0).fingerprint() != small().open("train", 0).fingerprint()


def test_the_share_of_curves():
    corners = [
        [len(polygon) for index in range(25) for polygon in draw(0, "train", index, 320, share)[0].truth.polygons] for share in (0.4, 1.0)
    ]
    assert 0.2 < np.mean(np.array(corners[0]) > 4) < 0.6
    assert min(corners[1]) >= 6
    split = small(curved=1.0, size=320).open("val", 0)
    assert max(len(polygon) for polygon in split[0].truth.polygons + split[1].truth.polygons) > 6


def test_db_finds_curved_words_as_polygons():
    from compress.evaluation.protocols import PROTOCOLS
    from compress.models.contract import Sample
    from compress.models.db import Thresholds, db_decode, db_targets

    scores = {}
    for polygons in (False, True):
        found = []
        for index in range(8):
            words, image = draw(0, "train", index, 320, 1.0)
            maps = {"probability": db_targets(Sample(words.name, image, words.truth))["shrink"][None].astype(np.float32)}
            decoded = db_decode(maps, [image.shape[:2]], Thresholds(unclip_ratio=1.6, polygons=polygons))[0].polygons
            found.append((decoded, words.truth.polygons, words.truth.ignore, words.truth.texts))
        scores[polygons] = PROTOCOLS["polygon_iou"](found).hmean
    assert scores[True] > 0.95
    assert scores[False] < scores[True] - 0.05


def test_wrong_settings_are_refused():
    for wrong in ({"curved": 1.5}, {"curved": -0.1}, {"train": 0}, {"val": -1}, {"size": 10}, {"size": 10_000}, {"words": 3}):
        with pytest.raises(ValidationError):
            small(**wrong)
    with pytest.raises(CompressError, match="no split 'tset'; did you mean 'test'"):
        small().open("tset", 0)
