"""One part of a data set: annotations in memory, images read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.models.contract import Sample

SPLITS = ("train", "val", "test")


def evenly(total: int, count: int) -> list[int]:
    """Up to `count` of the numbers from 0 to `total` - 1, evenly apart, the first and the last among them."""
    return [int(place) for place in np.linspace(0, total - 1, min(count, total)).round()]


@dataclass(frozen=True)
class Annotation:
    """What `compress.models.contract.Sample` says of an image, without its pixels."""

    name: str
    truth: Any


@dataclass(frozen=True)
class Split:
    """A sequence of `Sample`. Pixels come from `image(index)`, (H, W, 3) uint8 RGB, which may be read-only.

    digest: sha256, in hexadecimal, of all that decides what the samples are.
    maps: `maps(index)`, those of a sample, where it has some.
    problems: one sentence for each damaged line or file that was left out.
    """

    name: str
    annotations: Sequence[Annotation]
    image: Callable[[int], np.ndarray]
    digest: str
    problems: tuple[str, ...] = ()
    maps: Callable[[int], Mapping[str, np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"split '{self.name}' has {len(self)} images, there is no number {index}")
        annotation = self.annotations[index]
        return Sample(annotation.name, self.image(index), annotation.truth, self.maps(index) if self.maps else {})

    def fingerprint(self) -> str:
        """The digest."""
        return self.digest
