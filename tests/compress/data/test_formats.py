"""Total-Text, CTW1500, MSRA-TD500, PaddleOCR labels and COCO-Text: lines as published, damage, and conversion between them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress.data.check import check
from compress.data.convert import convert
from compress.data.detection.folder import ImageFolder, numbers_and_text
from compress.data.formats import FORMATS, from_options
from compress.errors import CompressError

FOLDER_FORMATS = [name for name, kind in FORMATS.items() if issubclass(kind, ImageFolder)]
CURVED = "206,633,251,811,386,931,542,946,620,926,646,976,550,1009,358,989,189,845,140,629"
CURVE = np.array(CURVED.split(","), float).reshape(-1, 2)
SQUARE = [(1, 2), (11, 2), (11, 8), (1, 8)]


def write_image(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((1024, 700, 3), shade, np.uint8))


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def opened(name: str, root: Path, split: str = "test", **fields):
    return FORMATS[name](format=name, root=root, cache=False, **fields).open(split, 0)


def one(name: str, root: Path, image: str, truth: str, content: str | bytes, **fields):
    """The only sample of the test part: an image and its annotations."""
    write_image(root / image)
    put(root / truth, content)
    return opened(name, root, **fields)[0]


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


def coco(root: Path) -> dict:
    def entry(number: int, image: int, **fields) -> dict:
        plain = {"mask": [1, 2, 11, 2, 11, 8, 1, 8], "legibility": "legible", "language": "english", "utf8_string": "word"}
        return {"id": number, "image_id": image, **plain, **fields}

    annotations = [
        entry(1, 7),
        entry(2, 7, legibility="illegible", utf8_string=""),
        entry(3, 7, mask=CURVE.ravel().tolist(), language="not english", utf8_string="mot"),
        entry(4, 8),
    ]
    sets = {7: "val", 8: "train", 9: "train", 10: "test"}
    for number in (7, 8, 9):
        write_image(root / f"train2014/COCO_{number}.jpg")
    return {
        "anns": {str(item["id"]): item for item in annotations},
        "imgs": {str(number): {"id": number, "set": name, "file_name": f"COCO_{number}.jpg"} for number, name in sets.items()},
    }


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


# Conversion


def source(root: Path, quads_only: bool = False) -> Path:
    """A data set as PaddleOCR has them: three images to train on, one to test, curved words unless told otherwise."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 1)):
        lines = []
        for number in range(1, count + 1):
            write_image(root / part / f"img_{number}.png", 40 * number)
            words = []
            for text in ("word", "###", 'it\'s "a" café, 1', "1984", ""):
                corners = CURVE + rng.normal(0, 3, CURVE.shape) if not quads_only else np.array(SQUARE) * 3 + rng.normal(0, 1, (4, 2))
                words.append({"transcription": text, "points": corners.round(3).tolist()})
            lines.append(f"{part}/img_{number}.png\t{json.dumps(words)}\n")
        put(root / f"{part}.txt", "".join(lines))
    put(root / "val.txt", "train/img_2.png\n")
    return root


def everything(name: str, root: Path) -> dict[str, list]:
    data = FORMATS[name](format=name, root=root, cache=False)
    return {split: list(data.open(split, 0)) for split in ("train", "val", "test")}


