"""The keys that say what quantizers are like; those of stage `quantize`, and of the passes that try quantizers out."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from compress.errors import CompressError


class Quantizers(BaseModel):
    """What quantizers are put in and how their ranges are chosen.

    per_channel: weights have one scale for each output channel, else one for the whole tensor; activations always have one.
    weight_bits: of layers that sum over channels; in 7, sums of two products with an activation fit into 16 bits, which is how processors
    without a dot product of 8 bits (x86 before VNNI) add them up: they cut off what does not fit. In 8 such a file may lose points there,
    and nowhere else. Depthwise layers, which sum otherwise, have 8 in any case, and the first layer 7.
    activations: `asymmetric`, with a zero point, or `symmetric` around zero (unsigned where nothing is negative), which leaves half of the
    steps unused after a hard-swish, whose values reach from -0.375 to some ten.
    ranges: how an activation's range comes from the calibration images: `mean_min_max`, the means of each image's extremes;
    `min_max`, the extremes of all; `percentile`, the means of each image's `percentile` and of its counterpart below; `histogram`,
    the range of least squared rounding error on a histogram of all values. A weight's range is always that of its values.
    percentile: of `ranges: percentile`.
    bias_correction: shift each bias by the mean error that its layer's rounding makes on the calibration images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    per_channel: bool = True
    weight_bits: Literal[7, 8] = 7
    activations: Literal["asymmetric", "symmetric"] = "asymmetric"
    ranges: Literal["mean_min_max", "min_max", "percentile", "histogram"] = "mean_min_max"
    percentile: float = Field(99.99, gt=50, lt=100)
    bias_correction: bool = True

    def check_quantizers(self) -> None:
        """Raises CompressError for a `percentile` that nothing would read."""
        unread = self.ranges != "percentile" and self.percentile != type(self).model_fields["percentile"].default
        if unread:
            raise CompressError(f"percentile: {self.percentile} has no effect with ranges: {self.ranges}; set ranges: percentile.")
