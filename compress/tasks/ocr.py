"""Reading: the words of an image, where they are and what they say. The model is a pipeline of other models, see `compress.pipeline`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from compress.data.detection.augment import Augment
from compress.evaluation.end_to_end import end_to_end_scores
from compress.models.contract import Algorithm, Input, Reading, Sample, Words
from compress.tasks import detection
from compress.tasks.task import Evaluate, Metric, Scores, Shape, Task

# Part of a pipeline -> the task of its model. The second may be left out.
PARTS: Mapping[str, str] = MappingProxyType({"detector": "detection", "classifier": "classification", "recogniser": "recognition"})
TOLD = 60  # characters of a text that is told in a line
INK, PAPER = (0, 70, 0), (225, 255, 225)  # RGB

Settings = Annotated[dict[str, Any], Field(default_factory=dict)]


class EvaluateOcr(Evaluate):
    """What lies between the parts of a pipeline; every other key is a setting of :class:`compress.models.reader.Kept`.

    same_line: two words are of one line where their middles differ by less than this share of the lower one's height.
    join_gap: neighbours on a line, with a gap of at most so many times the lower one's height, are read as one; 0 joins none. Receipts and
    forms are annotated so.
    upright: height over width from which on a word is taken to run down, and is turned by 90 degrees.
    turn_score: the least probability by which a classifier turns a line that stands on its head.
    detector, classifier, recogniser: what the parts' own `evaluate` should have instead, such as `{short_side: 960}`.
    """

    same_line: float = Field(0.5, gt=0, le=10)
    join_gap: float = Field(0.0, ge=0, le=1000)
    upright: float = Field(1.5, gt=0, le=1000)
    turn_score: float = Field(0.9, ge=0, le=1)
    detector: Settings
    classifier: Settings
    recogniser: Settings

    def reported(self, algorithm: Algorithm) -> dict[str, Any]:
        """As :meth:`Evaluate.reported`, without the parts of which nothing is said."""
        return {name: value for name, value in super().reported(algorithm).items() if value != {}}


def size(_evaluate: EvaluateOcr, _wanted: Input) -> tuple[int, int]:
    """That of images a detector is trained on."""
    return detection.DETECTION.crop


def shown(image: np.ndarray, _evaluate: EvaluateOcr, _wanted: Input) -> np.ndarray:
    """The image as it is: each part resizes what it is shown."""
    return image


def resized(sample: Sample, _evaluate: EvaluateOcr, _wanted: Input) -> Sample:
    """The image as it is."""
    return sample


def judge(pairs: Sequence[tuple[Reading, Words]], _evaluate: EvaluateOcr) -> Scores:
    """The scores of :func:`end_to_end_scores`."""
    return end_to_end_scores(
        [
            (
                [word.polygon for word in found.words],
                truth.polygons,
                truth.ignore.tolist(),
                truth.texts,
                [word.text for word in found.words],
                truth.lexicon,
            )
            for found, truth in pairs
        ]
    )


def record(found: Reading) -> dict[str, Any]:
    """The whole text, and for each word its text, confidence, line, and polygon to a hundredth of a pixel."""
    words = [
        {
            "text": word.text,
            "confidence": round(word.confidence, 4),
            "line": word.line,
            "polygon": np.round(word.polygon.astype(float), 2).tolist(),
        }
        for word in found.words
    ]
    return {"text": found.text, "words": words}


def told(found: Reading) -> str:
    """How many words there are, and the beginning of what they say."""
    text = " ".join(word.text for word in found.words)
    said = f": '{text if len(text) <= TOLD else text[:TOLD] + '...'}'" if text else ""
    return f"{len(found.words)} word{'s' * (len(found.words) != 1)}{said}"


def drawn(image: np.ndarray, found: Reading) -> np.ndarray:
    """A copy of the image with every word outlined, and its text and confidence above it."""
    boxes = detection.Detections([word.polygon for word in found.words], np.zeros(len(found.words)))
    captions = [f"{word.text} {word.confidence:.2f}" for word in found.words]
    return written(detection.drawn(image, boxes), boxes.polygons, captions)


def outlined(image: np.ndarray, truth: Words) -> np.ndarray:
    """A copy of the image with the words of the ground truth and their texts."""
    texts = ["" if skip else text for text, skip in zip(truth.texts or [""] * len(truth.polygons), truth.ignore, strict=True)]
    return written(detection.outlined(image, truth), truth.polygons, texts)


def written(image: np.ndarray, polygons: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """The image with a text above each polygon, or inside where there is no room; Latin letters are drawn, others as boxes."""
    canvas = Image.fromarray(image)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(max(10, round(max(image.shape[:2]) / 70)))
    for polygon, text in zip(polygons, texts, strict=True):
        if not text:
            continue
        left, top = polygon.min(0).tolist()
        _, _, width, height = draw.textbbox((0, 0), text, font)
        x = min(max(0, left), max(0, image.shape[1] - width))
        y = top - height - 2 if top >= height + 2 else top
        draw.rectangle((x, y, x + width, y + height), PAPER)
        draw.text((x, y), text, INK, font)
    return np.asarray(canvas)


def shapes(found: Reading) -> list[Shape]:
    """Every word with its text."""
    return [Shape(word.polygon, word.text) for word in found.words]


OCR = Task(
    name="ocr",
    metrics=(
        Metric("precision", "E2E P %"),
        Metric("recall", "E2E R %"),
        Metric("hmean", "E2E Hmean %"),
        Metric("spotting", "spotting Hmean %"),
        Metric("similarity", "1-NED %"),
    ),
    main="hmean",
    evaluate=EvaluateOcr,
    augment=Augment,
    crop=detection.DETECTION.crop,
    square=True,
    size=size,
    view=detection.view,
    shown=shown,
    resized=resized,
    judge=judge,
    counts=detection.counts,
    record=record,
    told=told,
    drawn=drawn,
    outlined=outlined,
    shapes=shapes,
    true_shapes=detection.true_shapes,
)
