"""PAN: efficient and accurate arbitrary-shaped text detection with pixel aggregation network (Wang et al., ICCV 2019), without
the network.

Section 3.4 pixel aggregation, 3.5 labels. Network and loss are in `compress.models.networks.pan`, the neck of sections 3.2 and 3.3 is
`compress.models.necks.fpem_ffm`. F(p) is the similarity vector of pixel p, K_i and T_i are the kernel and the text of word i, and G(K_i)
is the mean of F over K_i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from compress.models.contract import IMAGENET_MEAN, IMAGENET_STD, Algorithm, Detections, Deviation, Input, Mean, Sample, Weight
from compress.models.geometry import fill, short_side, shrunk
from compress.models.regions import RegionThresholds, checked_maps, grow, seeds, words
from compress.models.registry import BACKBONES, NECKS, checked, named, of_network

DIMENSIONS = 4  # of F(p)
STRIDE = 4  # of the exported maps


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
    sizes: (height, width) of the B original images, in whose pixels the polygons are given, clipped to the image.
    Detections come with the highest score first. Raises ValueError for maps that are not finite or of another shape.
    """
    text, kernel = (checked_maps(name, outputs[name], 1, len(sizes))[:, 0] for name in ("text", "kernel"))
    similarity = checked_maps("similarity", outputs["similarity"], DIMENSIONS, len(sizes))
    found = []
    for image, size in enumerate(sizes):
        is_text, is_kernel = (maps[image] > thresholds.bin_threshold for maps in (text, kernel))
        least = thresholds.min_kernel_area / STRIDE**2
        labels = pixel_aggregation(is_text, is_kernel, similarity[image], thresholds.distance, least)
        found.append(words(labels, text[image], size, thresholds, STRIDE))
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
    """Label maps of an image (section 3.5), each (1, H, W).

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
    parts = named(BACKBONES, backbone, "model.backbone"), named(NECKS, neck, "model.neck")
    weights = checked(LossWeights, loss, "model.loss")()
    return Algorithm(
        task="detection",
        network=partial(of_network, "pan", "pan_network", *parts),
        targets=partial(pan_targets, shrink_ratio=shrink_ratio),
        loss=partial(of_network, "pan", "pan_loss", weights=weights),
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
