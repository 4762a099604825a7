"""One part of a data set: annotations in memory, pictures read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compress.models.contract import Sample

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Annotation:
    """What `compress.models.contract.Sample` says of a picture, without its pixels."""

    name: str
    polygons: list[np.ndarray]
    ignore: np.ndarray
    texts: list[str]


@dataclass(frozen=True)
class Split:
    """A sequence of `Sample`. Pixels come from `picture(index)`, (H, W, 3) uint8 RGB, which may be read-only.

    digest: sha256, in hexadecimal, of all that decides what the samples are.
    problems: one sentence for each damaged line or file that was left out.
    """

    name: str
    annotations: Sequence[Annotation]
    picture: Callable[[int], np.ndarray]
    digest: str
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"split '{self.name}' has {len(self)} pictures, there is no number {index}")
        words = self.annotations[index]
        return Sample(words.name, self.picture(index), words.polygons, words.ignore, words.texts)

    def fingerprint(self) -> str:
        return self.digest
