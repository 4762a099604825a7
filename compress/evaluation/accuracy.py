"""Accuracy: how many images were named rightly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def shares_right(images: Iterable[tuple[str, str]]) -> dict[str, float]:
    """`accuracy`, the share of all images that were named rightly, 0..1, and `accuracy <label>` of those of each true label, sorted.

    images: the label that was found and the true one, of each. They are equal or not: nothing is folded or trimmed. 0 of no images.
    """
    counts = Counter((true, found == true) for found, true in images)
    labels = sorted({true for true, _ in counts})
    right, total = sum(count for (_, hit), count in counts.items() if hit), sum(counts.values())
    each = {f"accuracy {label}": counts[label, True] / (counts[label, True] + counts[label, False]) for label in labels}
    return {"accuracy": right / total if total else 0.0, **each}
