"""Text recognition: what the one line of text in an image says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from compress.data.lines.augment_text import AugmentText, augment_text, joined
from compress.data.prepare import fit_into
from compress.evaluation.transcription import text_scores
from compress.models.contract import Input, Line, Sample, Transcription
from compress.tasks.task import Evaluate, Metric, Scores, Shape, Task

Side = Annotated[int, Field(ge=16, le=8192)]
BUCKETS = (96, 160, 240, 320, 480, 640, 960)  # pixels
WIDEST = 64  # heights; a line that is longer is squeezed
NARROWEST = 8  # pixels; a line that is narrower is padded, so that three halvings leave something of it
TRAINED = 320  # pixels, the width of training images where lines have their own
COLOUR = (0, 220, 0)  # RGB


class EvaluateRecognition(Evaluate):
    """How lines are shown to a recogniser.

    height: of its input, in pixels; an image is resized to it, and rounded up to what the network divides by.
    width: a number is that of every input: a line that is narrower is padded on the right with the mean of the input, one that is wider
    is squeezed. `own`: as wide as the line is. `buckets`, or a list of widths: padded to the narrowest of them that holds the line; one
    that is wider than all of them has its own. A line is read alone, whatever others are in its batch.
    """

    height: Side = 48
    width: Side | Literal["own", "buckets"] | Annotated[tuple[Side, ...], Field(min_length=1)] = 320


def size(evaluate: EvaluateRecognition, wanted: Input) -> tuple[int, int]:
    """Height and width of training images: that of every input, or the usual one where lines have their own."""
    width = evaluate.width if isinstance(evaluate.width, int) else TRAINED
    return rounded((evaluate.height, width), wanted)


def rounded(size: tuple[int, int], wanted: Input) -> tuple[int, int]:
    """Height and width rounded up to what the network divides by."""
    height, width = (-(-side // step) * step for side, step in zip(size, wanted.multiple, strict=True))
    return height, width


def input_size(image: np.ndarray, evaluate: EvaluateRecognition, wanted: Input) -> tuple[int, int]:
    """Height and width at which the network is shown an (H, W, 3) image."""
    height, _ = rounded((evaluate.height, 1), wanted)
    own = min(WIDEST * height, max(NARROWEST, math.ceil(image.shape[1] * height / image.shape[0])))
    if isinstance(evaluate.width, int):
        return rounded((height, evaluate.width), wanted)
    buckets = BUCKETS if evaluate.width == "buckets" else () if evaluate.width == "own" else sorted(evaluate.width)
    return rounded((height, next((width for width in buckets if width >= own), own)), wanted)


def shown(image: np.ndarray, evaluate: EvaluateRecognition, wanted: Input) -> np.ndarray:
    """The image as the network is shown it at inference."""
    return fit_into(image, input_size(image, evaluate, wanted), wanted.mean)


def resized(sample: Sample, evaluate: EvaluateRecognition, wanted: Input) -> Sample:
    """The same with its text."""
    return Sample(sample.name, shown(sample.image, evaluate, wanted), sample.truth)


def judge(pairs: Sequence[tuple[Transcription, Line]], _evaluate: EvaluateRecognition) -> Scores:
    """The scores of :func:`text_scores`."""
    return text_scores([(found.text, truth.text) for found, truth in pairs])


def counts(truths: Iterable[Line]) -> dict[str, int]:
    """How many characters there are, how many different ones, and how many the longest text has."""
    texts = [truth.text for truth in truths]
    return {
        "characters": sum(map(len, texts)),
        "different characters": len(set().union(*texts)),
        "characters in the longest text": max(map(len, texts), default=0),
    }


def record(found: Transcription) -> dict[str, Any]:
    """Text and confidence."""
    return {"text": found.text, "confidence": round(found.confidence, 4)}


def told(found: Transcription) -> str:
    """Text and confidence in words."""
    return f"'{found.text}', confidence {found.confidence:.4f}"


def drawn(image: np.ndarray, found: Transcription) -> np.ndarray:
    """The image with the text that was read below it."""
    return written_below(image, found.text)


def outlined(image: np.ndarray, truth: Line) -> np.ndarray:
    """The image with its true text below it."""
    return written_below(image, truth.text)


def written_below(image: np.ndarray, text: str) -> np.ndarray:
    """The (H, W, 3) image on a black strip with `text`, at least as wide as that needs; OpenCV draws "?" for what is no ASCII."""
    ink = inked(text, 18)
    canvas = np.zeros((image.shape[0] + len(ink) + 8, max(image.shape[1], ink.shape[1] + 8), 3), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    canvas[image.shape[0] + 4 : -4, 4 : 4 + ink.shape[1]] = ink[..., None] / 255 * COLOUR
    return canvas


def inked(text: str, height: int) -> np.ndarray:
    """(h, w) uint8 ink of `text`, by OpenCV's own font."""
    plain = text.encode("ascii", "replace").decode()
    (width, above), below = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, height / 36, 1)
    ink = np.zeros((above + below + 2, max(1, width)), np.uint8)
    cv2.putText(ink, plain, (0, above + 1), cv2.FONT_HERSHEY_SIMPLEX, height / 36, 255, 1, cv2.LINE_AA)
    return ink


def shapes(_found: Transcription) -> list[Shape]:
    """Nothing: `told` says it all."""
    return []


def true_shapes(truth: Line) -> list[Shape]:
    """The true text."""
    return [Shape(caption=f"'{truth.text}'")]


RECOGNITION = Task(
    name="recognition",
    begun_with=MappingProxyType(
        {"name": "crnn", "backbone": "mobilenet_v3_small", "sequence": {"name": "bilstm", "hidden": 64}, "alphabet": {"texts": "train"}}
    ),
    at_size=lambda height, width: {"height": height, "width": width},
    metrics=(Metric("accuracy", "accuracy %"), Metric("folded", "a-z, 0-9 %"), Metric("similarity", "1-NED %")),
    main="accuracy",
    evaluate=EvaluateRecognition,
    augment=AugmentText,
    crop=(48, TRAINED),
    size=size,
    view=augment_text,
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
    joined=joined,
)