def same(one: dict[str, list], other: dict[str, list], marks: tuple[str, ...] = ("###", "#", "*", "")) -> None:
    for split, samples in one.items():
        for mine, theirs in zip(samples, other[split], strict=True):
            assert Path(mine.name).name == Path(theirs.name).name
            np.testing.assert_array_equal(mine.image, theirs.image)
            np.testing.assert_array_equal(mine.truth.ignore, theirs.truth.ignore)
            assert [a for a in mine.truth.texts if a not in marks] == [b for b in theirs.truth.texts if b not in marks]
            for a, b in zip(mine.truth.polygons, theirs.truth.polygons, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("to", ["totaltext", "ctw1500", "cocotext", "paddleocr"])
def test_polygons_of_any_length_come_back_exactly(tmp_path, to):
    start = everything("paddleocr", source(tmp_path / "a"))
    assert [sample.name for sample in start["val"]] == ["train/img_2"]
    assert convert(tmp_path / "a", "paddleocr", tmp_path / "b", to) == ["train: 3 images", "test: 1 images"]
    same(start, everything(to, tmp_path / "b"))
    convert(tmp_path / "b", to, tmp_path / "c", "paddleocr")
    same(start, everything("paddleocr", tmp_path / "c"))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("via", [name for name in FOLDER_FORMATS if name not in ("icdar2015", "msra_td500")])
def test_quads_come_back_exactly(tmp_path, via):
    convert(source(tmp_path / "a", quads_only=True), "paddleocr", tmp_path / "b", "icdar2015")
    start = everything("icdar2015", tmp_path / "b")
    assert start["test"][0].truth.texts == ["word", "###", 'it\'s "a" café, 1', "1984", ""]
    convert(tmp_path / "b", "icdar2015", tmp_path / "c", via)
    convert(tmp_path / "c", via, tmp_path / "d", "icdar2015")
    same(start, everything("icdar2015", tmp_path / "d"))
    for split in ("train", "val", "test"):
        assert [sample.truth.texts for sample in start[split]] == [
            sample.truth.texts for sample in everything("icdar2015", tmp_path / "d")[split]
        ]


def test_turned_rectangles_there_and_back(tmp_path):
    write_image(tmp_path / "a/test/IMG_1.png")
    put(tmp_path / "a/test/IMG_1.gt", "0 0 100 50 40 20 0.3\n1 1 13 57 140 21 -1.2\n")
    start = opened("msra_td500", tmp_path / "a")[0]
    convert(tmp_path / "a", "msra_td500", tmp_path / "b", "icdar2015")
    assert convert(tmp_path / "b", "icdar2015", tmp_path / "c", "msra_td500") == ["test: 1 images"]
    back = opened("msra_td500", tmp_path / "c")[0]
    np.testing.assert_allclose(back.truth.polygons, start.truth.polygons, atol=1e-3)
    assert back.truth.ignore.tolist() == [False, True]


def test_what_a_format_cannot_hold_is_refused_in_a_sentence(tmp_path):
    source(tmp_path / "curved")
    source(tmp_path / "quads", quads_only=True)
    for folder, to, told in (
        ("curved", "icdar2015", r"test\.txt|train\.txt.*10 corners, and icdar2015 holds words of four corners"),
        ("curved", "msra_td500", "no rectangle"),
        ("quads", "msra_td500", "no rectangle"),
        ("curved", "synthetic", "formats that can are"),
        ("curved", "totltext", "did you mean 'totaltext'"),
        ("curved", "paddleocr", "there already"),
    ):
        out = tmp_path / ("quads" if told == "there already" else "out")
        with pytest.raises(CompressError, match=told):
            convert(tmp_path / folder, "paddleocr", out, to)
        assert not (tmp_path / "out").exists()
    put(tmp_path / "quads/test.txt", 'test/img_1.png\t[{"transcription": "#", "points": [[1, 2], [11, 2], [11, 8]]}]\n')
    with pytest.raises(CompressError, match="the word '#' counts and would be do-not-care there"):
        convert(tmp_path / "quads", "paddleocr", tmp_path / "out", "totaltext")
    with pytest.raises(CompressError, match="--damaged skp"):
        convert(tmp_path / "quads", "paddleocr", tmp_path / "out", "ctw1500", "skp")


def test_transcriptions_that_are_lost_are_counted(tmp_path):
    put(tmp_path / "a/cocotext.v2.json", json.dumps(coco(tmp_path / "a")))
    told = convert(tmp_path / "a", "cocotext", tmp_path / "b", "totaltext")
    assert told == ["train: 2 images", "test: 1 images"]
    document = coco(tmp_path / "c")
    document["anns"]["2"]["utf8_string"] = "illegible, yet written"
    document["anns"]["1"]["utf8_string"] = "two\nlines"
    put(tmp_path / "c/cocotext.v2.json", json.dumps(document))
    told = convert(tmp_path / "c", "cocotext", tmp_path / "d", "ctw1500")
    assert told[-1] == "2 transcriptions are not the same in ctw1500, that of 'two\nlines' in COCO_7 first."
    assert opened("ctw1500", tmp_path / "d")[0].truth.texts == ["two lines", "###", "mot"]


def test_damage_is_refused_or_left_out_of_a_conversion(tmp_path):
    source(tmp_path / "a")
    with (tmp_path / "a/test.txt").open("a") as file:
        file.write("gone.png\t[]\n")
    with pytest.raises(CompressError, match="gone"):
        convert(tmp_path / "a", "paddleocr", tmp_path / "b", "totaltext")
    assert not (tmp_path / "b").exists()
    told = convert(tmp_path / "a", "paddleocr", tmp_path / "b", "totaltext", damaged="skip")
    assert told[:2] == ["train: 3 images", "test: 1 images"]
    assert told[2].startswith("Left out: 1 problems in the data")


def test_images_of_one_name_are_not_lost(tmp_path):
    for folder in "xy":
        write_image(tmp_path / f"a/{folder}/img.png")
    put(tmp_path / "a/test.txt", "x/img.png\t[]\ny/img.png\t[]\n")
    with pytest.raises(CompressError, match="another image is called img"):
        convert(tmp_path / "a", "paddleocr", tmp_path / "b", "totaltext")


def test_the_command(tmp_path):
    from typer.testing import CliRunner

    from compress.cli import app

    source(tmp_path / "a")
    ran = CliRunner().invoke(
        app, ["data", "convert", str(tmp_path / "a"), "--from", "paddleocr", "--to", "totaltext", "-o", str(tmp_path / "b")]
    )
    assert ran.exit_code == 0
    assert "train: 3 images" in ran.output
    ran = CliRunner().invoke(app, ["data", "check", str(tmp_path / "b"), "--format", "totaltext", "--out", str(tmp_path / "sheet.png")])
    assert ran.exit_code == 0
    assert "test: 1 images, 4 words, 1 do-not-care" in ran.output


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


def test_damaged_images_of_the_list_are_left_out_of_a_conversion_and_the_others_stay_held_out(tmp_path):
    root = source(tmp_path / "a", quads_only=True)
    (root / "train/img_2.png").write_bytes(b"no image")
    put(root / "val.txt", "train/img_2.png\ntrain/img_3.png\n")
    told = convert(root, "paddleocr", tmp_path / "b", "icdar2015", "skip")
    assert "train: 2 images" in told
    assert (tmp_path / "b/val.txt").read_text() == "img_3\n"


def test_a_list_is_read_once_in_a_conversion(tmp_path, monkeypatch):
    root, reading = source(tmp_path / "a", quads_only=True), FORMATS["paddleocr"]
    asked: list[int] = []
    plain = reading.held_out
    monkeypatch.setattr(reading, "held_out", lambda self, names, *rest: asked.append(len(names)) or plain(self, names, *rest))
    convert(root, "paddleocr", tmp_path / "b", "icdar2015")
    assert asked == [3]


@pytest.mark.parametrize(
    ("names", "to", "told"),
    [
        (["gt_1", "2"], "icdar2015", "icdar2015 would not find the annotations of an image called gt_1"),
        (["gt_1", "1"], "totaltext", "totaltext cannot tell the images 1 and gt_1 apart"),
        (["1", "01"], "ctw1500", "ctw1500 cannot tell the images 01 and 1 apart"),
    ],
)
def test_names_that_would_not_be_paired_again_are_refused(tmp_path, names, to, told):
    for name in names:
        write_image(tmp_path / f"a/{name}.png")
    put(tmp_path / "a/train.txt", "".join(f"{name}.png\t[]\n" for name in names))
    with pytest.raises(CompressError, match=told):
        convert(tmp_path / "a", "paddleocr", tmp_path / "b", to)
    assert not (tmp_path / "b").exists()
