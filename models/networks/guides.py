"""A recogniser with CTC and a guide beside it, which runs in training alone."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from compress.models.layers import Detached, TrainingOnly
from compress.models.networks.attention import Targets, character_loss, shown_by, starts, within_texts
from compress.models.networks.crnn import CRNN
from compress.models.networks.nrtr import Decoder
from compress.models.networks.sar import Decoder as SARDecoder
from compress.models.networks.sar import Encoder

Loss = Callable[[Targets, Targets], tuple[Tensor, dict[str, Tensor]]]


class GuidedCRNN(CRNN):
    """The parts of a :class:`CRNN`, and a guide that reads the features of its backbone.

    `forward` takes (B, 3, H, W) lines and, in training, the batched targets; it gives what a `CRNN` gives, and in training `guide`,
    (B, L, classes of an attention decoder), logits. both: whether CTC's gradient, too, reaches the backbone.
    """

    def __init__(self, unguided: CRNN, guide: nn.Module, both: bool) -> None:
        super().__init__(unguided.transform, unguided.backbone, unguided.sequence, unguided.head)
        self.centres = unguided.centres
        self.parted = nn.Identity() if both else Detached()
        self.guide = TrainingOnly(guide)

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        features = self.backbone(self.transform(images))
        if not self.training:
            return self.answers(self.sequence(features))
        return {**self.answers(self.sequence(self.parted(features))), "guide": self.guide(features, targets)}


class NRTRGuide(nn.Module):
    """A linear layer and the decoder of a Transformer: (B, C, H, W) features to (B, L, classes) logits."""

    def __init__(self, sizes: tuple[int, int, int, int, float], channels: int, classes: int, steps: int) -> None:
        super().__init__()
        dims, heads, hidden, layers, dropout = sizes
        self.narrow = nn.Linear(channels, dims, bias=False)
        self.decoder = Decoder(dims, classes, steps, dims, heads, hidden, layers, dropout)
        nn.init.xavier_uniform_(self.narrow.weight)

    def forward(self, features: Tensor, targets: Targets | None) -> Tensor:
        values = self.narrow(places_of(features))
        return within_texts(self.decoder(values, shown_by(targets, starts(values, self.decoder.embedding), self.decoder.steps)), targets)


class SARGuide(nn.Module):
    """SAR's encoder and decoder: (B, C, H, W) features to (B, L, classes) logits."""

    def __init__(self, sizes: tuple[int, int], channels: int, classes: int, steps: int) -> None:
        super().__init__()
        hidden, keys = sizes
        self.encoder = Encoder(channels, hidden, hidden)
        self.keys = nn.Conv2d(channels, keys, 3, padding=1)
        self.decoder = SARDecoder(channels, keys, hidden, classes, steps)

    def forward(self, features: Tensor, targets: Targets | None) -> Tensor:
        values, keys = places_of(features), places_of(self.keys(features))
        shown = shown_by(targets, starts(values, self.decoder.embedding), self.decoder.steps)
        return within_texts(self.decoder(self.encoder(features), values, keys, shown), targets)


def places_of(features: Tensor) -> Tensor:
    """(B, C, H, W) features as (B, H * W, C) places."""
    return features.flatten(2).transpose(1, 2)


def guided_network(unguided: Callable[[], CRNN], guide: Callable[..., nn.Module], sizes: tuple[int, int], both: bool) -> GuidedCRNN:
    """A :class:`GuidedCRNN` with fresh weights, those of `unguided` as without a guide. sizes: classes and steps of the guide."""
    network = unguided()
    return GuidedCRNN(network, guide(network.backbone.channels, *sizes), both)


def guided_loss(outputs: Targets, targets: Targets, ctc: Loss, smoothing: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the algorithm with CTC plus the guide's, a mean over characters; its part is `guide`."""
    loss, parts = ctc(outputs, targets)
    guide = character_loss(outputs["guide"], targets["characters"], smoothing)
    return loss + guide, {**parts, "guide": guide.detach()}
