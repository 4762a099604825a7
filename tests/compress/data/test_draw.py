"""`compress data draw`: photographs that any reader of their format finds the same words on."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.data.detection.synthetic import draw
from compress.data.draw import draw_folder, photographed
from compress.data.formats import from_options, open_split
from compress.data.lines.synthetic import SyntheticLines
from compress.errors import CompressError


@pytest.mark.parametrize("name", ["icdar2015", "paddleocr", "totaltext", "cocotext"])
def test_the_words_are_those_of_the_generator(tmp_path, name):
    told = draw_folder(tmp_path / "photos", name, images=3, test=1, size=96, seed=5)
    assert told == ["train: 3 images", "test: 1 images"]
    config = from_options(name, tmp_path / "photos")
    found = {sample.name: sample for split in config.splits() for sample in open_split(config, split, 0, quiet=True)}
    assert len(found) == 4
    for part, index in (("train", 0), ("train", 1), ("train", 2), ("test", 0)):
        words, image = draw(5, part, index, 96)
        read = next(sample for label, sample in found.items() if label.endswith(words.name))
        assert read.image.shape == image.shape
        assert len(read.truth.polygons) == len(words.truth.polygons)
        for polygon, other in zip(read.truth.polygons, words.truth.polygons, strict=True):
            np.testing.assert_allclose(polygon, other, atol=0.01)
        np.testing.assert_array_equal(read.truth.ignore, words.truth.ignore)


def test_a_seed_gives_the_same_bytes_and_another_one_other_images(tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_folder(tmp_path / folder, "icdar2015", images=2, test=0, size=64, seed=seed)
    first, again, other = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / folder).rglob("*")) if path.is_file()} for folder in "abc"
    )
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".jpg"))


def test_light_takes_away_and_grain_stays_small():
    image = np.full((64, 64, 3), 200, np.uint8)
    shots = [photographed(image, np.random.default_rng(seed)).astype(float) for seed in range(8)]
    assert all(shot.mean() < 200 for shot in shots)
    assert any(np.ptp(shot.mean(axis=2)[::16, ::16]) > 40 for shot in shots), "light is uneven"


def test_what_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = CliRunner().invoke(app, ["data", "draw", str(tmp_path)])
    assert isinstance(result.exception, CompressError)
    assert "name a folder that is new or empty" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_format_that_holds_no_scenes_is_refused(tmp_path):
    with pytest.raises(CompressError, match="Data of the format synthetic_lines cannot be converted; formats that can are"):
        draw_folder(tmp_path / "photos", "synthetic_lines", images=2, test=0, size=64, seed=0)
    assert not (tmp_path / "photos").exists()


def test_a_format_of_rectangles_is_refused(tmp_path):
    with pytest.raises(CompressError, match=r"--format msra_td500 cannot hold what is drawn: the word '.*' is no rectangle"):
        draw_folder(tmp_path / "photos", "msra_td500", images=2, test=0, size=128, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["draw", "photos"], ["check", "photos"]])
def test_seeds_begin_at_0(tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["data", *words, "--seed", "-1"])
    assert result.exit_code == 2
    assert "--seed" in result.output


@pytest.mark.parametrize("name", ["lines", "lmdb"])
def test_lines_are_those_of_the_generator_in_words_of_ones_own(tmp_path, name):
    if name == "lmdb":
        pytest.importorskip("lmdb")
    (tmp_path / "words.txt").write_text("Harbour\nquay\n")
    out, vocabulary = tmp_path / "drawn", str(tmp_path / "words.txt")
    options = ["--images", "6", "--test", "2", "--seed", "3", "--words", "1", "--vocabulary", vocabulary]
    result = CliRunner().invoke(app, ["data", "draw", str(out), "--format", name, *options])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[:2] == ["train: 6 lines", "test: 2 lines"]
    wanted = SyntheticLines(format="synthetic_lines", train=6, test=2, words=1, vocabulary=tmp_path / "words.txt")
    read = from_options(name, out).model_copy(update={"val_fraction": 0.5} if name == "lines" else {})
    for part, count in (("train", 6), ("test", 2)):
        drawn = {(sample.truth.text, sample.image.tobytes()) for sample in open_split(wanted, part, 3, quiet=True)}
        found = {(sample.truth.text, sample.image.tobytes()) for sample in open_split(read, part, 3, quiet=True)}
        assert 0 < len(found) <= count
        assert found <= drawn


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--vocabulary", "words.txt"], "--fonts, --vocabulary and --words are of lines, and icdar2015 holds photographs"),
        (["--words", "1"], "are of lines, and icdar2015 holds photographs"),
        (["--size", "32"], "--size 32: photographs have 64 pixels or more"),
        (["--format", "lines", "--size", "640"], "--size 640: lines are 16 to 256 pixels high"),
        (["--format", "lines", "--vocabulary", "nowhere.txt"], "nowhere.txt"),
        (["--format", "lines", "--fonts", "nowhere"], "there is no folder nowhere"),
        (["--format", "lines", "--vocabulary", "empty.txt"], "empty.txt holds no word of one to 25 ASCII characters"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_left(tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("quay\n")
    (tmp_path / "empty.txt").write_text("\n\n")
    result = CliRunner().invoke(app, ["data", "draw", "drawn", "--images", "2", "--test", "0", *options])
    assert isinstance(result.exception, CompressError)
    assert said in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "words.txt"]
