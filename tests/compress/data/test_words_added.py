"""Photographs with synthetic words added: the photographs and their words stay, further words lie apart from them, and all is decided
by the seed.
"""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely

from compress.data.detection.augment import Augment
from compress.data.detection.words_added import LEAST, WordsAdded, Writing, add_words, letter_height
from compress.data.draw import draw_folder
from compress.data.formats import open_split
from compress.data.lines.fonts import default_fonts
from compress.data.training import TrainingSet
from compress.errors import CompressError
from compress.models.contract import Words
from compress.models.registry import build
from compress.recipe import load

WRITING = Writing(default_fonts(), lambda _rng: "Hamburg")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    draw_folder(folder, "icdar2015", images=5, test=2, size=320, seed=0)
    (folder / "val.txt").write_text("train_00004.jpg\n")
    return folder


def added_to(photos: Path, **fields) -> WordsAdded:
    return WordsAdded(format="words_added", of={"format": "icdar2015", "root": photos}, **fields)


def same(one, other) -> bool:
    words, others = one.truth, other.truth
    return (
        np.array_equal(one.image, other.image)
        and all(np.array_equal(*pair) for pair in zip(words.polygons, others.polygons, strict=True))
        and np.array_equal(words.ignore, others.ignore)
        and words.texts == others.texts
    )


def test_photographs_come_first_as_they_are_and_their_copies_behind_them(photos):
    config = added_to(photos, copies=2)
    plain, split = (open_split(one, "train", 0, quiet=True) for one in (config.of, config))
    assert len(split) == 3 * len(plain) == 12
    assert all(same(split[index], plain[index]) for index in range(4))
    assert [split[4 + index].name for index in range(8)] == [f"train_0000{index % 4}_words{1 + index // 4}" for index in range(8)]
    for index in range(4):
        first, second = split[4 + index], split[8 + index]
        assert first.image.shape == plain[index].image.shape
        assert not same(first, second)


@pytest.mark.parametrize("part", ["val", "test"])
def test_nothing_is_drawn_on_what_is_measured_on(photos, part):
    config = added_to(photos)
    plain, split = (open_split(one, part, 0, quiet=True) for one in (config.of, config))
    assert len(split) == len(plain) > 0
    assert split.fingerprint() == plain.fingerprint()
    assert all(same(one, other) for one, other in zip(split, plain, strict=True))


def test_the_seed_decides_and_so_do_the_vocabulary_and_the_copies(photos, tmp_path, monkeypatch):
    def opened(cache: str, seed: int = 0, **fields):
        monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / cache))
        return open_split(added_to(photos, **fields), "train", seed, quiet=True)

    first, again, other = opened("a"), opened("b"), opened("a", seed=1)
    assert first.fingerprint() == again.fingerprint()
    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("Lindau\n")
    spoken = opened("a", vocabulary=vocabulary)
    assert len({first.fingerprint(), other.fingerprint(), spoken.fingerprint(), opened("a", copies=2).fingerprint()}) == 4
    texts = [text for index in range(4, 8) for text in spoken[index].truth.texts]
    assert any("lindau" in text.lower() for text in texts)
    assert not any("lindau" in text.lower() for index in range(8) for text in first[index].truth.texts)


def street(count: int) -> Words:
    """Words in the left half of a photograph of 480 x 640."""
    corners = np.array([(0, 0), (150, 0), (150, 30), (0, 30)], np.float32)
    quads = [corners + np.array((40, 40 + 80 * place), np.float32) for place in range(count)]
    return Words(quads, np.arange(count) % 2 == 0, [f"given{place}" for place in range(count)])


def test_words_lie_apart_from_those_that_are_there_and_inside():
    truth = street(5)
    photo = np.full((480, 640, 3), 120, np.uint8)
    total = 0
    for seed in range(20):
        _, words = add_words(photo, truth, WRITING, np.random.default_rng(seed))
        assert len(words.polygons) == len(words.ignore) == len(words.texts)
        for polygon, given in zip(words.polygons, truth.polygons, strict=False):
            np.testing.assert_array_equal(polygon, given)
        assert words.texts[:5] == truth.texts
        np.testing.assert_array_equal(words.ignore[:5], truth.ignore)
        outlines = [shapely.Polygon(polygon) for polygon in words.polygons]
        assert all(one.intersection(other).area < 1 for one, other in combinations(outlines, 2))
        for quad, skip in zip(words.polygons[5:], words.ignore[5:], strict=True):
            assert quad.shape == (4, 2)
            assert quad.dtype == np.float32
            assert (quad >= 0).all()
            assert (quad <= (639, 479)).all()
            assert skip == (letter_height(quad) < LEAST)
        total += len(words.polygons) - 5
    assert total > 100


