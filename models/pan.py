"""PAN: efficient and accurate arbitrary-shaped text detection with pixel aggregation network (Wang et al., ICCV 2019), in the order
of the paper.

Section 3.1 network, 3.4 pixel aggregation, 3.5 loss. The neck of sections 3.2 and 3.3 is `compress.models.necks.fpem_ffm`. F(p) is the
similarity vector of pixel p, K_i and T_i are the kernel and the text of word i, and G(K_i) is the mean of F over K_i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from compress.models.contract import IMAGENET_MEAN, IMAGENET_STD, Algorithm, Detections, Deviation, Input, Mean, Sample, Weight
from compress.models.geometry import fill, short_side, shrunk
from compress.models.layers import TEXT_PRIOR_LOGIT, assembled, conv_bn, initialise
from compress.models.losses import dice, hard_examples
from compress.models.regions import RegionThresholds, checked_maps, grow, seeds, words
from compress.models.registry import BACKBONES, NECKS, checked, configured

DIMENSIONS = 4  # of F(p)
STRIDE = 4  # of the exported maps


class PAN(nn.Module):
    """Backbone, neck, a 3x3 convolution to a quarter of the neck's width, and a 1x1 convolution to each kind of map.

    `forward` takes (B, 3, H, W) and gives `text` and `kernel`, (B, 1, h, w), probabilities in 0..1, and `similarity`, (B, 4, h, w), of
    any value; h, w are H, W in training and H / 4, W / 4 otherwise.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module) -> None:
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
            nn.init.constant_(self.maps[name].bias, TEXT_PRIOR_LOGIT)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.fuse(self.neck(self.backbone(images)))
        maps = {name: layer(features) for name, layer in self.maps.items()}
        if self.training:
            maps = {name: interpolate(map, scale_factor=float(STRIDE), mode="bilinear", align_corners=False) for name, map in maps.items()}
        return {"text": maps["text"].sigmoid(), "kernel": maps["kernel"].sigmoid(), "similarity": maps["similarity"]}


@dataclass(frozen=True)
class Thresholds(RegionThresholds):
    """:class:`RegionThresholds` with the values of the published training, and the condition of section 3.4.

    distance: a text pixel is merged with a kernel where F(p) is nearer than this to G(K_i); 0 or more.
    """

    score_threshold: float = 0.90
    min_kernel_area: float = 4.0
    min_area: float = 300.0
    distance: float = 6.0

    positive: ClassVar[tuple[str, ...]] = (*RegionThresholds.positive, "distance")


def pan_decode(outputs: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]], thresholds: Thresholds) -> list[Detections]:
    """Words from text, kernels and similarity vectors (section 3.4): regions, their scores, and boxes around them.

    outputs: `text` and `kernel`, (B, 1, h, w), in 0..1, and `similarity`, (B, 4, h, w), all finite, at stride 4 of the network's input.
    sizes: (height, width) of the B original pictures, in whose pixels the polygons are given, clipped to the picture.
    Detections come with the highest score first. Raises ValueError for maps that are not finite or of another shape.
    """
    text, kernel = (checked_maps(name, outputs[name], 1, len(sizes))[:, 0] for name in ("text", "kernel"))
    similarity = checked_maps("similarity", outputs["similarity"], DIMENSIONS, len(sizes))
    found = []
    for picture, size in enumerate(sizes):
        above = (maps[picture] > thresholds.bin_threshold for maps in (text, kernel))
        least = thresholds.min_kernel_area / STRIDE**2
        labels = pixel_aggregation(*above, similarity[picture], thresholds.distance, least)
        found.append(words(labels, text[picture], size, thresholds, STRIDE))
    return found


def pixel_aggregation(text: np.ndarray, kernel: np.ndarray, similarity: np.ndarray, distance: float, min_area: float = 0.0) -> np.ndarray:
    """Steps 1 to 3 of section 3.4: the 4-connected regions of the kernels, grown over the text pixels that are similar to them.

    text, kernel: (H, W) bool. similarity: (4, H, W). min_area: least pixels of a kernel. Gives (H, W) int32 labels. A pixel goes to the
    kernel that reaches it first; where several do in the same step, to the one with the highest label.
    """
    labels = seeds(kernel & text, min_area)
    inner = labels[1:-1, 1:-1]
    width = text.shape[1]
    vectors = similarity.reshape(DIMENSIONS, -1)
    members = np.flatnonzero(inner)
    owners = inner.ravel()[members]
    counts = np.maximum(np.bincount(owners), 1)
    means = np.stack([np.bincount(owners, vector[members]) / counts for vector in vectors])  # G(K_i), a column each

    def similar(pixels: np.ndarray, claims: np.ndarray) -> np.ndarray:
        row, column = np.divmod(pixels, width + 2)
        apart = vectors[:, (row - 1) * width + column - 1] - means[:, claims]
        return np.square(apart).sum(0) < distance**2

    grow(labels, text, similar)
    return inner


