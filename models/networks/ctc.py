"""The loss of models with a CTC head (Graves et al. 2006, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss as negative_log_likelihood

from compress.models.alphabet import BLANK
from compress.models.ctc import LossWeights
from compress.models.layers import Centres, TrainingOnly

if TYPE_CHECKING:
    from compress.models.networks.crnn import CRNN

ALONE = LossWeights()


def ctc_loss(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: LossWeights = ALONE
) -> tuple[Tensor, dict[str, Tensor]]:
    """-ln p(text | image) for each character of a text, mean over the texts of a batch; and by their weights :func:`aggregation_loss`, and
    the mean distance of these texts' steps from their :class:`Centres`.

    outputs: `logits`, (B, T, classes), and `centre`, (B, T), where it has a weight. targets: the batched arrays of
    :func:`compress.models.ctc.ctc_targets`. Texts of length 0 are left out; a batch without any other has the loss 0.
    """
    logits, lengths = outputs["logits"].float(), targets["length"]
    steps = torch.full_like(lengths, logits.shape[1])
    scores = logits.log_softmax(2).transpose(0, 1)
    each = negative_log_likelihood(scores, targets["text"], steps, lengths, blank=BLANK, reduction="none", zero_infinity=True)
    counted = lengths > 0
    loss = (each / lengths.clamp(min=1) * counted).sum() / counted.sum().clamp(min=1)
    parts = {"ctc": loss.detach()}
    if weights.ace:
        ace = aggregation_loss(logits, targets["text"], lengths)
        loss, parts["ace"] = loss + weights.ace * ace, ace.detach()
    if weights.centre:
        centre = (outputs["centre"].mean(1) * counted).sum() / counted.sum().clamp(min=1)
        loss, parts["centre"] = loss + weights.centre * centre, centre.detach()
    return loss, parts


def aggregation_loss(logits: Tensor, texts: Tensor, lengths: Tensor) -> Tensor:
    """How far the share of each class in a line's steps is from its share in the text (Xie et al. 2019, "Aggregation Cross-Entropy for
    Sequence Recognition", equation 6), mean over the texts of a batch: the cross entropy of the means over the steps. Every step that is no
    character of the text is a blank.

    logits: (B, T, classes). texts: (B, at most T) classes, of which the first `lengths`, (B,), are a text; those of length 0 are left out.
    """
    batch, steps, classes = logits.shape
    written = torch.arange(texts.shape[1], device=texts.device) < lengths.unsqueeze(1)
    wanted = logits.new_zeros(batch, classes).scatter_add_(1, texts * written, written.to(logits.dtype))
    wanted[:, BLANK] = steps - lengths.to(logits.dtype)
    found = logits.log_softmax(2).logsumexp(1) - math.log(steps)
    each, counted = -(wanted / steps * found).sum(1), lengths > 0
    return (each * counted).sum() / counted.sum().clamp(min=1)


def centred_network(uncentred: Callable[[], CRNN], classes: int) -> CRNN:
    """The network of `uncentred` with the same fresh weights, and :class:`Centres` beside it in training."""
    network = uncentred()
    network.centres = TrainingOnly(Centres(classes, network.sequence.channels))
    return network
