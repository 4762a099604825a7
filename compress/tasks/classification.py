"""Classification: which class an image belongs to as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import Field

from compress.data.lines.augment import AugmentLine, augment_line
from compress.data.prepare import fit_into
from compress.evaluation.accuracy import shares_right
from compress.models.contract import Classification, Input, Label, Sample
from compress.tasks.task import Evaluate, Metric, Scores, Shape, Task

COLOUR = (0, 220, 0)  # RGB


Side = Annotated[int, Field(ge=16, le=8192)]


class EvaluateClassification(Evaluate):
    """How images are shown to a classifier.

    size: height and width, in pixels, of its input. An image is resized to the height; one that is narrower than the width is padded on
    the right with the mean of the input, one that is wider is squeezed.
    """

    size: tuple[Side, Side] = (48, 192)


def size(evaluate: EvaluateClassification, _wanted: Input) -> tuple[int, int]:
    """That of every image."""
    return evaluate.size


def shown(image: np.ndarray, evaluate: EvaluateClassification, wanted: Input) -> np.ndarray:
    """The image as the network is shown it at inference."""
    return fit_into(image, evaluate.size, wanted.mean)


def resized(sample: Sample, evaluate: EvaluateClassification, wanted: Input) -> Sample:
    """The same with its label."""
    return Sample(sample.name, shown(sample.image, evaluate, wanted), sample.truth)


def judge(pairs: Sequence[tuple[Classification, Label]], _evaluate: EvaluateClassification) -> Scores:
    """`accuracy`, the share of images whose class was found, 0..1, and `accuracy <label>`, the same of the images of each class."""
    return shares_right((found.label, truth.name) for found, truth in pairs)


def counts(truths: Iterable[Label]) -> dict[str, int]:
    """How many images each class has."""
    return dict(sorted(Counter(truth.name for truth in truths).items()))


def record(found: Classification) -> dict[str, Any]:
    """Label and probability."""
    return {"label": found.label, "score": round(found.score, 4)}


def told(found: Classification) -> str:
    """Label and probability in words."""
    return f"{found.label}, probability {found.score:.4f}"


def drawn(image: np.ndarray, found: Classification) -> np.ndarray:
    """The image with the class that was found written below it."""
    return written_below(image, told(found))


def outlined(image: np.ndarray, truth: Label) -> np.ndarray:
    """The image with its true class written below it."""
    return written_below(image, truth.name)


def written_below(image: np.ndarray, text: str) -> np.ndarray:
    """The (H, W, 3) image on a black strip with `text`, at least as wide as that needs."""
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    canvas = np.zeros((image.shape[0] + height + base + 8, max(image.shape[1], width + 8), 3), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    cv2.putText(canvas, text, (4, image.shape[0] + height + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, COLOUR, 1, cv2.LINE_AA)
    return canvas


def shapes(_found: Classification) -> list[Shape]:
    """Nothing: `told` says it all."""
    return []


def true_shapes(truth: Label) -> list[Shape]:
    """The true class."""
    return [Shape(caption=truth.name)]


CLASSIFICATION = Task(
    name="classification",
    begun_with=MappingProxyType({"name": "angle"}),
    at_size=lambda height, width: {"size": [height, width]},
    metrics=(Metric("accuracy", "accuracy %"),),
    main="accuracy",
    evaluate=EvaluateClassification,
    augment=AugmentLine,
    crop=(48, 192),
    size=size,
    view=augment_line,
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
)
