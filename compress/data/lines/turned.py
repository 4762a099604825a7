"""Data format `turned`: lines of text, half of them upside down, for classifiers of the angle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from compress.data.data_format import DataFormat
from compress.data.lines.augment import AugmentLine
from compress.data.lines.lines import Lines
from compress.data.lines.lmdb_lines import LmdbLines
from compress.data.lines.synthetic import SyntheticLines
from compress.data.split import SPLITS, Annotation, Split
from compress.models.contract import Label

ANGLES = ("0", "180")  # degrees
TURNER = 1  # raised whenever others come to be turned
LineData = SyntheticLines | Lines | LmdbLines


class Turned(DataFormat):
    """The lines of another data set, each rotated by 180 degrees or not, at even odds that (seed, split, index) decide.

    of: a `data` section of a format of lines.
    """

    task: ClassVar[str] = "classification"

    format: Literal["turned"]
    of: Annotated[LineData, Field(discriminator="format")]

    def default_augment(self) -> AugmentLine:
        """That of lines which need not be read."""
        return AugmentLine()

    def splits(self) -> tuple[str, ...]:
        """Those of the lines."""
        return self.of.splits()

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """The lines of `split` with labels "0" and "180"; raises what opening the lines does."""
        lines = self.of.open(split, seed, progress)
        turned = [upside_down(seed, split, index) for index in range(len(lines))]
        annotations = [Annotation(line.name, Label(ANGLES[flag])) for line, flag in zip(lines.annotations, turned, strict=True)]
        digest = hashlib.sha256(f"turned {TURNER} {seed} {split} {lines.digest}".encode()).hexdigest()
        return Split(split, annotations, TurnedImages(lines.image, turned), digest, lines.problems)


def upside_down(seed: int, split: str, index: int) -> bool:
    """Whether an image is rotated."""
    return bool(np.random.default_rng((seed, SPLITS.index(split), index, TURNER)).random() < 0.5)


@dataclass(frozen=True)
class TurnedImages:
    """`images(index)`: (H, W, 3) uint8, rotated by 180 degrees where `turned` says so."""

    image: Callable[[int], np.ndarray]
    turned: list[bool]

    def __call__(self, index: int) -> np.ndarray:
        image = self.image(index)
        return np.ascontiguousarray(image[::-1, ::-1]) if self.turned[index] else image
