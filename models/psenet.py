"""PSENet: shape robust text detection with progressive scale expansion network (Wang et al., CVPR 2019), without the network.

Section 3.3 progressive scale expansion, 3.4 label generation. Network and loss are in `compress.models.networks.psenet`. S_1 to S_n are
the segmentation maps of the kernels, the smallest first; S_n is the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from compress.models.contract import IMAGENET_MEAN, IMAGENET_STD, Algorithm, Detections, Deviation, Input, Mean, Sample
from compress.models.geometry import fill, short_side, shrunk
from compress.models.regions import RegionThresholds, checked_maps, grow, seeds, words
from compress.models.registry import BACKBONES, NECKS, named, of_network

Stride = Literal[1, 2, 4]


@dataclass(frozen=True)
class Thresholds(RegionThresholds):
    """:class:`RegionThresholds` with the values of the published training."""

    score_threshold: float = 0.93
    min_kernel_area: float = 5.0
    min_area: float = 800.0


def pse_decode(
    outputs: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]], thresholds: Thresholds, kernels: int = 7, stride: Stride = 4
) -> list[Detections]:
    """Words from the maps of the kernels (section 3.3): regions, their scores, and boxes around them.

    outputs: `kernels`, (B, n, h, w), finite, in 0..1, each the whole image at `stride` of the network's input.
    sizes: (height, width) of the B original images, in whose pixels the polygons are given, clipped to the image.
    Detections come with the highest score first. Raises ValueError for maps that are not finite or of another shape.
    """
    maps = checked_maps("kernels", outputs["kernels"], kernels, len(sizes))
    found = []
    for probability, size in zip(maps, sizes, strict=True):
        labels = progressive_scale_expansion(probability > thresholds.bin_threshold, thresholds.min_kernel_area / stride**2)
        found.append(words(labels, probability[-1], size, thresholds, stride))
    return found


def progressive_scale_expansion(kernels: np.ndarray, min_area: float = 0.0) -> np.ndarray:
    """Algorithm 1: the 4-connected regions of S_1, grown over S_2, then S_3, to S_n; all within S_n.

    kernels: (n, H, W) bool. min_area: least pixels of a region of S_1. Gives (H, W) int32 labels. A pixel goes to the region that
    reaches it first; where several do in the same step, to the one with the highest label.
    """
    text = kernels[-1]
    labels = seeds(kernels[0] & text, min_area)
    for kernel in kernels[1:]:
        grow(labels, kernel & text)
    return labels[1:-1, 1:-1]


def pse_targets(sample: Sample, kernels: int = 7, min_scale: float = 0.4, min_size: float = 8.0) -> dict[str, np.ndarray]:
    """Label maps of an image (section 3.4): `kernels`, (n, H, W), G_1 to G_n, and `mask`, (1, H, W), both uint8, 0 or 1.

    Words that are not to be judged are left out of every map and masked: do-not-care words, words whose rectangle of least area is
    narrower than `min_size` pixels, and words of which shrinking leaves nothing.
    """
    height, width = sample.image.shape[:2]
    maps = np.zeros((kernels, height, width), np.uint8)
    mask = np.ones((1, height, width), np.uint8)
    for polygon, ignore in zip(sample.truth.polygons, sample.truth.ignore, strict=True):
        judged = not ignore and short_side(polygon) >= min_size
        parts = [shrunk(polygon, ratio) for ratio in scales(kernels, min_scale)] if judged else [[]]
        if parts[0]:
            for canvas, part in zip(maps, [*parts, [polygon]], strict=True):
                fill(canvas, part, 1)
        else:
            fill(mask[0], [polygon], 0)
    return {"kernels": maps, "mask": mask}


def scales(kernels: int, min_scale: float) -> list[float]:
    """r_1 to r_(n-1) of equation 2; r_n is 1."""
    return [1 - (1 - min_scale) * (kernels - i) / (kernels - 1) for i in range(1, kernels)]


def psenet(
    backbone: str | Mapping[str, Any] = "resnet50",
    neck: str | Mapping[str, Any] = MappingProxyType({"name": "fpn", "channels": 256, "smooth_channels": 256}),
    kernels: Annotated[int, Field(ge=2, le=32)] = 7,
    min_scale: Annotated[float, Field(gt=0, lt=1)] = 0.4,
    text_weight: Annotated[float, Field(ge=0, le=1)] = 0.7,
    stride: Stride = 4,
    mean: Mean = IMAGENET_MEAN,
    std: Deviation = IMAGENET_STD,
) -> Algorithm:
    """PSENet as an :class:`Algorithm`.

    backbone, neck: a name from `compress.models.registry`, or a mapping of `name` and keywords. kernels: n. min_scale: m of equation 2.
    text_weight: lambda of equation 3. stride: of the exported maps; 1 and 4 are the paper's PSENet-1s and PSENet-4s. mean, std: as in
    :func:`compress.models.db.db`. Raises ValueError for unknown names or keywords and for wrong values.
    """
    parts = named(BACKBONES, backbone, "model.backbone"), named(NECKS, neck, "model.neck")
    return Algorithm(
        task="detection",
        network=partial(of_network, "psenet", "pse_network", *parts, kernels, stride),
        targets=partial(pse_targets, kernels=kernels, min_scale=min_scale),
        loss=partial(of_network, "psenet", "pse_loss", text_weight=text_weight),
        decode=partial(pse_decode, kernels=kernels, stride=stride),
        settings=Thresholds,
        tunable=TUNABLE,
        copies=MappingProxyType({"kernels": "dice"}),
        features=("neck.smooths.*",),
        kept_layers=("maps",),
        input=Input(mean=tuple(mean), std=tuple(std)),
    )


TUNABLE = MappingProxyType(
    {"bin_threshold": (0.3, 0.4, 0.5, 0.6, 0.7), "score_threshold": (0.7, 0.8, 0.85, 0.9, 0.93), "min_area": (0.0, 300.0, 800.0)}
)
