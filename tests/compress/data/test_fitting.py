"""Texts that a model cannot give: refused or left out in training, told elsewhere; alphabets that a recipe takes from its data."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from compress.data.fitting import long_told, readable
from compress.data.split import Annotation, Split
from compress.errors import CompressError
from compress.models.alphabet import Alphabet
from compress.models.contract import Line
from compress.models.registry import build
from compress.recipe import load

RECIPE = """
model: {{name: crnn, alphabet: {alphabet}}}
data: {{format: synthetic_lines, train: 4, val: 2, test: 2, height: 16, characters: {characters}, longest: 3, words: 1}}
stages: [{{train: {{name: baseline, epochs: 1}}}}]
"""


def split(*texts: str, name: str = "train") -> Split:
    return Split(
        name, [Annotation(f"line_{place}", Line(text)) for place, text in enumerate(texts)], lambda place: np.full((4, 4, 3), place), "d"
    )


def test_training_texts_with_unknown_characters_are_refused_or_left_out(caplog):
    given = split("ab", "aé", "b", "ü")
    with pytest.raises(CompressError, match=r"2 of 4 texts of the train split hold .* alphabet \(é ü\), that of line_1 first: 'aé'"):
        readable(given, Alphabet("ab"), skip=False)
    with caplog.at_level(logging.WARNING):
        left = readable(given, Alphabet("ab"), skip=True)
    assert "They are left out." in caplog.text
    assert [sample.truth.text for sample in left] == ["ab", "b"]
    assert [int(sample.image[0, 0, 0]) for sample in left] == [0, 2]
    assert left.digest != given.digest
    assert readable(given, Alphabet("abéü"), skip=False) is given
    with pytest.raises(CompressError, match="No text is left"):
        readable(given, Alphabet("z"), skip=True)


def test_in_other_splits_they_stay_and_are_told(caplog):
    given = split("ab", "é", name="test")
    with caplog.at_level(logging.WARNING):
        assert readable(given, Alphabet("ab"), skip=False) is given
    assert "They cannot be read right." in caplog.text


def test_texts_longer_than_an_input_are_told():
    algorithm = build({"name": "crnn", "alphabet": "en"})
    told = long_told(split("abcd", "aabb"), algorithm, 20)
    assert told.startswith("1 of 2 texts of the train split need more than the 5 steps of an input that is 20 pixels wide, that of line_1")
    assert long_told(split("abcd", "aabb"), algorithm, 24) == ""


def test_texts_longer_than_a_decoder_gives_are_told_whatever_the_width():
    algorithm = build({"name": "crnn", "alphabet": "en", "head": {"name": "attention", "longest": 4}})
    told = long_told(split("aabb", "abcde"), algorithm, 8)
    assert told.startswith("1 of 2 texts of the train split need more than the 4 characters of the model's decoder, that of line_1 first")
    assert long_told(split("aabb", "abc"), algorithm, 8) == ""


@pytest.mark.parametrize("written", ["{texts: train}", "{texts: [train, val, test]}"])
def test_an_alphabet_of_the_texts_is_written_into_the_recipe(tmp_path, written):
    (tmp_path / "r.yml").write_text(RECIPE.format(alphabet=written, characters="digits"))
    recipe = load(tmp_path / "r.yml")
    texts = {name: [a.truth.text for a in recipe.data.open(name, 0).annotations] for name in ("train", "val", "test")}
    names = ["train"] if "[" not in written else list(texts)
    assert recipe.model["alphabet"] == {"characters": "".join(sorted(set("".join(t for name in names for t in texts[name]))))}
    (tmp_path / "again.yml").write_text(recipe.dump())
    assert load(tmp_path / "again.yml").model == recipe.model


def test_an_alphabet_from_a_dictionary_is_written_into_the_recipe(tmp_path):
    (tmp_path / "d.txt").write_bytes("7\r\né\r\n".encode())
    (tmp_path / "r.yml").write_text(RECIPE.format(alphabet=f"{{file: {tmp_path / 'd.txt'}}}", characters="digits"))
    assert load(tmp_path / "r.yml").model["alphabet"] == {"characters": "7é "}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{file: nowhere.txt}", "there is no file nowhere.txt"),
        ("{file: LATIN}", "not UTF-8 text"),
        ("{file: WORDS}", "line 2 holds 'two'; a dictionary has one character a line"),
        ("{texts: trian}", "there is no split 'trian'; did you mean 'train'"),
        ("{characters: aba}", "'a' is in the alphabet twice"),
    ],
)
def test_an_alphabet_that_cannot_be_had_is_named_with_its_line(tmp_path, written, told):
    (tmp_path / "LATIN").write_bytes(b"\xe9\n")
    (tmp_path / "WORDS").write_text("a\ntwo\n")
    for name in ("LATIN", "WORDS"):
        written = written.replace(name, str(tmp_path / name))
    (tmp_path / "r.yml").write_text(RECIPE.format(alphabet=written, characters="digits"))
    with pytest.raises(CompressError, match=told) as caught:
        load(tmp_path / "r.yml")
    assert "line 2" in str(caught.value)
    assert "alphabet" in str(caught.value)
