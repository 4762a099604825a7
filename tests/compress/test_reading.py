"""Reading an image: order, crops, angles, batches. The models are plain functions here."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from compress.models.contract import Classification, Detections, Reading, Sample, Transcription, Word
from compress.models.reader import Kept, reader_decode
from compress.models.registry import build
from compress.predictor import few_at_a_time
from compress.result import Result
from compress.tasks.ocr import OCR, EvaluateOcr
from compress.tasks.reading import Models, from_left_top, read_words, reading_order, shares


def box(left: float, top: float, width: float = 40, height: float = 10) -> np.ndarray:
    return np.float32([(left, top), (left + width, top), (left + width, top + height), (left, top + height)])


def turned(quad: np.ndarray, degrees: float, about: tuple[float, float] = (0, 0)) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D(about, degrees, 1)
    return cv2.transform(quad[None], matrix)[0].astype(np.float32)


# Order


def test_lines_from_the_top_and_words_from_the_left():
    words = [box(100, 52), box(0, 50), box(50, 48), box(60, 10), box(0, 12), box(0, 90)]
    assert reading_order(words, 0.5) == [[4, 3], [1, 2, 0], [5]]


def test_a_slanted_line_stays_one_where_its_ends_are_lines_apart():
    line = [turned(box(50 * place, 20), -12) for place in range(6)]
    below = [turned(box(50 * place, 35), -12) for place in range(6)]
    order = [3, 0, 5, 1, 4, 2]
    places = reading_order([line[place] for place in order] + [below[place] for place in order], 0.5)
    assert places == [[order.index(place) for place in range(6)], [6 + order.index(place) for place in range(6)]]


def test_same_line_says_how_far_words_may_be_apart():
    words = [box(0, 0), box(50, 4)]
    assert reading_order(words, 0.5) == [[0, 1]]
    assert reading_order(words, 0.3) == [[0], [1]]


def test_words_one_above_the_other_are_two_lines_and_none_are_none():
    assert reading_order([box(0, 3), box(5, 0)], 0.5) == [[1], [0]]
    assert reading_order([], 0.5) == []


@pytest.mark.parametrize("degrees", range(-40, 45, 10))
@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_detection_may_begin_at_any_corner_and_go_either_way(degrees, first, mirrored):
    quad = turned(box(30, 30), degrees)
    given = np.roll(quad[::-1] if mirrored else quad, first, axis=0)
    np.testing.assert_allclose(from_left_top(given), quad, atol=1e-3)


def test_a_detection_of_many_corners_is_the_rectangle_around_it():
    angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    ellipse = np.stack([50 + 30 * np.cos(angles), 40 + 8 * np.sin(angles)], 1).astype(np.float32)
    np.testing.assert_allclose(from_left_top(ellipse), box(20, 32, 60, 16), atol=1)


# The chain


class Page:
    """An image with a grey level for each word, a detector that knows where they are, and models that tell what they were shown."""

    def __init__(self, quads: list[np.ndarray]) -> None:
        self.quads = quads
        self.image = np.full((200, 300, 3), 255, np.uint8)
        for place, quad in enumerate(quads):
            cv2.fillPoly(self.image, [quad.astype(np.int32)], (10 + place,) * 3)
        self.shown: list[tuple[int, int]] = []

    def detect(self, image: np.ndarray) -> Detections:
        assert image is self.image
        return Detections(self.quads, np.ones(len(self.quads), np.float32))

    def read(self, line: np.ndarray) -> Transcription:
        self.shown.append(line.shape[:2])
        return Transcription(f"word{int(np.median(line)) - 10}", 0.75)

    def words(self, evaluate: EvaluateOcr | None = None, classify=None) -> list[Word]:
        answers = {"detector": self.detect, "recogniser": self.read, **({"classifier": classify} if classify else {})}
        return read_words(self.image, Models(answers, lambda line: line.shape[1]), evaluate or EvaluateOcr())["words"]


def test_every_word_is_read_where_it_is_in_the_order_of_reading():
    page = Page([box(150, 20, 60, 20), box(20, 22, 100, 20), box(20, 80, 80, 20)])
    words = page.words()
    assert [(word.text, word.line) for word in words] == [("word1", 0), ("word0", 0), ("word2", 1)]
    np.testing.assert_array_equal(words[0].polygon, page.quads[1])
    assert Reading(words).text == "word1 word0\nword2"
    assert page.shown == sorted(page.shown, key=lambda size: size[1]), "lines are read by width"


def test_a_word_that_runs_down_is_turned_before_it_is_read():
    page = Page([box(20, 20, 20, 100)])
    page.words()
    assert page.shown == [(20, 100)]
    page.words(EvaluateOcr(upright=6.0))
    assert page.shown[1] == (100, 20)


@pytest.mark.parametrize("degrees", [0, 20])
def test_neighbours_on_a_line_are_read_as_one_where_that_is_wanted(degrees):
    level = [box(20, 60), box(65, 60), box(120, 60), box(20, 100)]
    page = Page([turned(quad, degrees) for quad in level])
    for join_gap, expected in ((0.0, level), (0.5, [box(20, 60, 85), *level[2:]]), (1.5, [box(20, 60, 140), level[3]])):
        page.shown.clear()
        words = page.words(EvaluateOcr(join_gap=join_gap, same_line=0.6))
        assert len(words) == len(page.shown) == len(expected)
        for word, quad in zip(words, expected, strict=True):
            np.testing.assert_allclose(from_left_top(word.polygon), turned(quad, degrees), atol=0.01)


def test_words_that_touch_stay_apart_unless_they_are_to_be_joined():
    page = Page([box(20, 20), box(58, 20)])
    assert [len(page.words(EvaluateOcr(join_gap=gap))) for gap in (0.0, 0.1)] == [2, 1]


def test_a_word_outside_of_the_image_is_left_out():
    page = Page([box(20, 20), box(-100, 20), box(400, 20)])
    assert [word.text for word in page.words()] == ["word0"]


@pytest.mark.parametrize(("label", "score", "over"), [("180", 0.95, True), ("180", 0.9, False), ("0", 0.99, False)])
def test_a_line_on_its_head_is_turned_where_the_classifier_is_sure(label, score, over):
    image = np.zeros((60, 100, 3), np.uint8)
    image[20:30, 20:90] = np.arange(70, dtype=np.uint8)[:, None]
    seen = []

    def read(line: np.ndarray) -> Transcription:
        seen.append(line)
        return Transcription("a", 1.0)

    answers = {
        "detector": lambda _: Detections([box(20, 20, 70, 10)], np.ones(1)),
        "classifier": lambda _: Classification(label, score),
        "recogniser": read,
    }
    read_words(image, Models(answers, lambda line: line.shape[1]), EvaluateOcr())
    falls = seen[0][5, 10, 0] > seen[0][5, 60, 0]
    assert falls == over


def test_the_time_of_each_part_is_told_and_its_share_of_all():
    page = Page([box(20, 20)])
    answers = {"detector": page.detect, "recogniser": page.read}
    found = read_words(page.image, Models(answers, lambda line: line.shape[1]), EvaluateOcr())
    assert list(found["seconds"]) == ["detector", "crops", "recogniser"]
    assert shares([{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 3.0}]) == {"a": 3 / 8, "b": 5 / 8}
    assert shares([]) == {}


# What becomes an answer


def test_words_without_a_text_or_with_little_confidence_are_no_answers():
    words = [Word(box(0, 0), text, confidence) for text, confidence in (("a", 0.5), ("b", 0.49), ("", 0.9), ("c", 1.0))]
    assert [word.text for word in reader_decode({"words": words}, [(10, 10)], Kept())[0].words] == ["a", "c"]
    assert len(reader_decode({"words": words}, [(10, 10)], Kept(drop_score=0.0))[0].words) == 3


def test_what_is_not_a_setting_is_refused():
    with pytest.raises(Exception, match="drop_scores"):
        EvaluateOcr(drop_scores=0.3).settings(build("reader"))
    assert "detector" not in EvaluateOcr().reported(build("reader"))
    assert EvaluateOcr(detector={"short_side": 64}).reported(build("reader"))["detector"] == {"short_side": 64}


def test_a_text_that_cannot_be_drawn_in_place_is_drawn_inside_of_the_image():
    image = np.zeros((40, 60, 3), np.uint8)
    found = Reading([Word(box(50, 0, 9, 9), "long text", 1.0), Word(box(0, 30, 9, 9), "日本", 1.0)])
    drawn = OCR.drawn(image, found)
    assert drawn.shape == image.shape
    assert not image.any()
    assert OCR.told(found) == "2 words: 'long text 日本'"
    assert OCR.told(Reading([])) == "0 words"


def test_polygons_in_json_have_two_decimals_and_a_result_is_shown_without_its_pixels():
    answer = Reading([Word(box(0.123, 28.63), "a", 1.0)])
    assert OCR.record(answer)["words"][0]["polygon"][0] == [0.12, 28.63]
    assert repr(Result(answer, OCR, lambda: np.zeros((9, 9, 3), np.uint8))) == f"Result(answer={answer!r})"


def test_few_images_are_in_memory_at_a_time_and_of_large_ones_fewer():
    def sample(side: int) -> Sample:
        return Sample("s", np.broadcast_to(np.uint8(0), (side, side, 3)), None)

    small, large = sample(100), sample(6400)
    runs = [len(run) for run in few_at_a_time([small] * 20 + [large] * 2 + [small])]
    assert runs == [16, 5, 1, 1]
    assert list(few_at_a_time([])) == []
