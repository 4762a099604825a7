"""The protocols that a recipe can name in `evaluate: {protocol: ...}`: how detections are held against the words of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from compress.evaluation import cleval, deteval, icdar, polygon_iou
from compress.evaluation.icdar import Scene, Score

# Each takes (detections, polygons, ignore, texts) of every image: what was found, in the order of the scores, (n, 2) arrays of x, y pixels;
# the words, as many flags, True for do-not-care, and transcriptions, which only `cleval` reads.
PROTOCOLS: Mapping[str, Callable[[Sequence[Scene]], Score]] = MappingProxyType(
    {
        "icdar2015": icdar.evaluate,
        "polygon_iou": polygon_iou.evaluate,
        "deteval": deteval.evaluate,
        "cleval": cleval.evaluate,
    }
)
