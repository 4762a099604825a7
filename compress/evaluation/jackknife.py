"""How far a difference of two scores may be chance: images are left out block by block (the jackknife; Efron and Stein 1981).

Two models are judged on the same images, whose difficulty moves both: the scores without a block are compared pair by pair. Blocks are
runs of neighbours, since neighbouring images of a split are often shots of the same scene.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

BLOCKS = 20

Judged = TypeVar("Judged")


def without_each_block(judge: Callable[[Sequence[Judged]], float], images: Sequence[Judged]) -> list[float]:
    """The score of all images but those of one block, for each of 20 equal blocks; nothing for fewer than 20 images."""
    if len(images) < BLOCKS:
        return []
    bounds = [round(block * len(images) / BLOCKS) for block in range(BLOCKS + 1)]
    return [judge([*images[:start], *images[end:]]) for start, end in pairwise(bounds)]


def standard_error(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Of the difference of two scores, each given by :func:`without_each_block` on the same images; None where there are no blocks.

    The true difference lies within two of them in about 95 of 100 cases: over images like these, not over other seeds or data.
    """
    if not one or len(one) != len(other):
        return None
    differences = np.subtract(one, other)
    return float(np.sqrt((BLOCKS - 1) / BLOCKS * np.square(differences - differences.mean()).sum()))
