"""Which images are shown, by whom, and what is said of them; the networks are functions that know the ground truth."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

import compress.predictor as predictors
from compress.data.prepare import network_input
from compress.errors import CompressError
from compress.models.contract import Algorithm, Classification, Detections, Label, Sample, Words
from compress.predictor import Predictor
from compress.recipe import load
from compress.report.collect import collect
from compress.report.compare import compare, most_changed, plain_answer, plain_image
from compress.report.shots import answers
from compress.tasks import TASKS
from compress.tasks.classification import EvaluateClassification
from compress.tasks.detection import EvaluateDetection

pytestmark = pytest.mark.slow

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 4, val: 6, test: 2, size: 64}
evaluate: {short_side: 64}
stages: [{train: {name: baseline, epochs: 1}}]
"""


@dataclass(frozen=True)
class Settings:
    """share: of every word's width that is found."""

    share: float = 1.0
    bin_threshold: float = 0.3


def part(polygon: np.ndarray, share: float) -> np.ndarray:
    """The left part of a word with four corners."""
    left_top, right_top, right_bottom, left_bottom = polygon
    return np.array([left_top, left_top + share * (right_top - left_top), left_bottom + share * (right_bottom - left_bottom), left_bottom])


def said(facts, compared) -> str:
    """The page's part, with plain spaces."""
    return answers(facts, compared).replace("\N{NO-BREAK SPACE}", " ")


class Oracle:
    """Predictors that find every word but for those of hidden images; they tell images apart by their mean."""

    def __init__(self, folder) -> None:
        recipe = load(folder / "recipe.yml")
        self.evaluate, self.calls, self.share = recipe.evaluate, [], 1.0
        split = recipe.data.open("val", recipe.seed)
        self.names = [split[index].name for index in range(len(split))]
        task, wanted = TASKS["detection"], self.algorithm(set()).input
        shown = [task.shown(split[index].image, recipe.evaluate, wanted) for index in range(len(split))]
        self.truth = {self.key(network_input([image], wanted)[0]): split[index] for index, image in enumerate(shown)}
        assert len(self.truth) == len(split) == 6

    @staticmethod
    def key(image: np.ndarray) -> float:
        return round(float(image.mean(dtype=np.float64)), 4)

    def algorithm(self, hidden: set[str]) -> Algorithm:
        def decode(outputs, _sizes, settings):
            sample = self.truth[float(outputs["key"][0])]
            found = [] if sample.name in hidden else [part(polygon, self.share * settings.share) for polygon in sample.truth.polygons]
            return [Detections(found, np.full(len(found), 0.9))]

        return Algorithm("detection", lambda: None, lambda _: {}, lambda *_: None, decode, Settings, {})

    def open(self, path) -> Predictor:
        if path.name == "broken":
            raise CompressError("it is of another version.")

        def run(images):
            self.calls.append((path.name, len(images)))
            return {"key": np.array([self.key(image) for image in images])}

        hidden = {self.names[2], self.names[4]} if path.name == "bad" else set()
        return Predictor(run, self.algorithm(hidden), EvaluateDetection(short_side=32), {"settings": {"share": 0.1}}, "none", "fp32")

    def seen(self, name: str) -> int:
        return sum(count for caller, count in self.calls if caller == name)


