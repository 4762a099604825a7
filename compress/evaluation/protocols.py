"""The protocols that a recipe can name in `evaluate: {protocol: ...}`: how detections are held against the words of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from compress.evaluation import cleval, deteval, icdar, polygon_iou
from compress.evaluation.icdar import Picture, Score
from compress.evaluation.settings import DEFAULT_PROTOCOL, Protocol

PROTOCOLS: Mapping[Protocol, Callable[[Sequence[Picture]], Score]] = MappingProxyType(
    {
        "icdar2015": icdar.evaluate,
        "polygon_iou": polygon_iou.evaluate,
        "deteval": deteval.evaluate,
        "cleval": cleval.evaluate,
    }
)


def evaluate(pictures: Iterable[Picture], protocol: Protocol = DEFAULT_PROTOCOL) -> Score:
    """Score a split by a protocol.

    pictures: (detections, polygons, ignore, texts) of each: what was found, in the order of the scores, (n, 2) arrays of x, y pixels; the
    words, as many flags, True for do-not-care, and transcriptions, which only `cleval` reads.
    """
    return PROTOCOLS[protocol](list(pictures))
