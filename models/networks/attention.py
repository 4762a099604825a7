"""The loss of models with an attention decoder."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import cross_entropy

from compress.models.attention import PADDING


def attention_loss(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], smoothing: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """The :func:`character_loss` of an algorithm with an attention decoder.

    outputs: `logits`, (B, L, classes). targets: the batched arrays of :func:`compress.models.attention.attention_targets`.
    """
    loss = character_loss(outputs["logits"], targets["characters"], smoothing)
    return loss, {"characters": loss.detach()}


def character_loss(logits: Tensor, characters: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy, the mean over all characters and ends of a batch; 0 for a batch without any.

    logits: (B, L, classes). characters: (B, L) int64; `PADDING` is left out. smoothing: share of the truth that is spread over all classes
    (Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7).
    """
    each = cross_entropy(
        logits.float().flatten(0, 1), characters.flatten(), ignore_index=PADDING, reduction="sum", label_smoothing=smoothing
    )
    return each / (characters != PADDING).sum().clamp(min=1)
