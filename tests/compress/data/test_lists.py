"""Label and text lists: what is read, what is held out, and what is refused or left out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from compress.data.check import check
from compress.data.formats import from_options
from compress.data.labels import Labels
from compress.data.lines.lines import Lines
from compress.data.lines.turned import Turned
from compress.errors import CompressError

SHADES = {"a.png": 20, "b.png": 230, "c.png": 90, "d.jpg": 250, "e.png": 101}


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with five images of several sizes, and no list."""
    folder = tmp_path / "set"
    (folder / "words").mkdir(parents=True)
    for step, (name, shade) in enumerate(SHADES.items()):
        cv2.imwrite(str(folder / "words" / name), np.full((32, 64 + 32 * (step % 2), 3), shade, np.uint8))
    return folder


def write(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def labels(root: Path, **fields) -> Labels:
    return Labels(format="labels", root=root, **fields)


def lines(root: Path, **fields) -> Lines:
    return Lines(format="lines", root=root, **fields)


@pytest.mark.parametrize("cache", [True, False])
def test_each_line_is_an_image_and_its_truth_in_the_order_of_the_list(root, cache):
    write(root / "test.txt", "words/b.png\tStreet 7, left ", "", "words/a.png\t180")
    texts, classes = lines(root, cache=cache).open("test", 0), labels(root, cache=cache).open("test", 0)
    assert [(sample.name, sample.truth.text) for sample in texts] == [("words/b", "Street 7, left "), ("words/a", "180")]
    assert [sample.truth.name for sample in classes] == ["Street 7, left ", "180"]
    for split in (texts, classes):
        np.testing.assert_array_equal(split[0].image, np.full((32, 96, 3), 230))
        np.testing.assert_array_equal(split[1].image, np.full((32, 64, 3), 20))


@pytest.mark.parametrize(
    ("kind", "name"), [(labels, "cls_gt_{}.txt"), (labels, "{}_label.txt"), (lines, "rec_gt_{}.txt"), (lines, "{}.txt")]
)
def test_lists_of_usual_names_are_found(root, kind, name):
    write(root / name.format("train"), "words/a.png\tx", "words/b.png\ty")
    write(root / name.format("val"), "words/c.png\tx")
    data = kind(root)
    assert data.splits() == ("train", "val")
    assert [len(data.open(split, 0)) for split in data.splits()] == [2, 1]


def test_a_named_list_may_lie_apart_from_the_images(root, tmp_path):
    apart = tmp_path / "apart.txt"
    apart.write_text("\ufeffwords/b.png\tlight\r\n\nset/words/a.png\tdark\r\n")
    split = labels(root, test=apart).open("test", 0)
    assert [sample.truth.name for sample in split] == ["light", "dark"]
    assert [int(sample.image[0, 0, 0]) for sample in split] == [230, 20]
    with pytest.raises(CompressError, match=r"data\.test: there is no file .*other\.txt; name a list"):
        labels(root, test=tmp_path / "other.txt").splits()


def test_without_a_list_for_validation_a_block_is_held_out(root):
    many = [f"words/{number}.png" for number in range(40)]
    for name in many:
        cv2.imwrite(str(root / name), np.zeros((4, 4, 3), np.uint8))
    write(root / "train.txt", *(f"{name}\ttext {number}" for number, name in enumerate(many)))
    data = lines(root, val_fraction=0.25)
    places = {split: [int(sample.truth.text.split()[1]) for sample in data.open(split, 3)] for split in data.splits()}
    assert data.splits() == ("train", "val")
    assert sorted(places["train"] + places["val"]) == list(range(40))
    assert len(places["val"]) == 10
    steps = sorted((after - before) % 40 for before, after in zip(places["val"], places["val"][1:] + places["val"][:1], strict=True))
    assert steps[:-1] == [1] * 9, "neighbours, in a ring"
    assert [data.open("val", seed).digest for seed in (3, 3, 4)].count(data.open("val", 3).digest) == 2


def test_of_every_label_some_are_held_out_and_some_are_left(root):
    names = [f"words/{number}.png" for number in range(21)]
    for name in names:
        cv2.imwrite(str(root / name), np.zeros((4, 4, 3), np.uint8))
    kinds = ["0"] * 10 + ["180"] * 10 + ["90"]
    write(root / "train.txt", *(f"{name}\t{kind}" for name, kind in zip(names, kinds, strict=True)))
    held, left = ([sample.truth.name for sample in labels(root, val_fraction=0.2).open(split, 0)] for split in ("val", "train"))
    assert (held.count("0"), held.count("180"), held.count("90")) == (2, 2, 0)
    assert (left.count("0"), left.count("180"), left.count("90")) == (8, 8, 1)


@pytest.mark.parametrize(
    ("kind", "line", "told"),
    [
        (labels, "words/b.png light", "a path, a tab and a label are needed"),
        (labels, "\tlight", "a path, a tab and a label are needed"),
        (labels, "words/b.png\tgrey", "'grey' is none of the labels dark, light"),
        (labels, "words/b.png\t", "a label is needed after the path and the tab"),
        (labels, "words/b.png\tlight\t0.9", "a label is needed after the path and the tab, and nothing else"),
        (labels, "words/gone.png\tlight", "there is no image"),
        (labels, "words/a.png\tlight", "was listed before, in line 1"),
        (labels, "x" * 5000, "a path, a tab and a label are needed"),
        (labels, "x" * 5000 + "\tlight", "there is no image"),
        (lines, "words/b.png\t", "the text is empty"),
        (lines, "words/b.png\t  ", "the text is empty"),
        (lines, "words/b.png\tone\ttwo", "there is a tab in the text"),
        (lines, "words/b.png one", "a path, a tab and a text are needed"),
        (lines, "words/bad.png\tone", "does not decode as an image"),
        (lines, "words/short.jpg\tone", "is a JPEG file that is cut off"),
    ],
)
@pytest.mark.parametrize("damaged", ["refuse", "skip"])
def test_a_line_that_cannot_be_used_is_named_and_refused_or_left_out(root, caplog, kind, line, told, damaged):
    (root / "words" / "bad.png").write_bytes(b"\x89PNG")
    (root / "words" / "short.jpg").write_bytes((root / "words" / "d.jpg").read_bytes()[:-20])
    write(root / "test.txt", "words/a.png\tdark", line, "words/e.png\tdark")
    fields = {"labels": ("dark", "light")} if kind is labels else {}
    data = kind(root, damaged=damaged, **fields)
    if damaged == "refuse":
        with pytest.raises(CompressError) as caught:
            data.open("test", 0)
        sentence = str(caught.value)
    else:
        split = data.open("test", 0)
        assert [sample.name for sample in split] == ["words/a", "words/e"]
        (problem,) = split.problems
        (sentence,) = caplog.messages
        assert problem in sentence
    assert told in sentence
    assert f"{root / 'test.txt'}:2: " in sentence
    assert "1 problem" in sentence
    assert "\n" not in sentence


def test_lists_that_are_not_there_or_not_text_are_refused(root, tmp_path):
    with pytest.raises(CompressError, match=r"there is no folder .*nowhere"):
        labels(tmp_path / "nowhere").splits()
    with pytest.raises(CompressError, match=r"holds no list train\.txt or train_label\.txt or cls_gt_train\.txt"):
        labels(root).splits()
    write(root / "test.txt", "")
    with pytest.raises(CompressError, match="no list for train; known are test"):
        labels(root).open("train", 0)
    with pytest.raises(CompressError, match="has no images left"):
        labels(root).open("test", 0)
    (root / "test.txt").write_bytes("words/a.png\tgrün\n".encode("latin-1"))
    with pytest.raises(CompressError, match="not UTF-8 text"):
        lines(root).open("test", 0)


def test_a_lists_digest_is_of_what_it_says(root):
    write(root / "test.txt", "words/a.png\tone")
    before = lines(root).open("test", 0).digest
    assert lines(root, cache=False).open("test", 5).digest == before
    write(root / "test.txt", "words/a.png\ttwo")
    after = lines(root).open("test", 0)
    assert after.digest != before
    assert after[0].truth.text == "two"


def test_check_counts_and_names(root):
    write(root / "test.txt", "words/a.png\t0", "words/b.png\t180", "words/gone.png\t0", "words/c.png\t180")
    report = check(from_options("labels", root), 0)
    assert str(report).startswith("test: 3 images, 1 0, 2 180\n1 problem\n")
    assert "words/gone.png" in str(report)


def test_check_reports_what_is_damaged_below_turned_lines(root):
    write(root / "test.txt", "words/a.png\tone", "words/b.png\t", "words/c.png\ttwo")
    report = check(Turned(format="turned", of=lines(root)), 0)
    (split,) = report.splits
    assert (split.images, sum(split.counts.values()), len(report.problems)) == (2, 2, 1)


def test_wrong_settings_are_refused(root):
    for wrong in ({"val_fraction": 0}, {"damaged": "ignore"}, {"words": 3}):
        with pytest.raises(ValidationError):
            lines(root, **wrong)
    for both in ({}, {"root": root, "from": {"format": "icdar2015", "root": root}}):
        with pytest.raises(ValidationError, match="either `root`, a folder with lists, or `from`"):
            Lines(format="lines", **both)
