"""What the workbench may know of an algorithm, and what an algorithm may know of an image.

`compress` meets every model only through :class:`Algorithm`. Nothing else of an architecture is visible to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.models.alphabet import Alphabet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# One number for each of R, G and B, as a recipe may give them.
Mean = Annotated[Sequence[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=3, max_length=3)]
Deviation = Annotated[Sequence[Annotated[float, Field(ge=1e-4, le=1000)]], Field(min_length=3, max_length=3)]
# Of a part of a loss, as a recipe may give it.
Weight = Annotated[float, Field(ge=0, le=1e6)]
# The width of a layer, as a recipe may give it: twice the widest that is published, and no more than memory holds.
Width = Annotated[int, Field(gt=0, le=2048)]
# The largest value of a threshold that is no share: far above what is useful, and far below what overflows.
LARGEST = 1e6
# How a student's output is compared with a teacher's: `dice` for maps valued in 0..1; the others for logits of classes along the last axis,
# see `compress.training.distillation`.
Divergence = Literal["dice", "kl", "dkd", "time_kl"]


@dataclass(frozen=True)
class Words:
    """The ground truth of a scene: its words.

    polygons: one (n, 2) float32 array of x, y pixel coordinates per word, n >= 3, clockwise as annotated.
    ignore: (len(polygons),) bool; True is a do-not-care word.
    texts: one transcription per word, or none at all.
    lexicon: the words of which what is read must be one; empty where any may be read.
    """

    polygons: list[np.ndarray]
    ignore: np.ndarray
    texts: list[str] = field(default_factory=list)
    lexicon: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """The ground truth of an image of one line of text: its transcription."""

    text: str


@dataclass(frozen=True)
class Label:
    """The ground truth of an image that belongs to a class as a whole: the name of the class."""

    name: str


@dataclass(frozen=True)
class Sample:
    """One image and its ground truth.

    image: (H, W, 3) uint8, RGB.
    truth: what the task of the data asks for: :class:`Words`, :class:`Line` or :class:`Label`.
    maps: (C, h, w) uint8 maps that cover the whole image, at any resolution, and go with it through random views.
    """

    name: str
    image: np.ndarray
    truth: Any
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image: (n, 2) float32 polygons in the image's own pixels, and a score in 0..1 for each."""

    polygons: list[np.ndarray]
    scores: np.ndarray


@dataclass(frozen=True)
class Classification:
    """The class that a classifier gives to one image: its name, and its probability in 0..1."""

    label: str
    score: float


@dataclass(frozen=True)
class Transcription:
    """What a recogniser reads in one image: the text, and its confidence in 0..1."""

    text: str
    confidence: float


@dataclass(frozen=True)
class Word:
    """A word, or whatever else was found as one, that was read: its (n, 2) float32 polygon in the image's own pixels, its text, and the
    confidence in the text, 0..1. line: number of the line that it stands in, from the top.
    """

    polygon: np.ndarray
    text: str
    confidence: float
    line: int = 0


@dataclass(frozen=True)
class Reading:
    """What a pipeline reads in one image: its words, line by line."""

    words: list[Word]

    @property
    def text(self) -> str:
        """All words, those of a line with spaces between them."""
        lines = groupby(self.words, lambda word: word.line)
        return "\n".join(" ".join(word.text for word in line) for _, line in lines)


@dataclass(frozen=True)
class Input:
    """What images a network takes.

    multiple: height and width of an input must be multiples of these. A recogniser gives one step for so many pixels of width.
    example: height and width, in pixels, of a usual input.
    mean, std: of R, G and B, of images in 0..1, by which an input is normalised.
    """

    multiple: tuple[int, int] = (32, 32)
    example: tuple[int, int] = (736, 1280)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


@dataclass(frozen=True)
class Algorithm:
    """An architecture with its companions.

    task: the name of a task in `compress.tasks`, which says what kind of answer `decode` gives and how answers are scored.
    network: builds the unpruned `nn.Module` with fresh weights. It takes normalised (B, 3, H, W) float images. When its own
        `training` flag is True, `forward` returns every output that the loss needs; when False, the exported outputs alone. Both are
        `dict[str, Tensor]`; a map may be smaller when exported. Only the top-level module may look at the flag for this, so that
        batch norm can be in evaluation mode while all outputs are asked for.
    targets: what one `Sample` should be trained towards: arrays of fixed shape for a fixed image size, integers where they are integers.
    loss: `(outputs, targets) -> (scalar, parts)`, both mappings of batched tensors.
    decode: `(outputs, sizes, settings) -> [answer]`; outputs are the exported ones as arrays, sizes the (height, width) of each original
        image, settings an instance of `settings`.
    settings: frozen dataclass of what can be chosen in decoding (thresholds), each field with a default.
    tunable: field of `settings` -> values worth trying on a validation split.
    copies: training output -> divergence, of those that a student copies from a teacher.
    features: patterns (`fnmatch`, on module names, of nested matches the outermost) of the layers whose (B, C, H, W) outputs a student
        may learn from a teacher's.
    kept_layers: patterns (`fnmatch`, on module names) of the layers that give the outputs: they are neither pruned nor quantized.
    kept_inside: patterns of layers that give no output, but are neither pruned nor quantized either.
    labels: those that a :class:`Classification` of it may have; empty where any may occur, and for other tasks.
    alphabet: the characters that a :class:`Transcription` of it may have; None for other tasks.
    input: what images the network takes.
    reads_targets: whether the network takes the batched targets as a second argument, as decoders do that are shown the true text in
        training. It must do without them too, then with any text of its own, and reads them only when its own `training` flag is True.
    longest: characters of the longest text that a decoder gives; None where the width of the image decides, and for other tasks.
    """

    task: str
    network: Callable[[], nn.Module]
    targets: Callable[[Sample], dict[str, np.ndarray]]
    loss: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
    decode: Callable[[Mapping[str, np.ndarray], Sequence[tuple[int, int]], Any], list[Any]]
    settings: type
    tunable: Mapping[str, Sequence[float]]
    copies: Mapping[str, Divergence] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    kept_layers: tuple[str, ...] = ()
    kept_inside: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    alphabet: Alphabet | None = None
    input: Input = Input()
    reads_targets: bool = False
    longest: int | None = None

    @property
    def kept(self) -> tuple[str, ...]:
        """Patterns of all layers that are neither pruned nor quantized."""
        return (*self.kept_layers, *self.kept_inside)

    def extra(self, targets: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], ...]:
        """What the network takes behind the images when all of its outputs are asked for: the targets, or nothing."""
        return (targets,) if self.reads_targets else ()
