"""Accuracy: the metric of models that name a picture as a whole, by a class or by what is written on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """How many pictures were named rightly.

    accuracy: their share, 0..1; 0 of no pictures. classes: true label -> how many pictures have it (`images`), and how many of those were
    named so (`right`), in the order of the labels.
    """

    accuracy: float
    right: int
    images: int
    classes: dict[str, dict[str, int]]


def accuracy(pictures: Iterable[tuple[str, str]]) -> Accuracy:
    """pictures: the label that was found and the true one, of each. They are equal or not: nothing is folded or trimmed."""
    counts = Counter((true, found == true) for found, true in pictures)
    labels = sorted({true for true, _ in counts})
    classes = {label: {"right": counts[label, True], "images": counts[label, True] + counts[label, False]} for label in labels}
    right = sum(count["right"] for count in classes.values())
    images = sum(count["images"] for count in classes.values())
    return Accuracy(right / images if images else 0.0, right, images, classes)
