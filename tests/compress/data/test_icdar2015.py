from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from compress.data.detection.folder import named_images
from compress.data.detection.icdar2015 import Icdar2015, parse_line
from compress.errors import CompressError

PLAIN = ("train_images", "train_gts", "test_images", "test_gts")
OFFICIAL = (
    "ch4_training_images",
    "ch4_training_localization_transcription_gt",
    "ch4_test_images",
    "Challenge4_Test_Task1_GT",
)


def image(number: int) -> np.ndarray:
    """Flat squares in a colour each, which lossy formats keep."""
    return np.full((24 + number, 40, 3), (10 * number, 200, 30), np.uint8)


def make(root: Path, names=PLAIN, train: int = 10, test: int = 2, suffix: str = ".png", prefix: str = "gt_") -> Path:
    for part, count in ((names[:2], train), (names[2:], test)):
        for folder in part if count else ():
            (root / folder).mkdir(parents=True)
        for number in range(1, count + 1):
            cv2.imwrite(str(root / part[0] / f"img_{number}{suffix}"), cv2.cvtColor(image(number), cv2.COLOR_RGB2BGR))
            (root / part[1] / f"{prefix}img_{number}.txt").write_text("1,2,11,2,11,8,1,8,word\n")
    return root


def config(root: Path, **fields) -> Icdar2015:
    return Icdar2015(format="icdar2015", root=root, **fields)


def names(split) -> list[str]:
    return [annotation.name for annotation in split.annotations]


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("folders", [PLAIN, OFFICIAL])
@pytest.mark.parametrize(("suffix", "prefix"), [(".png", "gt_"), (".jpg", ""), (".webp", "gt_")])
def test_reads_images_and_words(tmp_path, cache, folders, suffix, prefix):
    data = config(make(tmp_path, folders, suffix=suffix, prefix=prefix), cache=cache)
    assert data.splits() == ("train", "val", "test")
    split = data.open("test", 0)
    assert names(split) == ["img_1", "img_2"]
    sample = split[1]
    assert sample.image.shape == (26, 40, 3)
    assert sample.image.dtype == np.uint8
    np.testing.assert_allclose(sample.image.astype(int), image(2), atol=6)  # RGB, whatever the decoder's order
    np.testing.assert_array_equal(sample.truth.polygons, [[(1, 2), (11, 2), (11, 8), (1, 8)]])
    assert sample.truth.texts == ["word"]
    assert not sample.truth.ignore.any()


def test_byte_order_marks_commas_line_ends_and_do_not_care(tmp_path):
    make(tmp_path, train=0, test=2)
    text = "\ufeff1,2,11,2,11,8,1,8,a,b, c\r\n20,2,30,2,30,8,20,8,###\r\n\r\n1,12,11,12,11,18,1,18,\r\n"
    (tmp_path / "test_gts" / "gt_img_1.txt").write_bytes(text.encode())
    (tmp_path / "test_gts" / "gt_img_2.txt").write_bytes(b"")
    split = config(tmp_path).open("test", 0)
    assert split[0].truth.texts == ["a,b, c", "###", ""]
    assert split[0].truth.ignore.tolist() == [False, True, False]
    assert split[0].truth.polygons[0].tolist() == [[1, 2], [11, 2], [11, 8], [1, 8]]
    assert split[1].truth.polygons == []
    assert split[1].truth.ignore.shape == (0,)
    assert split.problems == ()


