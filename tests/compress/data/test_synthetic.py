from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from compress.data import synthetic
from compress.data.synthetic import Synthetic, blend, compose, draw, place
from compress.errors import CompressError


def small(**fields) -> Synthetic:
    return Synthetic(format="synthetic", **({"train": 4, "val": 2, "test": 2, "size": 160} | fields))


def test_pixel_for_pixel_the_same_in_another_process():
    annotation, image = draw(3, "val", 5, 320)
    code = (
        "import sys, numpy; from compress.data.synthetic import draw; a, i = draw(3, 'val', 5, 320);"
        "sys.stdout.buffer.write(i.tobytes() + numpy.concatenate(a.polygons).tobytes())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert other == image.tobytes() + np.concatenate(annotation.polygons).tobytes()


def test_seed_split_and_index_each_give_another_picture():
    pictures = [draw(*what, 160)[1].tobytes() for what in ((0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1))]
    assert len(set(pictures)) == 4


def lines(count: int):
    """Placed lines, with the words' quadrilaterals."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        taken = np.zeros((81, 81), np.uint8)
        line = place(compose(320, rng), 320, taken, rng)
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


def test_words_are_clockwise_inside_the_picture_and_apart():
    for index in range(25):
        annotation, image = draw(1, "train", index, 320)
        assert image.shape == (320, 320, 3)
        assert image.dtype == np.uint8
        assert len(annotation.polygons) == len(annotation.texts) == len(annotation.ignore) > 0
        cover = np.zeros((320, 320), np.uint8)
        for quad, text in zip(annotation.polygons, annotation.texts, strict=True):
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
    care = np.array([(~annotation.ignore).sum() for annotation in annotations])
    share = np.concatenate([annotation.ignore for annotation in annotations]).mean()
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


def test_opened_splits_have_the_pictures_drawn(monkeypatch):
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
            np.testing.assert_array_equal(opened[index].ignore, annotation.ignore)
            assert opened[index].texts == annotation.texts
            for ours, theirs in zip(opened[index].polygons, annotation.polygons, strict=True):
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


def test_the_smallest_pictures_can_be_drawn():
    for index in range(10):
        annotation, image = draw(0, "test", index, 64)
        assert image.shape == (64, 64, 3)
        assert len(annotation.polygons) == len(annotation.ignore)


def test_wrong_settings_are_refused():
    for wrong in ({"train": 0}, {"val": -1}, {"size": 10}, {"size": 10_000}, {"words": 3}):
        with pytest.raises(ValidationError):
            small(**wrong)
    with pytest.raises(CompressError, match="no split 'tset'; did you mean 'test'"):
        small().open("tset", 0)
