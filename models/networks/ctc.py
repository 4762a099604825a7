"""The loss of models with a CTC head (Graves et al. 2006, section 4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss as negative_log_likelihood

from compress.models.alphabet import BLANK


def ctc_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """-ln p(text | image) for each character of a text, mean over the texts of a batch.

    outputs: `logits`, (B, T, classes). targets: the batched arrays of :func:`compress.models.ctc.ctc_targets`. Texts of length 0 are left
    out; a batch without any other has the loss 0.
    """
    logits, lengths = outputs["logits"].float(), targets["length"]
    steps = torch.full_like(lengths, logits.shape[1])
    scores = logits.log_softmax(2).transpose(0, 1)
    each = negative_log_likelihood(scores, targets["text"], steps, lengths, blank=BLANK, reduction="none", zero_infinity=True)
    counted = lengths > 0
    loss = (each / lengths.clamp(min=1) * counted).sum() / counted.sum().clamp(min=1)
    return loss, {"ctc": loss.detach()}
