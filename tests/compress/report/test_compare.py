from __future__ import annotations

import base64
from dataclasses import replace

import cv2
import numpy as np
import pytest

from compress.errors import CompressError
from compress.evaluation import detector
from compress.evaluation.icdar import Score
from compress.recipe import load
from compress.report import compare as comparing
from compress.report.collect import collect
from compress.report.compare import compare, hmeans, most_changed

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 4, val: 6, test: 2, size: 64}
evaluate: {short_side: 64}
stages: [{train: {name: baseline, epochs: 1}}]
"""


@pytest.fixture
def experiment(written, row, tmp_path, monkeypatch):
    """Two artefacts: one finds every word, the other none of those on pictures 2 and 4. A third has no weights, a fourth does not open."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    folder = written("x", [row(name) for name in ("good", "lost", "broken", "bad")])
    (folder / "recipe.yml").write_text(RECIPE)
    for name in ("good", "broken", "bad"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(name.encode())

    def opened(path):
        if path.name == "broken":
            raise CompressError("it is of another version.")
        return path.name

    def found(name, _settings, samples):
        calls.append((name, len(samples)))
        every = [list(sample.truth.polygons) for sample in (samples[index] for index in range(len(samples)))]
        hidden = {sample_names[2], sample_names[4]} if name == "bad" else set()
        return [[] if samples[index].name in hidden else polygons for index, polygons in enumerate(every)]

    calls: list[tuple[str, int]] = []
    recipe = load(folder / "recipe.yml")
    sample_names = [words.name for words in recipe.data.open("val", recipe.seed).annotations]
    monkeypatch.setattr(detector, "open_detector", opened)
    monkeypatch.setattr(comparing, "detections", found)
    return collect([folder])[0], calls, sample_names


def test_the_pictures_that_changed_the_most_are_shown_by_every_artefact_that_opens(experiment):
    facts, calls, names = experiment
    result = compare(facts, 2)
    assert [picture["name"] for picture in result["pictures"]] == [names[2], names[4]]
    for picture in result["pictures"]:
        words = sum(not ignore for ignore in picture["ignore"])
        assert list(picture["found"]) == ["good", "bad"]
        assert counts(picture["found"]["good"]["score"]) == [words, words, words]
        assert counts(picture["found"]["bad"]["score"]) == [0, 0, words]
        assert picture["found"]["bad"]["polygons"] == []
        image = cv2.imdecode(np.frombuffer(base64.b64decode(picture["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
        assert image.shape[:2] == (picture["height"], picture["width"])
    notes = " ".join(result["notes"])
    assert "their weights are not there: lost." in notes
    assert "broken is left out: it is of another version." in notes
    assert sorted(calls) == [("bad", 2), ("bad", 6), ("good", 2), ("good", 6)]


def counts(score):
    return [score[name] for name in ("matched", "detected", "words")]


def test_pictures_are_judged_by_the_recipe_s_protocol(experiment):
    """By CLEval words are counted in characters."""
    facts, _, _ = experiment
    text = RECIPE.replace("{short_side: 64}", "{short_side: 64, protocol: cleval}")
    (facts.folder / "recipe.yml").write_text(text)
    result = compare(replace(facts, recipe=text), 2)
    recipe = load(facts.folder / "recipe.yml")
    pictures = {words.name: words for words in recipe.data.open("val", recipe.seed).annotations}
    assert result["notes"][0].endswith("by protocol cleval.")
    for picture in result["pictures"]:
        words = pictures[picture["name"]]
        characters = sum(len(text) for text, ignore in zip(words.truth.texts, words.truth.ignore, strict=True) if not ignore)
        assert picture["found"]["good"]["score"]["words"] == characters > len(words.truth.texts)


def test_a_second_call_runs_nothing_until_weights_change(experiment):
    facts, calls, _ = experiment
    first = compare(facts, 2)
    done = len(calls)
    assert compare(facts, 2) == first
    assert len(calls) == done
    (facts.folder / "bad" / "model.safetensors").write_bytes(b"other")
    compare(facts, 2)
    assert len(calls) == 2 * done


@pytest.mark.parametrize("missing", ["recipe", "weights", "data"])
def test_what_is_missing_is_said(missing, experiment, tmp_path):
    facts, _, _ = experiment
    if missing == "recipe":
        facts, told = replace(facts, recipe=""), "no recipe.yml"
    elif missing == "weights":
        (facts.folder / "bad" / "model.safetensors").unlink()
        told = "their weights are not there: lost, bad."
    else:
        text = RECIPE.replace("{format: synthetic, train: 4, val: 6, test: 2, size: 64}", f"{{format: icdar2015, root: {tmp_path}/gone}}")
        (facts.folder / "recipe.yml").write_text(text)
        facts, told = replace(facts, recipe=text), "gone"
    result = compare(facts, 2)
    assert result["pictures"] == []
    assert told in result["notes"][0]


def test_hmean_of_a_picture_without_words_is_1_where_none_was_found():
    found = [Score(0.5, 0.5, 0.5, 1, 2, 2), Score(0, 0, 0, 0, 0, 3), Score(0, 0, 0, 0, 0, 0), Score(0, 0, 0, 0, 1, 0)]
    assert hmeans(found).tolist() == [0.5, 0.0, 1.0, 0.0]


def test_losses_go_before_equal_gains_and_earlier_pictures_before_later():
    before, after = np.array([0.5, 0.2, 0.9, 0.5, 0.4]), np.array([0.5, 0.6, 0.5, 0.5, 0.9])
    assert most_changed(before, after, 4) == [4, 2, 1, 0]
