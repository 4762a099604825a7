"""The keys that say what quantizers are like; those of stage `quantize`, and of the passes that try quantizers out."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from compress.errors import CompressError


class Quantizers(BaseModel):
    """What quantizers are put in and how their ranges are chosen.

    per_channel: weights have one scale for each output channel, else one for the whole tensor; activations always have one.
    without_vnni: weights leave room for sums of two products in 16 bits, so that x86 processors without VNNI compute what others do; see
    :mod:`compress.quantization.sixteen_bits`. False: they have 8 bits but in the first layer, for processors that are known to have VNNI.
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
    without_vnni: bool = True
    activations: Literal["asymmetric", "symmetric"] = "asymmetric"
    ranges: Literal["mean_min_max", "min_max", "percentile", "histogram"] = "mean_min_max"
    percentile: float = Field(99.99, gt=50, lt=100)
    bias_correction: bool = True

    def check_quantizers(self) -> None:
        """Raises CompressError for a `percentile` that nothing would read."""
        unread = self.ranges != "percentile" and self.percentile != type(self).model_fields["percentile"].default
        if unread:
            raise CompressError(f"percentile: {self.percentile} has no effect with ranges: {self.ranges}; set ranges: percentile.")
