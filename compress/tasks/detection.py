"""Text detection: where the words of an image are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from compress.data.detection.augment import Augment, augment
from compress.data.prepare import resize_short_side
from compress.evaluation.icdar import Score
from compress.evaluation.overlaps import overlaps
from compress.evaluation.protocols import PROTOCOLS
from compress.models.contract import Detections, Input, Sample, Words
from compress.tasks.task import Evaluate, Metric, Scores, Shape, Task

Protocol = Literal["icdar2015", "polygon_iou", "deteval", "cleval"]
SAME = 0.5  # two outlines with an IoU above this are of the same word
FOUND, WORD, DO_NOT_CARE = (0, 220, 0), (0, 230, 0), (255, 40, 40)  # RGB


class EvaluateDetection(Evaluate):
    """How images are shown to a detector, and how its detections are judged; every other key is a threshold of its algorithm.

    short_side: pixels that the shorter side of every image is resized to; the other keeps the proportions. Both are then rounded
    up to what the network divides by. Images much longer than wide are enlarged less, see `compress.data.prepare.scale_of`.
    protocol: how detections are held against the words, see `compress.evaluation.protocols`.
    """

    judges: ClassVar = frozenset({"protocol"})

    short_side: int = Field(736, ge=32, le=8192)
    protocol: Protocol = "icdar2015"


def size(evaluate: EvaluateDetection, wanted: Input) -> tuple[int, int]:
    """A square as wide as images are high at evaluation."""
    step = max(wanted.multiple)
    side = -(-evaluate.short_side // step) * step
    return side, side


def view(sample: Sample, config: Augment, size: tuple[int, int], _wanted: Input, rng: np.random.Generator) -> Sample:
    """A random training view, see :func:`augment`. Raises ValueError for a size that is not square."""
    height, width = size
    if height != width:
        raise ValueError(f"crop: detectors are trained on square images; give one number, not {list(size)}.")
    return augment(sample, config, height, rng)


def shown(image: np.ndarray, evaluate: EvaluateDetection, wanted: Input) -> np.ndarray:
    """The image as the network is shown it at inference."""
    return resize_short_side(image, evaluate.short_side, wanted.multiple)


def resized(sample: Sample, evaluate: EvaluateDetection, wanted: Input) -> Sample:
    """The same with its words."""
    image = shown(sample.image, evaluate, wanted)
    scale = np.array(image.shape[1::-1]) / sample.image.shape[1::-1]
    words = dataclasses.replace(sample.truth, polygons=[polygon * scale for polygon in sample.truth.polygons])
    return Sample(sample.name, image, words)


def score(pairs: Sequence[tuple[Detections, Words]], evaluate: EvaluateDetection) -> Score:
    """The protocol's score with the counts that it comes from."""
    return PROTOCOLS[evaluate.protocol]([(found.polygons, truth.polygons, truth.ignore, truth.texts) for found, truth in pairs])


def judge(pairs: Sequence[tuple[Detections, Words]], evaluate: EvaluateDetection) -> Scores:
    """Precision, recall and Hmean over a split, 0..1, by the protocol."""
    found = score(pairs, evaluate)
    return {"precision": found.precision, "recall": found.recall, "hmean": found.hmean}


def corrected(truth: Words, found: Detections) -> Words:
    """The words of a training image with those that a good detector found there taken into account.

    A do-not-care word that is found, with an IoU above `SAME`, counts again, without its text. What is found elsewhere, less than half of
    it on words of the ground truth, becomes do-not-care. Where the ground truth holds nothing at all, what is found are the words.
    """
    if not truth.polygons:
        return Words(found.polygons, np.zeros(len(found.polygons), bool))
    (overlap,) = overlaps([(found.polygons, truth.polygons, truth.ignore, truth.texts)])
    union = overlap.word_areas[:, None] + overlap.found_areas - overlap.shared
    seen = (overlap.shared > SAME * union).any(1)
    elsewhere = [polygon for polygon, shares in zip(found.polygons, overlap.precision.T, strict=True) if shares.sum() < 0.5]
    texts = ["" if skip else text for text, skip in zip(truth.texts, truth.ignore, strict=True)] if truth.texts else []
    return Words(
        [*truth.polygons, *elsewhere],
        np.concatenate([truth.ignore & ~seen, np.ones(len(elsewhere), bool)]),
        [*texts, *[""] * len(elsewhere)] if texts else [],
    )


def counts(truths: Iterable[Words]) -> dict[str, int]:
    """How many words count, and how many do not."""
    flags = [flag for truth in truths for flag in truth.ignore]
    return {"words": len(flags) - sum(flags), "do-not-care": int(sum(flags))}


def record(found: Detections) -> dict[str, Any]:
    """Polygons, to a hundredth of a pixel, and scores."""
    words = zip(found.polygons, found.scores, strict=True)
    return {
        "words": [{"polygon": np.round(polygon.astype(float), 2).tolist(), "score": round(float(score), 4)} for polygon, score in words]
    }


def told(found: Detections) -> str:
    """How many words were found."""
    return f"{len(found.polygons)} word{'s' * (len(found.polygons) != 1)}"


def drawn(image: np.ndarray, found: Detections) -> np.ndarray:
    """A copy of an (H, W, 3) uint8 RGB image with every detection outlined, thicker on larger images."""
    canvas = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 640))
    for polygon in found.polygons:
        cv2.polylines(canvas, [np.round(polygon).astype(np.int32)], True, FOUND, thickness, cv2.LINE_AA)
    return canvas


def outlined(image: np.ndarray, truth: Words) -> np.ndarray:
    """A copy of the image with the words of the ground truth: green, and red for do-not-care."""
    canvas = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 640))
    for polygon, skip in zip(truth.polygons, truth.ignore, strict=True):
        corners = (polygon * 16).round().astype(np.int32)
        cv2.polylines(canvas, [corners], True, DO_NOT_CARE if skip else WORD, thickness, cv2.LINE_AA, shift=4)
    return canvas


def shapes(found: Detections) -> list[Shape]:
    """Every detection with its score."""
    return [Shape(polygon, f"{score:.2f}") for polygon, score in zip(found.polygons, found.scores, strict=True)]


def true_shapes(truth: Words) -> list[Shape]:
    """Every word with its transcription, where there is one."""
    texts = truth.texts or [""] * len(truth.polygons)
    words = zip(truth.polygons, texts, truth.ignore, strict=True)
    return [Shape(polygon, text, counts=not ignore) for polygon, text, ignore in words]


DETECTION = Task(
    name="detection",
    begun_with=MappingProxyType({"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 96}}),
    at_size=lambda height, width: {"short_side": min(height, width)},
    metrics=(Metric("precision", "P %"), Metric("recall", "R %"), Metric("hmean", "Hmean %")),
    main="hmean",
    evaluate=EvaluateDetection,
    augment=Augment,
    crop=(640, 640),
    square=True,
    size=size,
    view=view,
    shown=shown,
    resized=resized,
    judge=judge,
    counts=counts,
    record=record,
    told=told,
    drawn=drawn,
    outlined=outlined,
    shapes=shapes,
    true_shapes=true_shapes,
    carries_maps=True,
    corrected=corrected,
)
