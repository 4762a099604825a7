"""What was once wrong without a word: turned pixels, other content of the same size, words that vanish, texts that are none."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from compress.data import digests
from compress.data.check import check
from compress.data.convert import convert
from compress.data.detection.folder import ImageFolder
from compress.data.formats import FORMATS, from_options
from compress.errors import CompressError

WORD = [(8, 10), (40, 10), (40, 20), (8, 20)]  # where the image is dark, in the pixels that are stored
POINTS = ",".join(str(value) for corner in WORD for value in corner)
LONG = ",".join(
    str(value) for corner in [*WORD[:2], *[(40, 12 + n) for n in range(5)], *WORD[2:], *[(8, 18 - n) for n in range(5)]] for value in corner
)


def photo(turn: int = 1, shade: int = 250) -> bytes:
    """A light PNG file, 48 high and 64 wide, dark at `WORD`, with an EXIF orientation."""
    pixels = np.full((48, 64, 3), shade, np.uint8)
    cv2.fillPoly(pixels, [np.array(WORD)], (0, 0, 0))
    exif, stored = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(stored, "PNG", exif=exif)
    return stored.getvalue()


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def icdar(root: Path, lines: str = f"{POINTS},word\n", **images: bytes) -> Path:
    """A test part in which every image has the same words."""
    for name, content in (images or {"img_1": photo()}).items():
        put(root / f"test_images/{name}.png", content)
        put(root / f"test_gts/gt_{name}.txt", lines)
    return root


def opened(name: str, root: Path, split: str = "test", **fields):
    return FORMATS[name](format=name, root=root, **fields).open(split, 0)


def darkness(sample) -> float:
    """Mean of the pixels inside of the only word, away from its edge."""
    (polygon,) = sample.truth.polygons
    middle = polygon.mean(0)
    inner = np.round(middle + 0.6 * (polygon - middle)).astype(np.int32)
    mask = cv2.fillPoly(np.zeros(sample.image.shape[:2], np.uint8), [inner], 1)
    return float(sample.image[mask > 0].mean())


# EXIF orientation

STORED = {
    "ctw1500": ("test_images/1001.png", "test_gts/1001.txt", f"{LONG},####word\n"),
    "icdar2017": ("test_images/img_1.png", "test_gts/gt_img_1.txt", f"{POINTS},Latin,word\n"),
    "totaltext": ("Images/Test/img1.png", "Groundtruth/Polygon/Test/poly_gt_img1.txt", f"{POINTS},word\n"),
    "msra_td500": ("test/IMG_1.png", "test/IMG_1.gt", "0 0 8 10 32 10 0\n"),
}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("name", STORED)
def test_words_of_stored_pixels_lie_on_them_however_an_image_is_turned(tmp_path, name, cache):
    image, truth, line = STORED[name]
    for turn in (1, 3, 6):
        put(tmp_path / image, photo(turn))
        put(tmp_path / truth, line)
        sample = opened(name, tmp_path, cache=cache)[0]
        assert sample.image.shape == (48, 64, 3)
        assert darkness(sample) == 0


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_conversion_turns_words_with_their_image(tmp_path, turn):
    image, truth, line = STORED["icdar2017"]
    put(tmp_path / "a" / image, photo(turn))
    put(tmp_path / "a" / truth, line)
    convert(tmp_path / "a", "icdar2017", tmp_path / "b", "paddleocr")
    shown = opened("paddleocr", tmp_path / "b")[0]
    assert shown.image.shape == ((48, 64, 3) if turn < 5 else (64, 48, 3))
    assert darkness(shown) == 0
    convert(tmp_path / "b", "paddleocr", tmp_path / "c", "totaltext")
    back = opened("totaltext", tmp_path / "c")[0]
    np.testing.assert_array_equal(back.truth.polygons, [WORD])


# Content of the same size


def test_fingerprints_and_cached_pixels_follow_content_not_size(tmp_path):
    path = icdar(tmp_path / "set") / "test_images/img_1.png"
    before = opened("icdar2015", tmp_path / "set")
    status = path.stat()
    put(path, photo(6))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = opened("icdar2015", tmp_path / "set")
    assert after.fingerprint() != before.fingerprint()
    assert after[0].image.shape == (64, 48, 3)
    assert before[0].image.shape == (48, 64, 3)


def test_images_are_read_through_again_only_when_they_changed(tmp_path, monkeypatch):
    root = icdar(tmp_path / "set", a=photo(), b=photo(shade=200))
    paths = sorted((root / "test_images").iterdir())
    read = []
    monkeypatch.setattr(digests, "digest", lambda path: (read.append(path.name), f"of {path.read_bytes()[-9:]!r}")[1])
    first = digests.file_digests(paths)
    assert digests.file_digests(paths[::-1]) == first[::-1]
    assert read == ["a.png", "b.png"]
    put(paths[1], photo(shade=190))
    digests.file_digests(paths)
    assert read == ["a.png", "b.png", "b.png"]
    os.mkfifo(root / "c.png")
    assert digests.file_digests([root / "c.png", root / "gone.png"]) == [digests.UNREADABLE] * 2


# Pairs


def test_two_images_for_one_ground_truth_and_two_for_one_image_are_named(tmp_path):
    root = icdar(tmp_path, img_1=photo(), img_2=photo(), img_3=photo())
    Image.open(root / "test_images/img_1.png").convert("RGB").save(root / "test_images/img_1.jpg")
    put(root / "test_gts/img_2.txt", f"{POINTS},other\n")
    split = opened("icdar2015", root, damaged="skip")
    assert [annotation.name for annotation in split.annotations] == ["img_3"]
    for problem, files in zip(split.problems, (("img_1.jpg", "img_1.png", "gt_img_1.txt"), ("gt_img_2.txt", "/img_2.txt")), strict=True):
        assert all(file in problem for file in files)
    with pytest.raises(CompressError, match="2 problems"):
        opened("icdar2015", root)


# Words


@pytest.mark.parametrize("cache", [True, False])
def test_a_word_outside_of_its_image_is_named_and_not_counted(tmp_path, cache, caplog):
    lines = f"{POINTS},word\n500,10,540,10,540,20,500,20,far\n-9,-9,9,-9,9,9,-9,9,partly\n8,60,40,60,40,70,8,70,below\n"
    split = opened("icdar2015", icdar(tmp_path, lines), cache=cache)
    assert split[0].truth.texts == ["word", "partly"]
    assert len(split[0].truth.polygons) == len(split[0].truth.ignore) == 2
    assert ["'far'" in problem or "'below'" in problem for problem in split.problems] == [True, True]
    assert all("img_1.png, which is 64 x 48 pixels" in problem for problem in split.problems)
    assert "They are not counted." in caplog.text
    with pytest.raises(CompressError, match="'far' at"):
        convert(tmp_path, "icdar2015", tmp_path / "out", "paddleocr")


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("totaltext", f"{POINTS},1,234", "behind its 5 corners, or the last of them, 1,234, is the text"),
        ("totaltext", f"{POINTS},1,234,567", "last corner, 1,234, is far from the others"),
        ("totaltext", f"{POINTS}", "there is no text"),
        ("totaltext", "x: [[8 40 40]], y: [[10 10 20]], ornt: [u'c'], transcriptions: [None]", "transcription is None"),
        ("ctw1500", f"{POINTS},1,234", "28 coordinates"),
        ("icdar2017", f"{POINTS},word", "a language and a transcription"),
        ("icdar2017", f"{POINTS},Hello, world", "'Hello' is no language"),
    ],
)
def test_a_text_that_cannot_be_told_is_named(tmp_path, name, line, told):
    image, truth, _ = STORED[name]
    put(tmp_path / image, photo())
    put(tmp_path / truth, line + "\n")
    report = check(from_options(name, tmp_path), 0)
    assert [told in problem and Path(truth).name in problem for problem in report.problems] == [True]
    assert report.splits[0].counts == {"words": 0, "do-not-care": 0}


def test_a_number_with_a_comma_is_a_text_where_the_number_of_corners_is_known(tmp_path):
    for name, line in (("ctw1500", f"{LONG},1,234"), ("icdar2017", f"{POINTS},Symbols,1,234")):
        image, truth, _ = STORED[name]
        put(tmp_path / name / image, photo())
        put(tmp_path / name / truth, line + "\n")
        assert opened(name, tmp_path / name)[0].truth.texts == ["1,234"]
    assert opened("icdar2015", icdar(tmp_path / "a", f"{POINTS},1,234\n"))[0].truth.texts == ["1,234"]


def test_a_language_is_not_read_as_text(tmp_path):
    lines = f"{POINTS},Latin,word\n{POINTS},None,###\n"
    report = check(from_options("icdar2015", icdar(tmp_path, lines)), 0)
    assert len(report.problems) == 1
    assert "read the data as icdar2017" in report.problems[0]
    sample = opened("icdar2017", tmp_path)[0]
    assert sample.truth.texts == ["word", "###"]
    assert sample.truth.ignore.tolist() == [False, True]
    assert opened("icdar2015", icdar(tmp_path / "b", f"{POINTS},Latin, he said\n{POINTS},word\n"))[0].truth.texts[0] == "Latin, he said"


@pytest.mark.parametrize("text", [None, 5, True, ["a"]])
def test_a_transcription_that_is_no_text_is_named(tmp_path, text):
    put(tmp_path / "a.png", photo())
    words = [{"transcription": text, "points": WORD}, {"transcription": "None", "points": WORD}]
    put(tmp_path / "test.txt", f"a.png\t{json.dumps(words)}\n")
    split = opened("paddleocr", tmp_path, damaged="skip")
    assert split[0].truth.texts == ["None"]
    assert [f"test.txt:1: word 1: its transcription is {json.dumps(text)}" in problem for problem in split.problems] == [True]


def test_two_records_on_one_line_are_two_words(tmp_path):
    image, truth, _ = STORED["totaltext"]
    record = "x: [[8 40 40]], y: [[10 10 20]], ornt: [u'c'], transcriptions: [u'{}']"
    put(tmp_path / image, photo())
    put(tmp_path / truth, record.format("one") + " " + record.format("two, ]x") + record.format("three") + "\n")
    assert opened("totaltext", tmp_path)[0].truth.texts == ["one", "two, ]x", "three"]


def test_an_annotation_of_an_image_that_is_not_there_is_named(tmp_path):
    entry = {"mask": [8, 10, 40, 10, 40, 20], "legibility": "legible", "utf8_string": "a"}
    document = {
        "imgs": {"1": {"set": "val", "file_name": "a.png"}},
        "anns": {"1": {"id": 1, "image_id": 1, **entry}, "2": {"id": 2, "image_id": 77, **entry}},
    }
    put(tmp_path / "train2014/a.png", photo())
    put(tmp_path / "cocotext.v2.json", json.dumps(document))
    problems = check(from_options("cocotext", tmp_path), 0).problems
    assert ["annotation 2: there is no image 77" in problem for problem in problems] == [True]


# Lists


def test_a_list_of_names_in_utf16_is_read_and_one_in_gbk_is_named(tmp_path):
    for number in (1, 2, 3):
        put(tmp_path / f"train_images/照片_{number}.png", photo())
        put(tmp_path / f"train_gts/gt_照片_{number}.txt", f"{POINTS},word\n")
    put(tmp_path / "val.txt", "照片_2.png\n".encode("utf-16"))
    assert [annotation.name for annotation in opened("icdar2015", tmp_path, "val").annotations] == ["照片_2"]
    put(tmp_path / "val.txt", "照片_2.png\n".encode("gbk"))
    with pytest.raises(CompressError, match=r"data\.val_list: .*val\.txt: not UTF-8"):
        opened("icdar2015", tmp_path, "val")


def test_label_files_for_train_val_and_test_are_the_splits(tmp_path):
    words = json.dumps([{"transcription": "word", "points": WORD}])
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        names = [f"{part}/{number}{part}.png" for number in range(count)]
        for name in names:
            put(tmp_path / "a" / name, photo())
        put(tmp_path / f"a/{part}.txt", "".join(f"{name}\t{words}\n" for name in names))
    for name, folder in (("paddleocr", "a"), ("icdar2015", "b")):
        found = {
            split: [Path(image.name).name for image in opened(name, tmp_path / folder, split).annotations]
            for split in ("train", "val", "test")
        }
        assert found == {"train": ["0train", "1train", "2train"], "val": ["0val", "1val"], "test": ["0test"]}
        if folder == "a":
            convert(tmp_path / "a", "paddleocr", tmp_path / "b", "icdar2015")


def test_a_data_set_without_images_is_not_converted(tmp_path):
    put(tmp_path / "a/test.txt", "\n")
    with pytest.raises(CompressError, match="no images that can be converted"):
        convert(tmp_path / "a", "paddleocr", tmp_path / "b", "totaltext")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_conversion_leaves_a_users_partial_folder_alone(tmp_path):
    put(tmp_path / "b.partial/precious.txt", "mine")
    icdar(tmp_path / "a")
    convert(tmp_path / "a", "icdar2015", tmp_path / "b", "paddleocr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "b.partial"]
    assert (tmp_path / "b.partial/precious.txt").read_text() == "mine"


def test_a_check_of_which_nothing_is_left_names_all_of_it(tmp_path):
    report = check(from_options("icdar2015", icdar(tmp_path, a=b"x", b=b"y")), 0, tmp_path / "sheet.png")
    assert len(report.problems) == 2
    assert report.splits[0].images == 0
    assert not (tmp_path / "sheet.png").exists()


def test_a_contact_sheet_replaces_no_file_of_a_users(tmp_path):
    mine = put(tmp_path / "sheet.png", b"mine")
    with pytest.raises(CompressError, match="compress has not made it"):
        check(from_options("icdar2015", icdar(tmp_path / "a")), 0, mine)
    assert mine.read_bytes() == b"mine"


def test_every_format_of_a_folder_says_whose_pixels_it_means():
    kinds = {name: kind.stored for name, kind in FORMATS.items() if issubclass(kind, ImageFolder)}
    assert {name for name, stored in kinds.items() if stored} == set(STORED)


def test_images_that_are_lost_in_mid_run_are_named(tmp_path):
    split = opened("icdar2015", icdar(tmp_path / "set"), cache=False)
    assert split[0].image.shape
    (tmp_path / "set/test_images/img_1.png").unlink()
    with pytest.raises(CompressError, match=r"img_1\.png"):
        split[0]
