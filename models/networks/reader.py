"""The network that a pipeline does not have."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Parts(nn.Module):
    """No layers, no weights: the parts of a pipeline are files of their own."""

    def forward(self, _images: Tensor, _targets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Raises ValueError."""
        raise ValueError("a pipeline has no network; its stage is `assemble`, and its parts are trained by recipes of their own")


def no_loss(_outputs: Mapping[str, Tensor], _targets: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Raises ValueError."""
    raise ValueError("a pipeline has no network to train; train the detector and the recogniser that it is assembled of.")
