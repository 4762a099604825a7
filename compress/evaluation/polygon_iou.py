"""One-to-one at IoU > 0.5 on polygons as they are, as results on Total-Text and CTW1500 are usually given.

The rules are those of :mod:`compress.evaluation.icdar` (Everingham et al. 2010 with do-not-care words): only detections are not rounded to
whole pixels, since no submission file is written in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from compress.evaluation.icdar import Scene, Score, match_all, total


def evaluate(images: Sequence[Scene]) -> Score:
    """Score a split; see :func:`compress.evaluation.icdar.match` for the matching of an image."""
    return total(match_all(images, whole_pixels=False))
