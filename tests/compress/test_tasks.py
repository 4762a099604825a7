"""Metrics and their direction, and what every task must have: each field against an independent computation, for all of `TASKS`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from compress.errors import CompressError
from compress.models.contract import Classification, Detections, Input, Label, Line, Reading, Sample, Transcription, Word, Words
from compress.models.registry import build
from compress.tasks import TASKS
from compress.tasks.classification import CLASSIFICATION, EvaluateClassification
from compress.tasks.detection import DETECTION, EvaluateDetection
from compress.tasks.ocr import EvaluateOcr
from compress.tasks.recognition import RECOGNITION, EvaluateRecognition
from compress.tasks.task import Metric, Shape, Task

BOX = np.float32([[10, 8], [50, 8], [50, 24], [10, 24]])
ODD = Input(multiple=(16, 64), mean=(0.5, 0.25, 0.0))
ANSWERS = {
    "detection": Detections([BOX, BOX + 30], np.float32([0.75, 0.5])),
    "classification": Classification("180", 0.8125),
    "recognition": Transcription("Café 7", 0.8125),
    "ocr": Reading([Word(BOX, "word", 0.75)]),
}
TRUTHS = {
    "detection": Words([BOX, BOX + 40], np.array([False, True]), ["word", "###"]),
    "classification": Label("180"),
    "recognition": Line("Café 7"),
    "ocr": Words([BOX, BOX + 40], np.array([False, True]), ["word", "###"]),
}


def image(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, (height, width, 3), np.uint8)


@pytest.fixture(params=sorted(ANSWERS))
def task(request) -> Task:
    return TASKS[request.param]


def test_more_is_better_or_less_and_a_gain_has_its_direction():
    hmean, error = Metric("hmean", "Hmean %"), Metric("error", "letters off", percent=False, higher_is_better=False)
    assert (hmean.gain(0.5, 0.75), hmean.gain(0.75, 0.5)) == (0.25, -0.25)
    assert (error.gain(3.0, 1.0), error.gain(1.0, 3.0)) == (2.0, -2.0)
    assert hmean.gain(0.5, 0.5) == error.gain(3.0, 3.0) == 0


def test_a_percentage_is_shown_as_one_and_another_figure_as_it_is():
    hmean, error = Metric("hmean", "Hmean %"), Metric("error", "letters off", percent=False)
    assert (hmean.label, hmean.shown(0.73625), hmean.moved(-0.0123), hmean.moved(0.5)) == ("Hmean", "73.62", "-1.23", "+50.00")
    assert (error.label, error.shown(3.456), error.moved(1.5), error.moved(-0.25)) == ("letters off", "3.46", "+1.50", "-0.25")


def test_the_gain_of_a_task_is_that_of_its_main_metric():
    before, after = {"precision": 0.5, "recall": 0.75, "hmean": 0.625}, {"precision": 1.0, "recall": 0.25, "hmean": 0.375}
    assert DETECTION.gain(before, after) == -0.25
    assert CLASSIFICATION.gain({"accuracy": 0.5, "accuracy 0": 1.0}, {"accuracy": 0.75, "accuracy 0": 0.0}) == 0.25


def test_every_task_is_listed_by_its_name_and_has_its_main_metric_once(task):
    assert TASKS[task.name] is task
    names = [metric.name for metric in task.metrics]
    assert len(set(names)) == len(names)
    assert task.metric.name == task.main
    assert names.count(task.main) == 1


def test_every_answer_is_recorded_told_and_drawn_and_the_image_left_alone(task):
    found, canvas = ANSWERS[task.name], image()
    before = canvas.copy()
    json.dumps(task.record(found))
    assert "\n" not in task.told(found)
    for given in (task.drawn(canvas, found), task.outlined(canvas, TRUTHS[task.name])):
        assert given.dtype == np.uint8
        assert given.shape[0] >= canvas.shape[0]
        assert given.shape[1] >= canvas.shape[1]
        assert given.tobytes() != before.tobytes()
    np.testing.assert_array_equal(canvas, before)
    assert all(isinstance(shape, Shape) for shape in [*task.shapes(found), *task.true_shapes(TRUTHS[task.name])])


@pytest.mark.parametrize("wanted", [Input(), ODD])
def test_what_is_shown_fits_the_input_and_is_of_the_size_for_training(task, wanted):
    evaluate = {
        "detection": EvaluateDetection(short_side=100),
        "classification": EvaluateClassification(size=(64, 192)),
        "recognition": EvaluateRecognition(height=50, width="own"),
        "ocr": EvaluateOcr(),
    }[task.name]
    sample = Sample("s", image(), TRUTHS[task.name])
    shown = task.shown(sample.image, evaluate, wanted)
    assert shown.dtype == np.uint8
    if task.name == "ocr":  # each part resizes what it is shown
        assert shown is sample.image
        return
    assert all(side % step == 0 for side, step in zip(shown.shape[:2], wanted.multiple, strict=True))
    np.testing.assert_array_equal(task.resized(sample, evaluate, wanted).image, shown)
    size = task.size(evaluate, wanted)
    assert all(side % step == 0 for side, step in zip(size, wanted.multiple, strict=True))
    view = task.view(sample, task.augment(), (64, 64), wanted, np.random.default_rng(0))
    again = task.view(sample, task.augment(), (64, 64), wanted, np.random.default_rng(0))
    assert view.image.shape == (64, 64, 3)
    np.testing.assert_array_equal(view.image, again.image)
    assert type(view.truth) is type(sample.truth)


def test_a_perfect_answer_has_the_best_scores_and_no_answer_the_worst(task):
    evaluate = task.evaluate()
    wrong = {
        "detection": Detections([], np.zeros(0, np.float32)),
        "classification": Classification("0", 0.9),
        "recognition": Transcription("", 0.9),
        "ocr": Reading([Word(BOX, "Wort", 0.9)]),
    }[task.name]
    right = {
        "detection": Detections([BOX], np.ones(1, np.float32)),
        "classification": Classification("180", 0.9),
        "recognition": Transcription("Café 7", 0.9),
        "ocr": Reading([Word(BOX, "word", 0.9)]),
    }[task.name]
    best, worst = (task.judge([(found, TRUTHS[task.name])] * 2, evaluate) for found in (right, wrong))
    assert [best[metric.name] for metric in task.metrics] == [1.0] * len(task.metrics)
    assert worst[task.main] == 0
    assert task.gain(worst, best) == 1
    assert task.judge([], evaluate)[task.main] == 0


def test_what_is_counted_in_the_truth():
    words = [TRUTHS["detection"], Words([BOX], np.array([False])), Words([], np.zeros(0, bool))]
    assert DETECTION.counts(words) == {"words": 2, "do-not-care": 1}
    assert DETECTION.counts([]) == {"words": 0, "do-not-care": 0}
    assert CLASSIFICATION.counts([Label("180"), Label("0"), Label("180")]) == {"0": 1, "180": 2}
    assert list(CLASSIFICATION.counts([Label("180"), Label("0")])) == ["0", "180"]


def test_detections_as_a_page_and_a_file_have_them():
    found, truth = ANSWERS["detection"], TRUTHS["detection"]
    assert DETECTION.told(found) == "2 words"
    assert DETECTION.told(Detections([BOX], np.ones(1))) == "1 word"
    assert DETECTION.record(found) == {"words": [{"polygon": BOX.tolist(), "score": 0.75}, {"polygon": (BOX + 30).tolist(), "score": 0.5}]}
    assert [(shape.caption, shape.counts) for shape in DETECTION.shapes(found)] == [("0.75", True), ("0.50", True)]
    assert [(shape.caption, shape.counts) for shape in DETECTION.true_shapes(truth)] == [("word", True), ("###", False)]
    np.testing.assert_array_equal(DETECTION.true_shapes(truth)[1].outline, BOX + 40)
    assert [shape.caption for shape in DETECTION.true_shapes(Words([BOX], np.array([False])))] == [""]


def test_words_are_resized_with_their_image():
    sample = Sample("s", image(90, 120), TRUTHS["detection"])
    resized = DETECTION.resized(sample, EvaluateDetection(short_side=100), ODD)
    assert resized.image.shape == (112, 192, 3)  # 100 x 133.3, rounded up to 16 and 64
    np.testing.assert_allclose(resized.truth.polygons[0], BOX * (192 / 120, 112 / 90), rtol=1e-6)
    assert (resized.truth.texts, resized.truth.ignore.tolist()) == (["word", "###"], [False, True])
    assert DETECTION.size(EvaluateDetection(short_side=100), ODD) == (128, 128)
    assert DETECTION.size(EvaluateDetection(short_side=736), Input()) == (736, 736)


def test_detectors_are_trained_on_squares():
    with pytest.raises(ValueError, match=r"give one number, not \[48, 192\]"):
        DETECTION.view(Sample("s", image(), TRUTHS["detection"]), DETECTION.augment(), (48, 192), Input(), np.random.default_rng(0))


def test_classes_as_a_page_and_a_file_have_them():
    assert CLASSIFICATION.record(ANSWERS["classification"]) == {"label": "180", "score": 0.8125}
    assert CLASSIFICATION.told(ANSWERS["classification"]) == "180, probability 0.8125"
    assert CLASSIFICATION.shapes(ANSWERS["classification"]) == []
    assert CLASSIFICATION.true_shapes(Label("0")) == [Shape(caption="0")]
    assert CLASSIFICATION.size(EvaluateClassification(size=(32, 100)), ODD) == (32, 100)
    narrow = CLASSIFICATION.shown(image(48, 60), EvaluateClassification(), ODD)
    np.testing.assert_array_equal(narrow[:, :60], image(48, 60))
    assert (narrow[:, 60:] == (128, 64, 0)).all()


def test_texts_as_a_page_and_a_file_have_them():
    found, truths = ANSWERS["recognition"], [Line("ab"), Line("bbc")]
    assert RECOGNITION.record(found) == {"text": "Café 7", "confidence": 0.8125}
    assert RECOGNITION.told(found) == "'Café 7', confidence 0.8125"
    assert RECOGNITION.true_shapes(Line("ab")) == [Shape(caption="'ab'")]
    assert RECOGNITION.counts(truths) == {"characters": 5, "different characters": 3, "characters in the longest text": 3}
    assert set(RECOGNITION.counts([]).values()) == {0}


@pytest.mark.parametrize(
    ("width", "own", "expected"),
    [
        (320, 100, 320), (320, 700, 320), (322, 100, 324), ("own", 5, 8), ("own", 100, 100), ("own", 101, 104), ("own", 900, 900),
        ("buckets", 96, 96), ("buckets", 97, 160), ("buckets", 2000, 2000),
        ((200, 80), 80, 80), ((200, 80), 81, 200), ((200, 80), 333, 336),
    ],
)  # fmt: skip
def test_the_width_policy_says_how_wide_a_line_is_shown(width, own, expected):
    wanted = Input(multiple=(16, 4), mean=(0.5, 0.25, 0.0))
    evaluate = EvaluateRecognition(height=48, width=width)
    given = image(48, own)
    found = RECOGNITION.shown(given, evaluate, wanted)
    assert found.shape == (48, expected, 3)
    if own <= expected:
        np.testing.assert_array_equal(found[:, :own], given)
        assert (found[:, own:] == (128, 64, 0)).all()
    assert RECOGNITION.size(evaluate, wanted) == (48, expected if isinstance(width, int) else 320)
    assert EvaluateRecognition(**evaluate.model_dump(mode="json")) == evaluate
    assert evaluate.reported(build("crnn"))["width"] == (list(width) if isinstance(width, tuple) else width)


@pytest.mark.parametrize("wrong", [{"width": "owm"}, {"width": []}, {"width": 0}, {"height": 8}, {"width": [320, "own"]}])
def test_no_other_width_policy_is_taken(wrong):
    with pytest.raises(ValueError, match=r"width|height"):
        EvaluateRecognition(**wrong)


def test_a_line_that_is_a_thousand_times_as_long_as_high_is_squeezed():
    assert RECOGNITION.shown(image(2, 2000), EvaluateRecognition(width="own"), Input(multiple=(16, 4))).shape == (48, 64 * 48, 3)


def test_settings_are_checked_filled_in_and_replaced():
    algorithm = build("db")
    evaluate = EvaluateDetection(short_side=64, box_threshold=0.7)
    assert evaluate.settings(algorithm) == algorithm.settings(box_threshold=0.7)
    assert evaluate.reported(algorithm) == {
        "short_side": 64, "protocol": "icdar2015", "bin_threshold": 0.3, "box_threshold": 0.7, "unclip_ratio": 1.5, "min_size": 3,
        "max_candidates": 1000, "polygons": False,
    }  # fmt: skip
    other = evaluate.with_settings({"unclip_ratio": 2.0, "box_threshold": 0.5})
    assert (other.short_side, other.settings(algorithm)) == (64, algorithm.settings(unclip_ratio=2.0, box_threshold=0.5))
    assert evaluate.settings(algorithm).box_threshold == 0.7
    with pytest.raises(CompressError, match=r"evaluate\.box_treshold is not known; did you mean 'box_threshold'"):
        EvaluateDetection(box_treshold=0.5).settings(algorithm)
    with pytest.raises(CompressError, match=r"evaluate\.box_threshold is a probability"):
        EvaluateDetection(box_threshold=2).settings(algorithm)
    line = EvaluateClassification(size=[32, 128])
    assert line.reported(build("angle")) == {"size": [32, 128]}
    assert line.with_settings({}) == line
