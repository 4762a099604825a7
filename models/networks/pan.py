"""PAN's network and loss (Wang et al. 2019): sections 3.1 and 3.5. Symbols are those of `compress.models.pan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from compress.models.layers import Neck, assembled, conv_bn, initialise, start_at_prior
from compress.models.losses import dice, hard_examples
from compress.models.pan import DIMENSIONS, STRIDE, LossWeights


class PAN(nn.Module):
    """Backbone, neck, a 3x3 convolution to a quarter of the neck's width, and a 1x1 convolution to each kind of map.

    `forward` takes (B, 3, H, W) and gives `text` and `kernel`, (B, 1, h, w), probabilities in 0..1, and `similarity`, (B, 4, h, w), of
    any value; h, w are H, W in training and H / 4, W / 4 otherwise.
    """

    def __init__(self, backbone: nn.Module, neck: Neck) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        width = neck.channels // 4
        self.fuse = conv_bn(neck.channels, width, 3)
        self.maps = nn.ModuleDict(
            {"text": nn.Conv2d(width, 1, 1), "kernel": nn.Conv2d(width, 1, 1), "similarity": nn.Conv2d(width, DIMENSIONS, 1)}
        )
        initialise(self.fuse)
        initialise(self.maps)
        for name in ("text", "kernel"):
            start_at_prior(self.maps[name])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.fuse(self.neck(self.backbone(images)))
        maps = {name: layer(features) for name, layer in self.maps.items()}
        if self.training:
            maps = {name: interpolate(map, scale_factor=float(STRIDE), mode="bilinear", align_corners=False) for name, map in maps.items()}
        return {"text": maps["text"].sigmoid(), "kernel": maps["kernel"].sigmoid(), "similarity": maps["similarity"]}


def pan_network(backbone: Mapping[str, Any], neck: Mapping[str, Any]) -> nn.Module:
    """A :class:`PAN` with fresh weights."""
    return assembled(PAN, backbone, neck)


def pan_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """L_tex + alpha L_ker + beta (L_agg + L_dis) (section 3.5). All but L_tex look at the pixels of text alone.

    outputs: the maps of :class:`PAN` in training. targets: the batched maps of :func:`pan_targets`.
    """
    text, kernel, similarity = (outputs[name].float() for name in ("text", "kernel", "similarity"))
    mask = targets["mask"].float()
    text_words, kernel_words = (targets[name].long() * targets["mask"].long() for name in ("text", "kernel"))
    text_labels, kernel_labels = (text_words > 0).float(), (kernel_words > 0).float()
    # All pixels of the batch in one column, the words of all images in one row.
    shape = len(mask), int(torch.maximum(text_words, kernel_words).max()) + 1
    first = torch.arange(0, shape[0] * shape[1], shape[1], device=mask.device).view(-1, 1, 1, 1)
    vectors = similarity.permute(0, 2, 3, 1).flatten(0, 2)
    means, present = kernel_means(vectors, (kernel_words + first).flatten(), shape)
    parts = {
        "text": dice(text, text_labels, hard_examples(text, text_labels, mask)).mean(),
        "kernel": dice(kernel, kernel_labels, text_labels).mean(),
        "aggregation": aggregation_loss(vectors, (text_words + first).flatten(), means, present, weights.aggregation_margin),
        "discrimination": discrimination_loss(means, present, weights.discrimination_margin),
    }
    pulled = parts["aggregation"] + parts["discrimination"]
    total = parts["text"] + weights.kernel * parts["kernel"] + weights.aggregation * pulled
    return total, {name: part.detach() for name, part in parts.items()}


def aggregation_loss(vectors: Tensor, texts: Tensor, means: Tensor, present: Tensor, margin: float) -> Tensor:
    """L_agg (equations 1 and 2): mean over words and their pixels of ln(max(|F(p) - G(K_i)| - margin, 0)^2 + 1).

    vectors: (P, 4), F of every pixel of the batch. texts: (P,) the place of each pixel's word in `means`. means, present: as
    :func:`kernel_means` gives them. The mean over the images that have kernels.
    """
    pixels = present.flatten()[texts].nonzero().squeeze(1)
    owners = texts[pixels]
    far = torch.linalg.vector_norm(vectors[pixels] - means.flatten(0, 1)[owners], dim=1)
    losses = torch.log1p((far - margin).clamp(min=0).square())
    sizes = torch.bincount(owners, minlength=present.numel()).clamp(min=1)
    of_words = losses.new_zeros(present.numel()).index_add(0, owners, losses / sizes[owners]).view_as(present)
    return mean_of_images(of_words.sum(1), present.sum(1))


def discrimination_loss(means: Tensor, present: Tensor, margin: float) -> Tensor:
    """L_dis (equations 3 and 4): mean over pairs of different kernels of ln(max(margin - |G(K_i) - G(K_j)|, 0)^2 + 1).

    means, present: as :func:`kernel_means` gives them. The mean over the images that have two kernels or more.
    """
    apart = torch.linalg.vector_norm(means[:, :, None] - means[:, None], dim=3)
    different = ~torch.eye(apart.shape[1], dtype=torch.bool, device=apart.device)
    pairs = present[:, :, None] & present[:, None] & different
    losses = torch.log1p((margin - apart).clamp(min=0).square()) * pairs
    return mean_of_images(losses.sum((1, 2)), pairs.sum((1, 2)))


def mean_of_images(sums: Tensor, counts: Tensor) -> Tensor:
    """The mean of `sums / counts` over the images where there is something to count; 0 where there is none."""
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def kernel_means(vectors: Tensor, kernels: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """G(K_i) of every word of a batch, (B, N, 4), and whether there is such a word, (B, N); word 0, the background, is never there.

    vectors: (P, 4), F of every pixel of the batch. kernels: (P,) the place, in the flattened (B, N) = `shape`, of each pixel's word.
    """
    pixels = (kernels % shape[1]).nonzero().squeeze(1)
    owners = kernels[pixels]
    counts = torch.bincount(owners, minlength=shape[0] * shape[1])
    sums = vectors.new_zeros(len(counts), vectors.shape[1]).index_add(0, owners, vectors[pixels])
    return (sums / counts.clamp(min=1)[:, None]).view(*shape, -1), (counts > 0).view(shape)