@pytest.fixture
def experiment(written, row, tmp_path, monkeypatch):
    """Two artefacts: one finds every word, the other none of those on images 2 and 4. A third has no weights, a fourth does not open."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    folder = written("x", [row(name) for name in ("good", "lost", "broken", "bad")])
    (folder / "recipe.yml").write_text(RECIPE)
    for name in ("good", "broken", "bad"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(name.encode())
    oracle = Oracle(folder)
    monkeypatch.setattr(predictors, "open_predictor", oracle.open)
    return collect([folder])[0], oracle


def test_the_images_that_changed_the_most_are_shown_by_every_artefact_that_opens(experiment):
    facts, oracle = experiment
    result = compare(facts, 2)
    assert (result["task"], [image["name"] for image in result["images"]]) == ("detection", [oracle.names[2], oracle.names[4]])
    samples = {sample.name: sample for sample in oracle.truth.values()}
    for image in result["images"]:
        words = samples[image["name"]].truth
        assert list(image["found"]) == ["good", "bad"]
        assert image["found"]["good"]["scores"] == {"precision": 1, "recall": 1, "hmean": 1}
        assert image["found"]["bad"] == {"shapes": [], "told": "0 words", "scores": {"precision": 0, "recall": 0, "hmean": 0}}
        assert [shape["counts"] for shape in image["truth"]] == [not flag for flag in words.ignore]
        assert [shape["caption"] for shape in image["truth"]] == words.texts
        for shape, polygon in zip(image["found"]["good"]["shapes"], words.polygons, strict=True):
            assert np.allclose(shape["outline"], polygon, atol=0.051)
            assert shape["caption"] == "0.90"
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(image["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (image["height"], image["width"])
    notes = " ".join(result["notes"])
    assert "Of the 6 images of the validation split, those on which good and bad differ the most in Hmean" in notes
    assert "their weights are not there: lost." in notes
    assert "broken is left out: it is of another version." in notes
    assert (oracle.seen("good"), oracle.seen("bad")) == (6 + 2, 6 + 2)


def test_images_are_shown_and_judged_by_the_recipe_s_settings(experiment):
    """Where a fifth of a word is found, only CLEval gives credit for it; what a checkpoint was tuned to does not count."""
    facts, oracle = experiment
    scores = {}
    oracle.share = 0.2
    for protocol in ("icdar2015", "cleval"):
        text = RECIPE.replace("{short_side: 64}", f"{{short_side: 64, protocol: {protocol}}}")
        (facts.folder / "recipe.yml").write_text(text)
        result = compare(replace(facts, recipe=text), 6)
        assert f"judged by short_side 64, protocol {protocol}." in result["notes"][0]
        scores[protocol] = [image["found"]["good"]["scores"]["hmean"] for image in result["images"]]
    assert set(scores["icdar2015"]) == {0}
    assert 0 < max(scores["cleval"]) < 1


def test_a_second_call_runs_nothing_until_weights_change(experiment):
    facts, oracle = experiment
    first = compare(facts, 2)
    done = oracle.seen("good")
    assert compare(facts, 2) == first
    assert oracle.seen("good") == done
    (facts.folder / "bad" / "model.safetensors").write_bytes(b"other")
    compare(facts, 2)
    assert oracle.seen("good") == 2 * done


def test_a_gallery_follows_its_images(experiment, tmp_path):
    facts, oracle = experiment
    for number, sample in enumerate(oracle.truth.values()):
        for folder, name in (("train_images", f"img_{number}.png"), ("train_gts", f"gt_img_{number}.txt")):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / folder / name).write_text("")
        cv2.imwrite(str(tmp_path / f"set/train_images/img_{number}.png"), sample.image[..., ::-1])
    (tmp_path / "set/val.txt").write_text("img_1\nimg_2\n")
    text = RECIPE.replace("{format: synthetic, train: 4, val: 6, test: 2, size: 64}", f"{{format: icdar2015, root: {tmp_path}/set}}")
    (facts.folder / "recipe.yml").write_text(text)
    facts = replace(facts, recipe=text)

    def pixels() -> list[np.ndarray]:
        encoded = [np.frombuffer(base64.b64decode(image["jpeg"]), np.uint8) for image in compare(facts, 2)["images"]]
        return [cv2.imdecode(data, cv2.IMREAD_COLOR) for data in encoded]

    before = pixels()
    images = [tmp_path / f"set/train_images/img_{number}.png" for number in (1, 2)]
    contents = [image.read_bytes() for image in images]
    for image, content in zip(images, contents[::-1], strict=True):
        image.write_bytes(content)
    after = pixels()
    assert len(before) == 2
    assert not any(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("missing", ["recipe", "weights", "data"])
def test_what_is_missing_is_said(missing, experiment, tmp_path):
    facts, _ = experiment
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
    assert result["images"] == []
    assert told in result["notes"][0]
    assert told in answers(facts, result)


def test_an_artefact_of_another_task_is_left_out(experiment, counted):
    facts, _ = experiment
    result = compare(replace(facts, rows=[*facts.rows, counted("other", 2.0, artefact="good")]), 1)
    assert list(result["images"][0]["found"]) == ["good", "bad"]
    assert "other is left out: its task is counting." in result["notes"]


def test_losses_go_before_equal_gains_and_earlier_images_before_later():
    before, after = np.array([0.5, 0.2, 0.9, 0.5, 0.4]), np.array([0.5, 0.6, 0.5, 0.5, 0.9])
    assert most_changed(before, after, 4) == [4, 2, 1, 0]


def test_words_are_outlined_and_what_is_said_of_them_is_escaped(experiment):
    facts, _ = experiment
    word = np.array([[1, 2], [9, 2], [9, 8], [1, 8]], np.float32)
    sample = Sample("<b>", np.zeros((20, 30, 3), np.uint8), Words([word, word + 10], np.array([False, True]), ["<i>", "###"]))
    found = plain_answer(sample, Detections([word], np.array([0.75])), TASKS["detection"], EvaluateDetection())
    image = {**plain_image(sample, TASKS["detection"]), "found": {"stage": found}}
    html = said(facts, {"notes": [], "task": "detection", "images": [image]})
    assert html.count('<polygon class="truth" points="1,2 9,2 9,8 1,8"><title>&lt;i&gt;</title></polygon>') == 1
    assert html.count('<polygon class="ignored"') == html.count('<polygon class="found"') == 1
    assert "<title>0.75</title>" in html
    assert "<b>stage</b><br>1 word<br>P 100.00 %, R 100.00 %, Hmean 100.00 %" in html
    assert [html.count(meaning) for meaning in ("</svg> ground truth<", "does not count", "</svg> found")] == [1, 1, 1]
    assert "<h4>&lt;b&gt;</h4>" in html


def test_a_class_is_told_in_words_and_nothing_is_outlined(experiment):
    facts, _ = experiment
    sample = Sample("line", np.zeros((48, 192, 3), np.uint8), Label("180"))
    task = TASKS["classification"]
    found = plain_answer(sample, Classification("0", 0.875), task, EvaluateClassification())
    image = {**plain_image(sample, task), "found": {"stage": found}}
    html = said(facts, {"notes": ["A note."], "task": "classification", "images": [image]})
    assert "Ground truth: 180</p>" in html
    assert '<th scope="row">stage</th><td>0, probability 0.8750; accuracy 0.00 %</td>' in html
    assert html.count("data:image/jpeg") == html.count("<image") == 1, "nothing is drawn on it, so it is shown once"
    assert "polygon" not in html
    assert 'class="key"' not in html


@pytest.mark.parametrize(("size", "embedded"), [((720, 1280), (720, 1280)), ((2400, 3200), (1200, 1600))])
def test_a_photograph_is_embedded_in_its_own_size_and_a_huge_one_reduced(size, embedded):
    words = Words(np.zeros((0, 4, 2), np.float32), np.zeros(0, bool), [])
    image = plain_image(Sample("photograph", np.full((*size, 3), 128, np.uint8), words), TASKS["detection"])
    assert cv2.imdecode(np.frombuffer(base64.b64decode(image["jpeg"]), np.uint8), cv2.IMREAD_COLOR).shape[:2] == embedded
    assert (image["height"], image["width"]) == size


def test_what_was_run_since_the_table_was_made_is_not_shown(experiment):
    facts, oracle = experiment
    result = compare(replace(facts, foreign=["good"]), 2)
    assert "it takes two artefacts to compare" in " ".join(result["notes"])
    assert oracle.seen("good") == 0
