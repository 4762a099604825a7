"""What reads an image from end to end: a detector, an angle classifier where there is one, and a recogniser, each a model of its own.

It has no network: `compress.pipeline` puts its parts together. Here is what is decided once all words are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from compress.models.contract import Algorithm, Input, Reading, Sample
from compress.models.registry import of_network


@dataclass(frozen=True)
class Kept:
    """Which words are answers.

    drop_score: the least confidence of a text; 0.5 in PP-OCR's system.
    """

    drop_score: Annotated[float, Field(ge=0, le=1)] = 0.5


def reader_decode(outputs: Mapping[str, Any], _sizes: Any, settings: Kept) -> list[Reading]:
    """The words that are sure enough and have a text. outputs: `words`, a list of all :class:`Word` of one image in reading order."""
    return [Reading([word for word in outputs["words"] if word.text and word.confidence >= settings.drop_score])]


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
