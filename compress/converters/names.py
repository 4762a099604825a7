"""How a converter says which layer of ours is which of another framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
TORCH_SLOPE = 1 / 6  # of torch's hard sigmoid


@dataclass(frozen=True)
class Pair:
    """One layer: its name in our network and in Paddle's. slope: of the hard sigmoid that reads it, where there is one.

    theirs: empty where the architecture is read from exported graphs alone.
    """

    ours: str
    theirs: str = ""
    slope: float = TORCH_SLOPE


@dataclass(frozen=True)
class Family:
    """One architecture of another framework.

    config: the `model` section that builds ours. evaluate: its authors' settings. pairs: all layers with weights, in the order in which
    Paddle runs them, which is the order of an exported graph; the first reads the image, and those that exports may lack come last.
    maps: our maps in the order of the channels of an exported output. lines: whether it is shown 48 x 192 lines instead of images.
    prepare: Paddle's tensors as the layers of `pairs`. rgb: whether it reads red, green and blue; PaddleOCR reads them the other way round.
    folded: whether exports have batch norms folded that are put back here, see `folded_norms`.
    """

    title: str
    config: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    pairs: Sequence[Pair]
    maps: tuple[str, ...]
    lines: bool = False
    prepare: Callable[[Tensors], Tensors] = dict
    rgb: bool = False
    folded: bool = False


def conv_bn(ours: str, theirs: str) -> list[Pair]:
    """:func:`compress.models.layers.conv_bn` and the layer of PaddleOCR that has a `conv` and a `bn`."""
    return [Pair(f"{ours}.0", f"{theirs}.conv"), Pair(f"{ours}.1", f"{theirs}.bn")]


def squeeze(ours: str, theirs: str, slope: float) -> list[Pair]:
    """:class:`compress.models.layers.SqueezeExcite` and a squeeze-and-excite of PaddleOCR."""
    return [Pair(f"{ours}.fc1", f"{theirs}.conv1"), Pair(f"{ours}.fc2", f"{theirs}.conv2", slope)]
