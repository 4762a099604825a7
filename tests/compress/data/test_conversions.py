"""Data sets of scenes in another format, and back: what comes back, and what is refused or said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compress.data.convert import convert
from compress.data.formats import FORMATS
from compress.errors import CompressError
from tests.compress.data.sets import CURVE, FOLDER_FORMATS, SQUARE, coco, opened, put, write_image


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
