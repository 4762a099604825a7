"""The `latency` section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

RuntimeName = Literal["torch", "torch.compile", "onnxruntime", "openvino"]
MOST_PIXELS = 1 << 25  # in a batch: 35 images of 736 x 1280
Side = Annotated[int, Field(ge=1, le=16384)]


class Latency(BaseModel):
    """How latency is measured.

    input: batch, channels, height and width, in pixels; unless said, one image of the size that is usual for the model.
    threads: per runtime. runtimes: those that models are timed in, none for an empty list; an exported file is timed in its own. rounds:
    timed calls of each, in turn, after a warm-up; the median and the 90th percentile are reported.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    input: tuple[Annotated[int, Field(ge=1, le=1024)], Annotated[int, Field(ge=1, le=16)], Side, Side] = (1, 3, 736, 1280)
    threads: int = Field(2, ge=1, le=256)
    runtimes: tuple[RuntimeName, ...] = ("torch", "onnxruntime", "openvino")
    rounds: int = Field(20, ge=3, le=10000)

    @field_validator("input")
    @classmethod
    def check_pixels(cls, size: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """No more pixels than memory holds: each becomes some hundred bytes inside a network."""
        batch, _, height, width = size
        if batch * height * width > MOST_PIXELS:
            raise ValueError(f"{batch * height * width / 1e6:.0f} megapixels are too many; take {MOST_PIXELS / 1e6:.0f} at most")
        return size
