"""From an image to its words: detection, reading order, crops, angle, recognition. The models are functions that the caller gives."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from compress.data.lines.crops import crop
from compress.models.contract import Classification, Transcription, Word
from compress.tasks.ocr import EvaluateOcr

UPSIDE_DOWN = "180"  # the label of a line that stands on its head


@dataclass(frozen=True)
class Models:
    """The parts of a pipeline, as functions of one (H, W, 3) uint8 RGB image.

    answers: those of :data:`compress.tasks.ocr.PARTS`, the classifier where there is one. width: at how many pixels a line is read; lines
    are read in the order of it, so that a runtime meets few changes of size.
    """

    answers: Mapping[str, Callable[[np.ndarray], Any]]
    width: Callable[[np.ndarray], int]


def read_words(image: np.ndarray, models: Models, evaluate: EvaluateOcr) -> dict[str, Any]:
    """`words`: every :class:`Word` of an (H, W, 3) uint8 RGB image in reading order, whatever its confidence; `seconds` of each part.

    Each line is read alone, at a width that is its own: no word depends on what else is in the image, and no image on others.
    """
    seconds: dict[str, float] = {}
    found = timed(seconds, "detector", models.answers["detector"], image)
    words = timed(seconds, "crops", cut, image, found.polygons, evaluate)
    if classify := models.answers.get("classifier"):
        words = timed(seconds, "classifier", upright, words, classify, evaluate.turn_score)
    texts = timed(seconds, "recogniser", read_all, [line for *_, line in words], models)
    read = [Word(polygon, text.text, text.confidence, row) for (polygon, row, _), text in zip(words, texts, strict=True)]
    return {"words": read, "seconds": seconds}


def timed(seconds: dict[str, float], part: str, work: Callable[..., Any], *given: Any) -> Any:
    """What `work` gives; the time that it took goes into `seconds`."""
    start = time.perf_counter()
    result = work(*given)
    seconds[part] = time.perf_counter() - start
    return result


# A word's polygon, the number of its line, and its image.
Crop = tuple[np.ndarray, int, np.ndarray]


def cut(image: np.ndarray, polygons: Sequence[np.ndarray], evaluate: EvaluateOcr) -> list[Crop]:
    """Every word in reading order, upright; those that cannot be cut, such as one outside of the image, are left out."""
    quads, words = [from_left_top(polygon) for polygon in polygons], []
    for row, places in enumerate(reading_order(quads, evaluate.same_line)):
        for group in neighbours([quads[place] for place in places], evaluate.join_gap):
            own = [places[place] for place in group]
            polygon = polygons[own[0]] if len(own) == 1 else around([quads[place] for place in own])
            try:
                words.append((polygon, row, crop(image, from_left_top(polygon), evaluate.upright)))
            except ValueError:
                continue
    return words


def from_left_top(polygon: np.ndarray) -> np.ndarray:
    """(4, 2) float32, the corners of a detection, or those of the least rectangle around one that has others.

    They are clockwise, and the way from the first to the second leads to the right as nearly as any; a detector may begin anywhere.
    """
    points = polygon.astype(np.float32)
    quad = points if len(points) == 4 else cv2.boxPoints(cv2.minAreaRect(points))
    if cv2.contourArea(quad, oriented=True) < 0:
        quad = quad[::-1]
    sides = np.roll(quad, -1, axis=0) - quad
    to_the_right = sides[:, 0] / np.maximum(np.linalg.norm(sides, axis=1), 1e-6)
    return np.roll(quad, -int(to_the_right.argmax()), axis=0)


def reading_order(quads: Sequence[np.ndarray], same_line: float) -> list[list[int]]:
    """Places of words, as :func:`from_left_top` has them, line by line, from the top, and in each from the left.

    From the left on, a word goes on the line whose last word ends nearest to the height at which it starts: by less than `same_line` of
    the lower word's height, and with its middle before the word. Slanted lines, and words along curves, stay together.
    """
    starts, ends = (np.array([quad[list(side)].mean(0) for quad in quads]).reshape(-1, 2) for side in ((0, 3), (1, 2)))
    heights = np.array([(np.linalg.norm(quad[0] - quad[3]) + np.linalg.norm(quad[1] - quad[2])) / 2 for quad in quads])

    def apart(last: int, place: int) -> float:
        if starts[place, 0] < (starts[last, 0] + ends[last, 0]) / 2:
            return math.inf
        return abs(ends[last, 1] - starts[place, 1]) / max(1e-6, min(heights[last], heights[place]))

    lines: list[list[int]] = []
    for place in sorted(range(len(quads)), key=lambda place: (*starts[place].tolist(), place)):
        line = min(lines, key=lambda line: apart(line[-1], place), default=None)
        if line is not None and apart(line[-1], place) < same_line:
            line.append(place)
        else:
            lines.append([place])
    return sorted(lines, key=lambda line: starts[line[0], ::-1].tolist())


def neighbours(line: Sequence[np.ndarray], most: float) -> list[list[int]]:
    """Places of a line's words, from the left, as :func:`from_left_top` has them; together those with gaps of at most `most`.

    A gap is measured along the word before it, in heights of the lower one; with 0 every word is alone, even one that touches the next.
    """
    groups: list[list[int]] = []
    for place, quad in enumerate(line):
        if place and most and gap(line[place - 1], quad) <= most:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def gap(before: np.ndarray, after: np.ndarray) -> float:
    """From the right side of a word to the left side of the next, in heights of the lower one; below 0 where they overlap."""
    end, start = before[1:3].mean(0), after[[0, 3]].mean(0)
    along = end - before[[0, 3]].mean(0)
    height = min(np.linalg.norm(quad[0] - quad[3]) + np.linalg.norm(quad[1] - quad[2]) for quad in (before, after)) / 2
    return float((start - end) @ along / max(np.linalg.norm(along), 1e-6) / max(height, 1e-6))


def around(quads: Sequence[np.ndarray]) -> np.ndarray:
    """(4, 2) float32, the least rectangle around all."""
    return from_left_top(np.concatenate(quads))


def upright(words: Sequence[Crop], classify: Callable[[np.ndarray], Classification], least: float) -> list[Crop]:
    """The words, those turned that stand on their heads with a probability above `least`."""
    turned = []
    for polygon, row, line in words:
        angle = classify(line)
        over = angle.label == UPSIDE_DOWN and angle.score > least
        turned.append((polygon, row, np.ascontiguousarray(line[::-1, ::-1]) if over else line))
    return turned


def read_all(lines: Sequence[np.ndarray], models: Models) -> list[Transcription]:
    """What every line says, in order."""
    texts: dict[int, Transcription] = {}
    for place in sorted(range(len(lines)), key=lambda place: (models.width(lines[place]), place)):
        texts[place] = models.answers["recogniser"](lines[place])
    return [texts[place] for place in range(len(lines))]


def shares(seconds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Part -> its share of the time of all, 0..1, of the `seconds` of several images."""
    parts = {part: sum(each[part] for each in seconds) for part in (seconds[0] if seconds else ())}
    return {part: spent / (sum(parts.values()) or 1) for part, spent in parts.items()}
