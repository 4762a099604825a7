"""Random views of an image of one line of text: one warp straight to the size of the input, one colour matrix."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from compress.models.contract import Sample


class AugmentLine(BaseModel):
    """What may happen to the image of a line in training.

    distort: largest shift of each corner, as a share of the image's height. brightness: largest relative change of brightness.
    noise: largest standard deviation of the noise, in grey levels. blur: largest standard deviation of the blur, in pixels of the input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    distort: float = Field(default=0.1, ge=0, le=0.5)
    brightness: float = Field(default=0.25, ge=0, lt=1)
    noise: float = Field(default=10.0, ge=0, le=100)
    blur: float = Field(default=1.0, ge=0, le=10)


def augment_line(sample: Sample, config: AugmentLine, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """A random view of `sample`, exactly (height, width, 3) uint8, padded on the right where the line is narrower."""
    raise NotImplementedError