def pan_targets(sample: Sample, shrink_ratio: float = 0.5, min_size: float = 8.0) -> dict[str, np.ndarray]:
    """Label maps of a picture (section 3.5), each (1, H, W).

    `text` and `kernel` are int16: i on the pixels of word i and of its shrunk polygon, i >= 1. `mask` is uint8, 0 or 1.
    Words that are not to be judged are left out of both and masked: do-not-care words, words whose rectangle of least area is narrower
    than `min_size` pixels, and words of which shrinking leaves nothing.
    """
    height, width = sample.image.shape[:2]
    text, kernel = np.zeros((2, 1, height, width), np.int16)
    mask = np.ones((1, height, width), np.uint8)
    for word, (polygon, ignore) in enumerate(zip(sample.truth.polygons, sample.truth.ignore, strict=True), 1):
        judged = not ignore and short_side(polygon) >= min_size
        part = shrunk(polygon, shrink_ratio) if judged else []
        if part:
            fill(text[0], [polygon], word)
            fill(kernel[0], part, word)
        else:
            fill(mask[0], [polygon], 0)
    return {"text": text, "kernel": kernel, "mask": mask}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss besides the text's, which is 1: alpha of `kernel` and beta of `aggregation` and discrimination together.

    The margins are delta_agg and delta_dis, distances of similarity vectors.
    """

    kernel: Weight = 0.5
    aggregation: Weight = 0.25
    aggregation_margin: Weight = 0.5
    discrimination_margin: Weight = 3.0


def pan_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """L_tex + alpha L_ker + beta (L_agg + L_dis) (section 3.5). All but L_tex look at the pixels of text alone.

    outputs: the maps of :class:`PAN` in training. targets: the batched maps of :func:`pan_targets`.
    """
    text, kernel, similarity = (outputs[name].float() for name in ("text", "kernel", "similarity"))
    mask = targets["mask"].float()
    text_words, kernel_words = (targets[name].long() * targets["mask"].long() for name in ("text", "kernel"))
    text_labels, kernel_labels = (text_words > 0).float(), (kernel_words > 0).float()
    # All pixels of the batch in one column, the words of all pictures in one row.
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
    :func:`kernel_means` gives them. The mean over the pictures that have kernels.
    """
    pixels = present.flatten()[texts].nonzero().squeeze(1)
    owners = texts[pixels]
    far = torch.linalg.vector_norm(vectors[pixels] - means.flatten(0, 1)[owners], dim=1)
    losses = torch.log1p((far - margin).clamp(min=0).square())
    sizes = torch.bincount(owners, minlength=present.numel()).clamp(min=1)
    of_words = losses.new_zeros(present.numel()).index_add(0, owners, losses / sizes[owners]).view_as(present)
    return mean_of_pictures(of_words.sum(1), present.sum(1))


def discrimination_loss(means: Tensor, present: Tensor, margin: float) -> Tensor:
    """L_dis (equations 3 and 4): mean over pairs of different kernels of ln(max(margin - |G(K_i) - G(K_j)|, 0)^2 + 1).

    means, present: as :func:`kernel_means` gives them. The mean over the pictures that have two kernels or more.
    """
    apart = torch.linalg.vector_norm(means[:, :, None] - means[:, None], dim=3)
    different = ~torch.eye(apart.shape[1], dtype=torch.bool, device=apart.device)
    pairs = present[:, :, None] & present[:, None] & different
    losses = torch.log1p((margin - apart).clamp(min=0).square()) * pairs
    return mean_of_pictures(losses.sum((1, 2)), pairs.sum((1, 2)))


def mean_of_pictures(sums: Tensor, counts: Tensor) -> Tensor:
    """The mean of `sums / counts` over the pictures where there is something to count; 0 where there is none."""
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


def pan(
    backbone: str | Mapping[str, Any] = "resnet18",
    neck: str | Mapping[str, Any] = MappingProxyType({"name": "fpem_ffm", "channels": 128, "repeats": 2}),
    loss: Mapping[str, Any] = MappingProxyType({}),
    shrink_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    mean: Mean = IMAGENET_MEAN,
    std: Deviation = IMAGENET_STD,
) -> Algorithm:
    """PAN as an :class:`Algorithm`.

    backbone, neck: a name from `compress.models.registry`, or a mapping of `name` and keywords. loss: fields of :class:`LossWeights`.
    shrink_ratio: of the kernels. mean, std: as in :func:`db`. Raises ValueError for unknown names or keywords and for wrong
    values.
    """
    parts = configured(BACKBONES, backbone, "model.backbone"), configured(NECKS, neck, "model.neck")
    weights = checked(LossWeights, loss, "model.loss")()
    return Algorithm(
        task="detection",
        network=partial(assembled, PAN, *parts),
        targets=partial(pan_targets, shrink_ratio=shrink_ratio),
        loss=partial(pan_loss, weights=weights),
        decode=pan_decode,
        settings=Thresholds,
        tunable=TUNABLE,
        copies=MappingProxyType({"text": "dice", "kernel": "dice"}),
        features=("neck.smooths.*",),
        kept_layers=("maps.*",),
        input=Input(mean=tuple(mean), std=tuple(std)),
    )


TUNABLE = MappingProxyType(
    {"bin_threshold": (0.3, 0.4, 0.5, 0.6, 0.7), "score_threshold": (0.7, 0.8, 0.85, 0.9), "min_area": (0.0, 100.0, 300.0)}
)
