"""What reads an image from end to end: a detector, an angle classifier where there is one, and a recogniser, each a model of its own.

It has no network: `compress.pipeline` puts its parts together. Here is what is decided once all words are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import Field

from compress.models.contract import Algorithm, Input, Reading, Sample, Word
from compress.models.registry import of_network


@dataclass(frozen=True)
class Kept:
    """Which words are answers, and what is one.

    drop_score: the least confidence of a text; 0.5 in PP-OCR's system.
    join_gap: neighbours on a line with a gap of at most so many times the lower one's height become one answer, with spaces between the
    words; 0 joins none. Receipts and forms are annotated so.
    """

    drop_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    join_gap: Annotated[float, Field(ge=0, le=1000)] = 0.0


def reader_decode(outputs: Mapping[str, Any], _sizes: Any, settings: Kept) -> list[Reading]:
    """The words that are sure enough and have a text. outputs: `words`, a list of all :class:`Word` of one image in reading order."""
    words = [word for word in outputs["words"] if word.text and word.confidence >= settings.drop_score]
    return [Reading(joined(words, settings.join_gap) if settings.join_gap else words)]


def joined(words: Sequence[Word], most: float) -> list[Word]:
    """Neighbours on a line as one, with the least rectangle around both and the mean confidence of all of its characters."""
    groups: list[list[Word]] = []
    for word in words:
        near = groups and groups[-1][-1].line == word.line and gap(groups[-1][-1].polygon, word.polygon) <= most
        if near:
            groups[-1].append(word)
        else:
            groups.append([word])
    return [group[0] if len(group) == 1 else one_word(group) for group in groups]


def gap(before: np.ndarray, after: np.ndarray) -> float:
    """From the right end of a polygon to the left end of another, over the lower one's height; both upright, so it is for level lines."""
    height = min(float(np.ptp(polygon[:, 1])) for polygon in (before, after))
    return float(after[:, 0].min() - before[:, 0].max()) / max(height, 1e-6)


def one_word(group: Sequence[Word]) -> Word:
    """Several words as one."""
    corners = cv2.boxPoints(cv2.minAreaRect(np.concatenate([word.polygon for word in group]).astype(np.float32)))
    lengths = [len(word.text) for word in group]
    confidence = sum(word.confidence * length for word, length in zip(group, lengths, strict=True)) / sum(lengths)
    return Word(corners, " ".join(word.text for word in group), confidence, group[0].line)


def reader_targets(_sample: Sample) -> dict[str, Any]:
    """Raises ValueError: there is nothing to train."""
    raise ValueError("a pipeline has no network to train; train the detector and the recogniser that it is assembled of.")


def reader() -> Algorithm:
    """A pipeline as an :class:`Algorithm` of task "ocr"."""
    return Algorithm(
        task="ocr",
        network=partial(of_network, "reader", "Parts"),
        targets=reader_targets,
        loss=partial(of_network, "reader", "no_loss"),
        decode=reader_decode,
        settings=Kept,
        tunable=MappingProxyType({"drop_score": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)}),
        input=Input(multiple=(1, 1), example=(720, 1280)),
    )
