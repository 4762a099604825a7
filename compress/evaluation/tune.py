"""Choosing decoding thresholds on a validation split, on maps that were computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from compress.evaluation.icdar import Score
from compress.evaluation.protocols import evaluate
from compress.evaluation.settings import DEFAULT_PROTOCOL, Protocol
from compress.models.contract import Detections


def tune(
    outputs: Sequence[Mapping[str, np.ndarray]],
    sizes: Sequence[tuple[int, int]],
    truth: Sequence[tuple[Any, ...]],
    decode: Callable[[Mapping[str, np.ndarray], Sequence[tuple[int, int]], Any], list[Detections]],
    thresholds: Any,
    tunable: Mapping[str, Sequence[float]],
    protocol: Protocol = DEFAULT_PROTOCOL,
) -> tuple[Any, Score]:
    """The thresholds with the highest Hmean over all combinations of `tunable`, and the score they reach.

    outputs: each picture's exported maps, (1, C, H, W) arrays. sizes: each picture's original (height, width). truth: each picture's
    polygons and do-not-care flags, and transcriptions where the protocol reads them. decode, tunable: an algorithm's. thresholds: where to
    start, an instance of the algorithm's dataclass; its own values are among those tried, and of equally good combinations the one that is
    nearest to it is taken.
    """

    def score(candidate: Any) -> Score:
        found = (decode(maps, [size], candidate)[0].polygons for maps, size in zip(outputs, sizes, strict=True))
        return evaluate([(polygons, *words) for polygons, words in zip(found, truth, strict=True)], protocol)

    # The first of equals wins, and the list begins at the start.
    scored = ((candidate, score(candidate)) for candidate in combinations(thresholds, tunable))
    return max(scored, key=lambda pair: pair[1].hmean)


def combinations(start: Any, tunable: Mapping[str, Sequence[float]]) -> list[Any]:
    """All combinations of the values of `tunable` and of `start`, nearest to `start` first, by steps of each value's own range."""
    values = {name: sorted({getattr(start, name), *tried}) for name, tried in tunable.items()}

    def distance(combination: tuple[float, ...]) -> float:
        moved = zip(values.items(), combination, strict=True)
        return sum(abs(value - getattr(start, name)) / ((tried[-1] - tried[0]) or 1) for (name, tried), value in moved)

    return [replace(start, **dict(zip(values, chosen, strict=True))) for chosen in sorted(product(*values.values()), key=distance)]