def test_pixels_change_under_the_new_words_and_nowhere_else():
    photo = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8), (0, 0), 9)
    changed = []
    for seed in range(10):
        image, words = add_words(photo, street(3), WRITING, np.random.default_rng(seed))
        assert image.shape == photo.shape
        assert image.dtype == np.uint8
        # Blurred, so that neither noise nor JPEG counts.
        difference = cv2.GaussianBlur(image.astype(np.float32) - photo, (0, 0), 2)
        difference = np.abs(difference).max(axis=2)
        given, new = (np.zeros(difference.shape, np.uint8) for _ in range(2))
        for polygon in words.polygons[:3]:
            cv2.fillPoly(given, [polygon.astype(np.int32)], 1)
        for polygon in words.polygons[3:]:
            cv2.fillPoly(new, [polygon.astype(np.int32)], 1)
            inside = cv2.fillPoly(np.zeros_like(new), [polygon.astype(np.int32)], 1) > 0
            changed.append(float(difference[inside].mean()))
        far = cv2.dilate(new, np.ones((41, 41), np.uint8)) == 0
        assert difference[far].max() < 6
        assert difference[(given > 0) & far].max() < 6
    assert np.median(changed) > 10
    assert min(changed) > 2


def test_words_of_photographs_without_transcriptions_get_none(photos):
    truth = dataclasses.replace(street(2), texts=[])
    _, words = add_words(np.full((480, 640, 3), 90, np.uint8), truth, WRITING, np.random.default_rng(0))
    assert len(words.polygons) > 2
    assert words.texts == []
    assert open_split(added_to(photos), "train", 0, quiet=True)[5].truth.texts


def test_a_photograph_without_words_and_one_without_room():
    empty = Words([], np.zeros(0, bool))
    _, words = add_words(np.full((200, 300, 3), 90, np.uint8), empty, WRITING, np.random.default_rng(0))
    assert len(words.texts) == len(words.polygons) > 0
    full = Words([np.array([(0, 0), (300, 0), (300, 200), (0, 200)], np.float32)], np.zeros(1, bool), ["all"])
    image, words = add_words(np.full((200, 300, 3), 90, np.uint8), full, WRITING, np.random.default_rng(0))
    assert words.texts == ["all"]
    assert np.abs(image.astype(float).mean() - 90) < 1


@pytest.mark.parametrize(("word", "height"), [("\u00e9\u00df", 30.0), ("'", 2.0)])
def test_a_line_that_a_font_cannot_write_is_left_out(word, height):
    writing = Writing(default_fonts()[:1], lambda _rng: word)
    assert any(WRITING.line(30.0, np.random.default_rng(seed)) for seed in range(5))
    for seed in range(5):
        line = writing.line(height, np.random.default_rng(seed))
        assert line is None or word not in line.texts


def test_training_views_hold_the_added_words(photos):
    split = open_split(added_to(photos), "train", 0, quiet=True)
    views = TrainingSet(split, build("db"), Augment(scales=(1.0,), flip=0.0, rotate=0.0), (320, 320), 0)
    assert len(views) == 8
    seen = {text for epoch in range(4) for text in views.view(epoch, 6).truth.texts}
    given = set(split[2].truth.texts)
    assert given <= set(split[6].truth.texts)
    assert seen - given


def test_recipes_name_it_with_the_photographs_below(photos, tmp_path):
    path = tmp_path / "words.yml"
    path.write_text(
        f"model: {{name: db}}\ndata: {{format: words_added, of: {{format: icdar2015, root: {photos}}}, copies: 3}}\n"
        "stages:\n  - train: {name: baseline, epochs: 1}\n"
    )
    data = load(path, ["data.of.damaged=skip", "data.copies=2"]).data
    assert isinstance(data, WordsAdded)
    assert (data.copies, data.of.damaged, data.of.root) == (2, "skip", photos)
    assert data.default_augment() == data.of.default_augment()
    for wrong, told in (("data.of.rot=x", "unknown key 'data.of.rot'"), ("data.of={format: synthetic}", "'synthetic'.*'icdar2015'")):
        with pytest.raises(CompressError, match=told):
            load(path, [wrong])


def test_fonts_and_a_vocabulary_that_cannot_be_used_are_named(photos, tmp_path):
    with pytest.raises(CompressError, match="there is no folder"):
        open_split(added_to(photos, fonts=tmp_path / "nowhere"), "train", 0, quiet=True)
    with pytest.raises(CompressError, match=r"nowhere\.txt"):
        open_split(added_to(photos, vocabulary=tmp_path / "nowhere.txt"), "train", 0, quiet=True)
