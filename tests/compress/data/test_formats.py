"""Total-Text, CTW1500, MSRA-TD500, PaddleOCR labels and COCO-Text: lines as published, and damage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress.data.check import check
from compress.data.detection.folder import numbers_and_text
from compress.data.formats import FORMATS, from_options
from compress.errors import CompressError
from tests.compress.data.sets import CURVE, CURVED, FOLDER_FORMATS, SQUARE, coco, one, opened, put, write_image

# Total-Text

TOTALTEXT = (
    "\ufeffx: [[206 251 386 542 620\n 646 550 358 189 140]], y: [[ 633  811  931  946  926\n  976 1009  989  845  629]], ornt: [u'c'], "
    "transcriptions: [u'PETRO, ]SAINS']\r\n"
    "x: [[1 11 11 1]], y: [[2 2 8 8]], ornt: [u'#'], transcriptions: [u'#']\n\n"
    "x: [[1 11 11  1]], y: [[2 2 8 8]], ornt: [u'h'], transcriptions: [u\"L'OR\"]\n"
    "x: [[1 11 11  1]], y: [[2 2 8 8]], ornt: [], transcriptions: [u'L'OR']\n"
)


@pytest.mark.parametrize(
    ("image", "truth"),
    [
        ("Images/Test/img1.JPG", "Groundtruth/Polygon/Test/poly_gt_img1.txt"),
        ("test_images/img1.jpg", "test_gts/img1.jpg.txt"),
        ("test_images/img1.png", "txt_format/Test/gt_img1.txt"),
    ],
)
def test_totaltext_as_the_authors_write_it(tmp_path, image, truth):
    sample = one("totaltext", tmp_path, image, truth, TOTALTEXT)
    assert sample.truth.texts == ["PETRO, ]SAINS", "#", "L'OR", "L'OR"]
    assert sample.truth.ignore.tolist() == [False, True, False, False]
    np.testing.assert_array_equal(sample.truth.polygons[0], CURVE)
    np.testing.assert_array_equal(sample.truth.polygons[3], SQUARE)


def test_totaltext_as_polygons_and_text(tmp_path):
    lines = f"{CURVED},PETRO\n1,2,11,2,11,8,1,8,a, b,1\r\n1,2,11,2,11,8,1,8,###\n1,2,11,2,11,8,1,8,1984\n1,2,11,2,11,8,1,8,nan\n"
    sample = one("totaltext", tmp_path, "test_images/img1.jpg", "test_gts/gt_img1.txt", lines)
    assert sample.truth.texts == ["PETRO", "a, b,1", "###", "1984", "nan"]
    assert [len(polygon) for polygon in sample.truth.polygons] == [10, 4, 4, 4, 4]
    assert sample.truth.ignore.tolist() == [False, False, True, False, False]
    with pytest.raises(CompressError, match=r"gt_img2\.txt:1: at least 8 coordinates and a transcription are needed, there are 6"):
        one("totaltext", tmp_path, "test_images/img2.jpg", "test_gts/gt_img2.txt", "1,2,11,2,11,8,word\n")


def test_numbers_and_text_are_told_apart():
    assert numbers_and_text("1,2,3,4,5,6,word,7") == (["1", "2", "3", "4", "5", "6"], "word,7")
    assert numbers_and_text("1,2,3,4,5,6,7") == (["1", "2", "3", "4", "5", "6"], "7")
    assert numbers_and_text("1,-2.5,3e1,4,5,6,7,word") == (["1", "-2.5", "3e1", "4", "5", "6"], "7,word")
    assert numbers_and_text("1,2,3,4,5,6,") == (["1", "2", "3", "4", "5", "6"], "")


# CTW1500

POINTS = [(10 + 10 * i, 30 - i) for i in range(7)] + [(70 - 10 * i, 44 + i) for i in range(7)]
FLAT = ",".join(str(value) for point in POINTS for value in point)


def test_ctw1500_in_all_its_forms(tmp_path):
    left, top = np.min(POINTS, 0)
    right, bottom = np.max(POINTS, 0)
    offsets = ",".join(str(value) for x, y in POINTS for value in (x - left, y - top))
    old = one(
        "ctw1500",
        tmp_path / "a",
        "test/text_image/1001.jpg",
        "test/text_label_curve/1001.txt",
        f"{left},{top},{right},{bottom},{offsets}\n",
    )
    new = one(
        "ctw1500", tmp_path / "b", "test_images/1001.jpg", "gt_ctw1500/0001001.txt", f"{FLAT},####a, b\n{FLAT},#######\n{FLAT},####\n"
    )
    xml = (
        '<Annotations><image file="0200.jpg"><box height="1" left="1" top="1" width="1"><label>ST&amp;AR</label>'
        f'<segs>{FLAT}</segs><pts x="1" y="2" /></box><box><label>###</label><segs>{FLAT}</segs></box></image></Annotations>'
    )
    last = one("ctw1500", tmp_path / "c", "test_images/0200.jpg", "test_gts/0200.xml", xml)
    for sample, texts, ignore in ((old, [""], [0]), (new, ["a, b", "###", ""], [0, 1, 0]), (last, ["ST&AR", "###"], [0, 1])):
        assert sample.truth.texts == texts
        assert sample.truth.ignore.tolist() == ignore
        for polygon in sample.truth.polygons:
            np.testing.assert_array_equal(polygon, POINTS)


@pytest.mark.parametrize("damage", ["<Annotations><box>", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_xml_that_is_none_is_damage(tmp_path, damage):
    write_image(tmp_path / "test_images/1.png")
    one_more = one("ctw1500", tmp_path, "test_images/2.png", "test_gts/2.txt", f"{FLAT},####x\n", damaged="skip")
    assert one_more.truth.texts == ["x"]
    put(tmp_path / "test_gts/1.xml", damage)
    assert any("not XML" in problem for problem in opened("ctw1500", tmp_path, damaged="skip").problems)


# MSRA-TD500


def test_msra_td500_turns_clockwise_about_the_centre(tmp_path):
    lines = f"0 0 100 50 40 20 0\n1 1 100 50 40 20 {math.pi / 2}\n2 0 100 50 40 20 {math.pi / 6}\n"
    sample = one("msra_td500", tmp_path, "test/IMG_0059.JPG", "test/IMG_0059.gt", lines)
    assert sample.truth.ignore.tolist() == [False, True, False]
    np.testing.assert_allclose(sample.truth.polygons[0], [(100, 50), (140, 50), (140, 70), (100, 70)])
    np.testing.assert_allclose(sample.truth.polygons[1], [(130, 40), (130, 80), (110, 80), (110, 40)], atol=1e-4)
    drawn = cv2.boxPoints(((120, 60), (40, 20), 30))  # OpenCV's angles are clockwise on the screen too
    assert {tuple(corner) for corner in drawn.round(2)} == {tuple(corner) for corner in sample.truth.polygons[2].round(2)}


# PaddleOCR

WORDS = [
    {"transcription": "a\tb", "points": [[1, 2], [11, 2], [11, 8.5], [1, 8]]},
    {"transcription": "###", "points": SQUARE},
    {"transcription": "*", "points": CURVE.tolist(), "difficult": False},
]


def test_paddleocr_labels(tmp_path):
    root = tmp_path / "set"
    write_image(root / "images/img_1.jpg")
    write_image(root / "img_2.png")
    lines = f"\ufeffimages/img_1.jpg\t{json.dumps(WORDS)}\r\n\nset/img_2.png\t[]\n"
    put(root / "test_icdar2015_label.txt", lines)
    split = opened("paddleocr", root)
    assert [annotation.name for annotation in split.annotations] == ["images/img_1", "set/img_2"]
    assert split[0].truth.texts == ["a\tb", "###", "*"]
    assert split[0].truth.ignore.tolist() == [False, True, True]
    np.testing.assert_array_equal(split[0].truth.polygons[2], CURVE)
    assert split[1].truth.polygons == []
    put(root / "other.txt", lines)
    assert opened("paddleocr", root, test=Path("other.txt")).fingerprint() == split.fingerprint()
    write_image(root / "img_3.png")
    put(root / "train.txt", lines + "img_3.png\t[]\n")
    put(root / "val.txt", "images/img_1.jpg\nimg_3.jpg\n")
    assert [len(opened("paddleocr", root, split)) for split in ("train", "val")] == [1, 2]


def test_a_list_of_names_tells_folders_apart(tmp_path):
    for place in ("train/a/1", "train/a/2", "train/b/1", "train/b/2"):
        write_image(tmp_path / f"{place}.png")
    put(tmp_path / "train.txt", "".join(f"train/{place}.png\t[]\n" for place in ("a/1", "a/2", "b/1", "b/2")))
    for listed, held in (("a/1.png", "train/a/1"), ("./train/b/2.png", "train/b/2"), ("data/train/a/2", "train/a/2")):
        put(tmp_path / "val.txt", f"{listed}\n")
        assert [annotation.name for annotation in opened("paddleocr", tmp_path, "val").annotations] == [held]
    put(tmp_path / "val.txt", "1.png\n")
    with pytest.raises(CompressError, match=r"1\.png in .*val\.txt may be train/a/1 or train/b/1; list names with their folders"):
        opened("paddleocr", tmp_path, "val")
    put(tmp_path / "val.txt", "c/1.png\n")
    with pytest.raises(CompressError, match=r"1 images that are not in the training part, c/1\.png first"):
        opened("paddleocr", tmp_path, "val")


# COCO-Text


def test_cocotext(tmp_path):
    document = coco(tmp_path)
    put(tmp_path / "cocotext.v2.json", json.dumps(document))
    sample = opened("cocotext", tmp_path)[0]
    assert sample.truth.texts == ["word", "", "mot"]
    assert sample.truth.ignore.tolist() == [False, True, False]
    np.testing.assert_array_equal(sample.truth.polygons[2], CURVE)
    english = opened("cocotext", tmp_path, language="english")
    assert english[0].truth.ignore.tolist() == [False, True, True]
    assert english.fingerprint() != opened("cocotext", tmp_path).fingerprint()
    both = [opened("cocotext", tmp_path, split) for split in ("train", "val")]
    assert sorted(len(split[0].truth.polygons) for split in both) == [0, 1]  # the image without text is one too
    document["anns"]["1"] |= {"mask": None}
    document["imgs"]["11"] = {"set": "val", "file_name": "gone.jpg"}
    put(tmp_path / "cocotext.v2.json", json.dumps(document))
    problems = opened("cocotext", tmp_path, damaged="skip").problems
    assert len(problems) == 2
    assert any("annotation 1" in problem for problem in problems)
    assert any("image 11" in problem for problem in problems)
    put(tmp_path / "cocotext.v2.json", "[]")
    with pytest.raises(CompressError, match="not COCO-Text"):
        opened("cocotext", tmp_path)


# Damage

BAD = {
    "totaltext": (
        "Groundtruth/Polygon/Test/poly_gt_{}.txt",
        [
            "x: [[1 2 3]], y: [[1 2]], ornt: [u'c'], transcriptions: [u'a']",
            "x: [[1 2 3",
            "1,2,3,4,word",
            "x: [[1 a 3]], y: [[1 2 3]], ornt: [], transcriptions: []",
        ],
    ),
    "ctw1500": ("gt_ctw1500/{}.txt", ["1,2,3,4,####a", "1,2,3,4,5,####a", "1,x,3,4,5,6,####a", "1,1,1,1,1,1,####a"]),
    "msra_td500": ("test/{}.gt", ["0 0 1 2 3 4", "0 2 1 2 3 4 0", "0 0 1 2 x 4 0", "0 0 1 2 3 4 inf", "0 0 1 2 0 4 0"]),
    "paddleocr": (None, ['[{"transcription": "a"}]', "{}", "[", "[3]", '[{"transcription": "a", "points": [[1, 2], [3, null], [5, 9]]}]']),
}  # fmt: skip
IMAGES = {"totaltext": "Images/Test/{}.png", "ctw1500": "test_images/{}.png", "msra_td500": "test/{}.png", "paddleocr": "{}.png"}


@pytest.mark.parametrize("name", BAD)
def test_damaged_lines_are_named_and_left_out(tmp_path, name):
    truth, lines = BAD[name]
    for number, line in enumerate(lines):
        write_image(tmp_path / IMAGES[name].format(f"1{number}"))
        if truth:
            put(tmp_path / truth.format(f"1{number}"), line + "\n")
    if not truth:
        put(
            tmp_path / "test.txt",
            "".join(f"1{number}.png\t{line}\n" for number, line in enumerate(lines)) + "gone.png\t[]\n10.png\t[]\nx\n",
        )
    with pytest.raises(CompressError, match=r"problems in the data.*1\d\.(txt|gt)|test\.txt:1"):
        opened(name, tmp_path)
    extra = 0 if truth else 3
    report = check(from_options(name, tmp_path), 0, tmp_path / "sheet.png") if truth else None
    problems = (
        report.problems if report else FORMATS[name](format=name, root=tmp_path, cache=False, damaged="skip").open("test", 0).problems
    )
    assert len(problems) == len(lines) + extra
    assert all(str(tmp_path) in problem and ": " in problem for problem in problems)
    if report:
        assert [(split.images, split.counts) for split in report.splits] == [(len(lines), {"words": 0, "do-not-care": 0})]


@pytest.mark.parametrize("name", ["totaltext", "ctw1500", "msra_td500"])
def test_what_is_not_text_and_what_is_alone(tmp_path, name):
    truth = BAD[name][0]
    write_image(tmp_path / IMAGES[name].format("21"))
    put(tmp_path / truth.format("21"), b"\xff1\n")
    write_image(tmp_path / IMAGES[name].format("22"))
    put(tmp_path / truth.format("23"), "")
    write_image(tmp_path / IMAGES[name].format("24"))
    put(tmp_path / truth.format("24"), "")
    split = opened(name, tmp_path, damaged="skip")
    assert len(split) == 1
    assert sorted("not UTF-8" in problem for problem in split.problems) == [False, False, True]


@pytest.mark.parametrize("name", FOLDER_FORMATS)
def test_folders_that_hold_nothing_are_refused(tmp_path, name):
    with pytest.raises(CompressError, match="neither"):
        from_options(name, tmp_path).splits()
    with pytest.raises(CompressError, match="no folder"):
        from_options(name, tmp_path / "x").splits()


# Lexicons


def test_a_lexicon_is_a_list_for_all_images_or_one_for_each(tmp_path):
    root, image, truth = tmp_path / "data", "ch4_test_images/img_{}.jpg", "Challenge4_Test_Task1_GT/gt_img_{}.txt"
    for number in (1, 2):
        write_image(root / image.format(number))
        put(root / truth.format(number), "1,2,11,2,11,8,1,8,word")
    put(tmp_path / "all.txt", "\ufeffword\n\nother\n")
    put(tmp_path / "each/voc_img_1.txt", "word")
    put(tmp_path / "each/img_2.txt", "sword")
    plain = opened("icdar2015", root)
    shared, own = (opened("icdar2015", root, lexicon=tmp_path / name) for name in ("all.txt", "each"))
    assert [sample.truth.lexicon for sample in plain.annotations] == [(), ()]
    assert [sample.truth.lexicon for sample in shared.annotations] == [("word", "other")] * 2
    assert [sample.truth.lexicon for sample in own.annotations] == [("word",), ("sword",)]
    assert len({split.digest for split in (plain, shared, own)}) == 3
    (tmp_path / "each/img_2.txt").unlink()
    with pytest.raises(CompressError, match=r"no lexicon at .*img_2\.txt"):
        opened("icdar2015", root, lexicon=tmp_path / "each")
    put(tmp_path / "all.txt", "\n")
    with pytest.raises(CompressError, match="has no words"):
        opened("icdar2015", root, lexicon=tmp_path / "all.txt")
