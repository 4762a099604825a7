"""Words cut from scenes: against slices and rotations of arrays, words turned about, and what cannot be cut."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress.data.detection.synthetic import Synthetic
from compress.data.lines.crops import corners, crop
from compress.data.lines.lines import Lines
from compress.errors import CompressError


@pytest.fixture
def scene() -> np.ndarray:
    """Smooth noise, (90, 120, 3) uint8."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC)


def quad(x: float, y: float, w: float, h: float) -> np.ndarray:
    """Clockwise from the left top."""
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float32)


def test_an_upright_rectangle_is_a_slice(scene):
    np.testing.assert_array_equal(crop(scene, quad(10, 20, 50, 16)), scene[20:36, 10:60])


def test_a_word_that_runs_down_is_turned_counter_clockwise(scene):
    slice_ = scene[5:65, 30:50]
    np.testing.assert_array_equal(crop(scene, quad(30, 5, 20, 60)), cv2.rotate(slice_, cv2.ROTATE_90_COUNTERCLOCKWISE))
    assert crop(scene, quad(30, 5, 40, 60)).shape == (40, 60, 3), "1.5 times as high as wide is turned"
    assert crop(scene, quad(30, 5, 41, 60)).shape == (60, 41, 3), "less is not"


@pytest.mark.parametrize("turns", range(4))
def test_reading_begins_at_the_first_corner(scene, turns):
    """A word whose first corner is another one of the rectangle is turned about by as many right angles."""
    found = crop(scene, np.roll(quad(10, 20, 40, 36), -turns, axis=0))
    np.testing.assert_array_equal(found, np.rot90(shifted(scene, turns), turns))


def shifted(scene: np.ndarray, turns: int) -> np.ndarray:
    """The slice that corner 0 of a turned rectangle begins at: its pixels lie on the other side of the corner."""
    down, right = int(turns in (2, 3)), int(turns in (1, 2))
    return scene[20 + down : 56 + down, 10 + right : 50 + right]


def test_no_word_is_mirrored(scene):
    np.testing.assert_array_equal(crop(scene, quad(10, 20, 50, 16)[[0, 3, 2, 1]]), scene[20:36, 10:60])


def test_a_turned_word_is_that_of_the_turned_scene():
    image = np.zeros((200, 300, 3), np.uint8)
    cv2.putText(image, "Word 7", (80, 110), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (255, 200, 90), 4)
    outline = quad(75, 70, 170, 50)
    expected = image[70:120, 75:245]
    for angle in (-40, 15, 33):
        matrix = cv2.getRotationMatrix2D((150, 100), angle, 1.0)
        turned = cv2.warpAffine(image, matrix, (300, 200), flags=cv2.INTER_CUBIC)
        found = crop(turned, cv2.transform(outline[None], matrix)[0])
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 8 < np.abs(found[::-1, ::-1].astype(int) - expected).mean()


def test_corners_of_longer_outlines_are_a_rectangle_that_begins_where_they_do():
    along = np.linspace(0, 100, 11)
    arc = np.concatenate(
        [np.stack([along, 0.002 * (along - 50) ** 2], 1), np.stack([along[::-1], 30 + 0.002 * (along[::-1] - 50) ** 2], 1)]
    )
    for turn in range(0, 360, 30):
        radians = np.radians(turn)
        rotation = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
        found = corners((arc @ rotation + 500).astype(np.float32))
        np.testing.assert_allclose(found, np.array([(0, 0), (100, 0), (100, 35), (0, 35)]) @ rotation + 500, atol=1e-2)


def test_beyond_the_edge_pixels_are_as_at_the_edge(scene):
    found = crop(scene, quad(-10, -4, 30, 20))
    np.testing.assert_array_equal(found, cv2.copyMakeBorder(scene[:16, :20], 4, 0, 10, 0, cv2.BORDER_REPLICATE))


def test_words_of_an_image_that_is_longer_than_opencv_warps_are_those_of_a_part_of_it():
    rng = np.random.default_rng(0)
    part = rng.integers(0, 256, (30, 400, 3), np.uint8)
    long = np.zeros((30, 40_000, 3), np.uint8)
    long[:, 36_000:36_400] = part
    long[:, -100:] = part[:, :100]
    leaning = quad(50, 4, 120, 18) + np.array([(0, 2), (1, -2), (3, 1), (-2, 0)], np.float32)
    # Corners lie 36,000 pixels further to the right, where float32 has steps of 1/256.
    np.testing.assert_allclose(crop(long, leaning + np.float32((36_000, 0))).astype(int), crop(part, leaning).astype(int), atol=12)
    np.testing.assert_array_equal(crop(long, quad(39_950, 5, 60, 20)), crop(part[:, :100], quad(50, 5, 60, 20)))
    with pytest.raises(ValueError, match="is 35000 x 20 pixels, of which a side may have 32766"):
        crop(long, quad(100, 5, 35_000, 20))


@pytest.mark.parametrize(
    ("outline", "told"),
    [
        (quad(200, 10, 30, 10), "lies outside of its image"),
        (quad(10, -40, 30, 10), "lies outside of its image"),
        (quad(-4000, -4000, 9000, 9000), "is 9000 x 9000 pixels, larger than its image"),
    ],
)
def test_what_cannot_be_cut_is_said(scene, outline, told):
    with pytest.raises(ValueError, match=told):
        crop(scene, outline)


