"""CRNN's network (Shi et al. 2017, section 2), and that with an attention decoder instead of CTC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from compress.models.networks.attention import GRUDecoder, Targets, answers, shown_by, starts
from compress.models.registry import LINE_BACKBONES, SEQUENCES, TRANSFORMS, configured


class CRNN(nn.Module):
    """What straightens a line, backbone, sequence model and a head, of one linear layer for example.

    `forward` takes (B, 3, H, W) lines and gives `probability`, (B, T, classes), of the classes of every step; in training the `logits` too,
    and `centre`, (B, T), where there are :class:`compress.models.layers.Centres`.
    """

    def __init__(self, transform: nn.Module, backbone: Any, sequence: Any, head: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.sequence = sequence
        self.head = head
        self.centres: nn.Module | None = None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.answers(self.sequence(self.backbone(self.transform(images))))

    def answers(self, steps: Tensor) -> dict[str, Tensor]:
        """The outputs for (B, T, channels) steps."""
        logits = self.head(steps)
        probability = logits.softmax(2)
        if not self.training:
            return {"probability": probability}
        centred = {"centre": self.centres(steps, logits)} if self.centres else {}
        return {"logits": logits, "probability": probability, **centred}


class ConvHead(nn.Sequential):
    """A 1x1 convolution of (B, T, channels) steps and a batch norm: (B, T, classes) logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(nn.Conv2d(channels, classes, 1), nn.BatchNorm2d(classes))

    def forward(self, steps: Tensor) -> Tensor:
        return super().forward(steps.transpose(1, 2).unsqueeze(2))[:, :, 0].transpose(1, 2)


class AttentionCRNN(nn.Module):
    """What straightens a line, backbone, sequence model and an attention decoder.

    `forward` takes (B, 3, H, W) lines and, in training, the batched targets, and gives :func:`answers`.
    """

    def __init__(self, transform: nn.Module, backbone: Any, sequence: Any, classes: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.sequence = sequence
        self.keys = nn.Linear(sequence.channels, hidden)
        self.decoder = GRUDecoder(sequence.channels, hidden, hidden, classes, steps)

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        steps = self.sequence(self.backbone(self.transform(images)))
        shown = shown_by(targets, starts(steps, self.decoder.embedding), self.decoder.steps) if self.training else None
        return answers(self.decoder(steps, self.keys(steps), shown), targets, self.training)


Part = Mapping[str, Any]  # name and keywords


def parts_of(transform: Part, backbone: Part, sequence: Part) -> tuple[Any, Any, Any]:
    """The three with fresh weights, the sequence model for the channels of the backbone."""
    straightened = configured(TRANSFORMS, transform, "model.transform")()
    features = configured(LINE_BACKBONES, backbone, "model.backbone")()
    return straightened, features, configured(SEQUENCES, sequence, "model.sequence")(features.channels)


def crnn_network(*parts: Part, classes: int) -> nn.Module:
    """A :class:`CRNN` with a linear layer as its head and fresh weights. parts: as for :func:`parts_of`."""
    transform, features, steps = parts_of(*parts)
    return CRNN(transform, features, steps, nn.Linear(steps.channels, classes))


def conv_ctc_network(*parts: Part, classes: int) -> nn.Module:
    """A :class:`CRNN` with a :class:`ConvHead` and fresh weights."""
    transform, features, steps = parts_of(*parts)
    return CRNN(transform, features, steps, ConvHead(steps.channels, classes))


def attention_network(*parts: Part, classes: int, hidden: int, steps: int) -> nn.Module:
    """An :class:`AttentionCRNN` with fresh weights."""
    return AttentionCRNN(*parts_of(*parts), classes, hidden, steps)
