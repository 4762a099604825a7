"""What the workbench may know of an algorithm, and what an algorithm may know of a picture.

`compress` meets every detector and recogniser only through :class:`Algorithm`. Nothing else of an architecture is visible to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# One number for each of R, G and B, as a recipe may give them.
Mean = Annotated[Sequence[float], Field(min_length=3, max_length=3)]
Deviation = Annotated[Sequence[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
# Of a part of a loss, as a recipe may give it.
Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Sample:
    """One picture and the words on it.

    image: (H, W, 3) uint8, RGB.
    polygons: one (n, 2) float32 array of x, y pixel coordinates per word, n >= 3, clockwise as annotated.
    ignore: (len(polygons),) bool; True is a do-not-care word.
    texts: one transcription per word; of a picture that is labelled as a whole, and so has no polygons, its label alone.
    """

    name: str
    image: np.ndarray
    polygons: list[np.ndarray]
    ignore: np.ndarray
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Detections:
    """What a detector found on one picture: (n, 2) float32 polygons in the picture's own pixels, and a score in 0..1 for each."""

    polygons: list[np.ndarray]
    scores: np.ndarray


@dataclass(frozen=True)
class Classification:
    """What a classifier made of one picture: the name of a class, and its probability in 0..1."""

    label: str
    score: float


@dataclass(frozen=True)
class Algorithm:
    """An architecture with its companions.

    task: "detection", whose `decode` gives :class:`Detections` and whose metric is Hmean, or "classification", whose `decode` gives a
        :class:`Classification` of each picture, needs nothing of the sizes and thresholds, and whose metric is accuracy.
    network: builds the unpruned `nn.Module` with fresh weights. It takes normalised (B, 3, H, W) float images. When its own
        `training` flag is True, `forward` returns every map the loss needs; when False, the exported maps alone. Both are
        `dict[str, Tensor]`; a map may be smaller when exported. Only the top-level module may look at the flag for this, so that
        batch norm can be in evaluation mode while all maps are asked for.
    targets: what one `Sample` should be trained towards: arrays of fixed shape for a fixed picture size.
    loss: `(outputs, targets) -> (scalar, parts)`, both mappings of batched tensors.
    decode: `(outputs, sizes, thresholds) -> [Detections]`, or `[Classification]`; outputs are the exported maps as arrays, sizes the
        (height, width) of each original picture, thresholds an instance of `thresholds`.
    thresholds: frozen dataclass of the decoding thresholds, each with a default.
    tunable: threshold name -> values worth trying on a validation split.
    distilled: names of the training maps, valued in 0..1, that a student copies from a teacher.
    features: patterns (`fnmatch`, on module names, of nested matches the outermost) of the layers whose (B, C, H, W) outputs a student
        may learn from a teacher's.
    map_layers: patterns (`fnmatch`, on module names) of the layers that give the maps: they are neither pruned nor quantized.
    labels: those that a `Classification` of it may have; empty where any may occur.
    multiple: height and width of the input must be multiples of it.
    mean, std: of R, G and B, of pictures in 0..1, by which the input is normalised.
    """

    task: str
    network: Callable[[], nn.Module]
    targets: Callable[[Sample], dict[str, np.ndarray]]
    loss: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
    decode: Callable[[Mapping[str, np.ndarray], Sequence[tuple[int, int]], Any], list[Detections] | list[Classification]]
    thresholds: type
    tunable: Mapping[str, Sequence[float]]
    distilled: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    map_layers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    multiple: int = 32
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