@pytest.mark.parametrize(
    "outline", [quad(3, 3, 0.01, 0.01), quad(3, 3, 60, 0.01), quad(0, 0, 20, 20)[[0, 2, 1, 3]], np.zeros((4, 2), np.float32)]
)
def test_thin_and_crossed_outlines_give_an_image(scene, outline):
    found = crop(scene, outline)
    assert found.dtype == np.uint8
    assert min(found.shape) >= 1


# The data format


def write_scene(root: Path, name: str, image: np.ndarray, *words: str) -> None:
    for folder in ("train_images", "train_gts"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "train_images" / f"{name}.png"), image[..., ::-1])
    (root / "train_gts" / f"gt_{name}.txt").write_text("".join(f"{word}\n" for word in words))


def icdar(root: Path, **fields) -> dict:
    return {"format": "icdar2015", "root": root, "cache": False, **fields}


@pytest.fixture
def root(tmp_path, scene) -> Path:
    """Two scenes, of which the second is for validation."""
    root = tmp_path / "scenes"
    write_scene(root, "img_1", scene, "10,20,60,20,60,36,10,36,Genaxis, Theatre", "0,0,20,0,20,9,0,9,###", "30,5,50,5,50,65,30,65,down")
    write_scene(root, "img_2", scene, "5,5,45,5,45,20,5,20,[06]")
    (root / "val.txt").write_text("img_2\n")
    return root


def test_the_legible_words_of_a_split_are_that_split(root, scene):
    data = Lines(format="lines", **{"from": icdar(root)})
    assert data.splits() == ("train", "val")
    train, val = data.open("train", 0), data.open("val", 0)
    assert [(sample.name, sample.truth.text) for sample in train] == [("img_1_1", "Genaxis, Theatre"), ("img_1_3", "down")]
    assert [sample.truth.text for sample in val] == ["[06]"]
    np.testing.assert_array_equal(train[0].image, scene[20:36, 10:60])
    np.testing.assert_array_equal(train[1].image, np.rot90(scene[5:65, 30:50]))
    again = data.open("train", 0)
    assert again.digest == train.digest != val.digest
    np.testing.assert_array_equal(again[1].image, train[1].image)


def test_words_without_text_or_outside_are_refused_or_left_out(root, scene, caplog):
    write_scene(root, "img_3", scene, "1,1,9,1,9,5,1,5,", "1,1,9,1,9,5,1,5,a\tb", "800,1,809,1,809,5,800,5,far", "1,1,30,1,30,9,1,9,kept")
    told = r"2 problems in the data: img_3: word 1 has no text; img_3: word 2 has a text with a tab or a line break"
    with pytest.raises(CompressError, match=told):
        Lines(format="lines", **{"from": icdar(root)}).open("train", 0)
    split = Lines(format="lines", damaged="skip", **{"from": icdar(root)}).open("train", 0)
    assert [sample.truth.text for sample in split] == ["Genaxis, Theatre", "down", "kept"]
    parts = {"no text", "a tab", "'far'"}
    assert {part for part in parts if sum(part in problem for problem in split.problems) == 1} == parts
    assert any(re.search(told, message) for message in caplog.messages)


def test_damage_of_the_scenes_is_skipped_with_the_words_or_refused(root):
    (root / "train_images" / "img_1.png").write_bytes(b"no image")
    (root / "train_gts" / "gt_img_2.txt").write_text("1,2,3\n5,5,45,5,45,20,5,20,[06]\n")
    with pytest.raises(CompressError, match="8 coordinates and a transcription"):
        Lines(format="lines", **{"from": icdar(root)}).open("val", 0)
    split = Lines(format="lines", damaged="skip", **{"from": icdar(root)}).open("val", 0)
    assert [sample.truth.text for sample in split] == ["[06]"]
    assert len(split.problems) == 1
    assert len(Lines(format="lines", **{"from": icdar(root, damaged="skip")}).open("val", 0)) == 1
    with pytest.raises(CompressError, match="no legible words"):
        Lines(format="lines", damaged="skip", **{"from": icdar(root)}).open("train", 0)


def test_scenes_without_transcriptions_are_refused(root, scene):
    write_scene(root, "img_1", scene, "0,0,20,0,20,9,0,9,###")
    with pytest.raises(CompressError, match=r"data\.from: the train part has no legible words with texts"):
        Lines(format="lines", **{"from": icdar(root)}).open("train", 0)


def test_synthetic_scenes_give_their_words():
    scenes = {"format": "synthetic", "train": 3, "val": 1, "test": 1, "size": 160}
    words = Lines(format="lines", **{"from": scenes}).open("train", 1)
    truths = [annotation.truth for annotation in Synthetic(**scenes).open("train", 1).annotations]
    expected = [text for truth in truths for text, skip in zip(truth.texts, truth.ignore, strict=True) if not skip]
    assert [sample.truth.text for sample in words] == expected
    assert all(sample.image.std() > 10 for sample in words), "ink stands out"


def test_the_words_of_real_photographs(shared):
    """The published word images are the upright rectangles around the same words, in the same order."""
    published = Lines(format="lines", root=shared / "data" / "icdar2015_words", cache=False)
    if not published.root.is_dir():
        pytest.skip(f"no word images at {published.root}")
    cut = Lines(format="lines", **{"from": icdar(shared / "data" / "icdar2015")})
    found, expected = cut.open("val", 0), published.open("val", 0)
    assert [sample.truth.text for sample in found] == [sample.truth.text for sample in expected]
    for one, other in zip(found, expected, strict=True):
        assert max(one.image.shape) <= np.hypot(*other.image.shape[:2]) + 1