def test_a_list_decides_which_images_validate(tmp_path):
    make(tmp_path)
    (tmp_path / "val.txt").write_text("img_3.jpg\nimg_10.png\n")  # the stem counts
    data = config(tmp_path)
    assert names(data.open("val", 0)) == ["img_3", "img_10"]
    assert names(data.open("train", 0)) == [f"img_{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9)]
    other = tmp_path / "other.txt"
    other.write_text("img_1\n")
    for path in (other, Path("other.txt")):
        assert names(config(tmp_path, val_list=path).open("val", 0)) == ["img_1"]


def test_a_name_with_points_in_it_is_the_image_of_that_name(tmp_path):
    for name in ("shot", "shot.v2", "shot.v3", "scan.2024.02"):
        make(tmp_path / name, train=1, test=0)
        for folder, file in (("train_images", "img_1.png"), ("train_gts", "gt_img_1.txt")):
            (tmp_path / "all" / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / name / folder / file, tmp_path / "all" / folder / file.replace("img_1", name))
    for listed in (("shot.v2", "scan.2024.02"), ("shot.v2.png", "scan.2024.02.jpg")):
        (tmp_path / "all/val.txt").write_text("\n".join(listed))
        assert names(config(tmp_path / "all").open("val", 0)) == ["scan.2024.02", "shot.v2"]
    (tmp_path / "all/val.txt").write_text("shot.v4\n")
    with pytest.raises(CompressError, match=r"names 1 images that are not in the training part, shot\.v4 first"):
        config(tmp_path / "all").open("val", 0)


def test_a_list_may_name_an_image_that_is_damaged(tmp_path):
    make(tmp_path, train=5)
    (tmp_path / "train_gts/gt_img_3.txt").unlink()
    (tmp_path / "train_images/img_4.png").write_bytes(b"no image")
    (tmp_path / "val.txt").write_text("img_3\nimg_4\nimg_5\n")
    told = r"3 problems .*img_3\.png: there is no ground truth.*val\.txt: img_3 is not in the training part"
    with pytest.raises(CompressError, match=told):
        config(tmp_path).open("val", 0)
    skipping = config(tmp_path, damaged="skip")
    assert (names(skipping.open("val", 0)), names(skipping.open("train", 0))) == (["img_5"], ["img_1", "img_2"])


def test_without_a_list_a_seeded_block_of_the_training_part_is_held_out(tmp_path):
    data = config(make(tmp_path), val_fraction=0.3)
    blocks = set()
    for seed in range(8):
        held, kept = names(data.open("val", seed)), names(data.open("train", seed))
        assert sorted(held + kept) == sorted(f"img_{n}" for n in range(1, 11))
        numbers = {int(name[4:]) for name in held}
        assert len(numbers) == 3
        assert any(numbers == {(first + step) % 10 + 1 for step in range(3)} for first in range(10))
        assert held == names(data.open("val", seed))
        blocks.add(frozenset(numbers))
    assert len(blocks) > 1


@pytest.mark.parametrize("content", ["img_99.jpg\n", "", None])
def test_a_list_that_does_not_fit_is_refused(tmp_path, content):
    make(tmp_path)
    if content is not None:
        (tmp_path / "list.txt").write_text(content)
    with pytest.raises(CompressError, match=r"data\.val_list: .*list\.txt"):
        config(tmp_path, val_list=Path("list.txt")).open("val", 0)


def test_a_list_of_everything_leaves_nothing_to_train_on(tmp_path):
    make(tmp_path, train=2)
    (tmp_path / "val.txt").write_text("img_1\nimg_2\n")
    with pytest.raises(CompressError, match="no images left"):
        config(tmp_path).open("train", 0)


def test_missing_parts_are_named(tmp_path):
    data = config(make(tmp_path, test=0))
    assert data.splits() == ("train", "val")
    with pytest.raises(CompressError, match="no test part"):
        data.open("test", 0)
    with pytest.raises(CompressError, match="there is no folder"):
        config(tmp_path / "nowhere").open("train", 0)
    with pytest.raises(CompressError, match="neither"):
        config(tmp_path / "train_gts").splits()
    assert config(make(tmp_path / "only", train=0)).splits() == ("test",)


@pytest.mark.parametrize(
    "line",
    [
        "1,2,11,2,11,8,1,8",
        "1,2,3",
        "1,2,11,two,11,8,1,8,word",
        "1,2,11,2,11,8,1,,word",
        "1,2,inf,2,11,8,1,8,word",
        "1,2,nan,2,11,8,1,8,word",
        "1,2,1e30,2,11,8,1,8,word",
        "1,2,11,2,11,2,1,2,word",
        "5,5,5,5,5,5,5,5,word",
    ],
)
def test_damaged_lines_are_not_words(line):
    with pytest.raises(ValueError, match=r"needed|not all|out of bounds|no area"):
        parse_line(line)


@pytest.mark.parametrize("cache", [True, False])
def test_damage_is_refused_or_skipped_but_always_named(tmp_path, cache):
    make(tmp_path, train=0, test=6)
    gts, images = tmp_path / "test_gts", tmp_path / "test_images"
    (gts / "gt_img_1.txt").write_text("1,2,11,2,11,8,1,8,good\n1,2,3,bad\n")
    (gts / "gt_img_2.txt").write_bytes(b"1,2,11,2,11,8,1,8,\xff\xfe\n")
    (images / "img_3.png").write_bytes(b"")
    whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))[1].tobytes()
    (images / "img_4.png").unlink()
    (images / "img_4.jpg").write_bytes(whole[: len(whole) // 2])
    (gts / "gt_img_5.txt").unlink()
    places = ("gt_img_1.txt:2", "gt_img_2.txt", "img_3.png", "img_4.jpg", "img_5.png")
    for _ in range(2):  # the second time from the cache, where there is one
        with pytest.raises(CompressError, match="5 problems") as refused:
            config(tmp_path, cache=cache).open("test", 0)
        split = config(tmp_path, damaged="skip", cache=cache).open("test", 0)
        assert len(split.problems) == 5
        for place in places:
            assert place in str(refused.value)
            assert any(place in problem for problem in split.problems)
        assert names(split) == ["img_1", "img_6"]
        assert split[0].truth.texts == ["good"]
        assert split[1].image.shape == image(6).shape


def test_repaired_damage_is_not_remembered(tmp_path):
    make(tmp_path, train=0, test=2)
    good = (tmp_path / "test_images" / "img_2.png").read_bytes()
    (tmp_path / "test_images" / "img_2.png").write_bytes(b"x" * len(good))
    stray = tmp_path / "test_images" / "img_7.png"
    stray.write_bytes(good)
    with pytest.raises(CompressError, match="2 problems"):
        config(tmp_path).open("test", 0)
    stray.unlink()
    (tmp_path / "test_images" / "img_2.png").write_bytes(good)
    split = config(tmp_path).open("test", 0)
    assert split.problems == ()
    np.testing.assert_array_equal(split[1].image, image(2))


def test_the_fingerprint_is_of_the_data_not_of_the_place(tmp_path):
    make(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    prints = [config(tmp_path / root).open("train", 0).fingerprint() for root in "ab"]
    assert prints[0] == prints[1]
    assert len(prints[0]) == 64
    assert config(tmp_path / "a", cache=False).open("train", 0).fingerprint() == prints[0]
    assert config(tmp_path / "a").open("val", 0).fingerprint() != prints[0]
    for number in range(1, 11):
        (tmp_path / "b" / "train_gts" / f"gt_img_{number}.txt").write_text("1,2,12,2,12,8,1,8,word\n")
    assert config(tmp_path / "b").open("train", 0).fingerprint() != prints[0]


def test_wrong_settings_are_refused(tmp_path):
    for wrong in ({"val_fraction": 0}, {"val_fraction": 1}, {"damaged": "ignore"}, {"colour": 1}):
        with pytest.raises(ValidationError):
            config(tmp_path, **wrong)


def test_there_is_no_image_beyond_the_last(tmp_path):
    split = config(make(tmp_path, train=0)).open("test", 0)
    assert len(list(split)) == 2
    for index in (2, -1):
        with pytest.raises(IndexError, match="2 images"):
            split[index]


def test_the_real_set():
    shared = Path(os.environ.get("COMPRESS_SHARED") or Path(__file__).parents[3].parent / "shared")
    root = shared / "data" / "icdar2015"
    if not root.is_dir():
        pytest.skip(f"no ICDAR2015 in {root}; set COMPRESS_SHARED")
    split = config(root, cache=False).open("val", 0)
    assert names(split) == [f"img_{number}" for number in range(851, 1001)]
    assert split[0].image.shape == (720, 1280, 3)
    assert split.problems == ()
    assert sum(len(words.truth.polygons) for words in split.annotations) == 1876
    assert sum(int(words.truth.ignore.sum()) for words in split.annotations) == 1110


def test_a_long_list_is_gone_through_once():
    images = [f"s{number}/img" for number in range(20_000)]
    start = time.process_time()
    found = named_images([f"{name}.jpg" for name in images] + ["data/s7/img.jpg", "img.jpg"], images)
    assert time.process_time() - start < 5
    assert found["s3/img.jpg"] == ["s3/img"]
    assert found["data/s7/img.jpg"] == ["s7/img"]
    assert len(found["img.jpg"]) == len(images)
