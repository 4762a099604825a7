"""The angle classifier of PP-OCR (Du et al. 2020, section 2.2): whether a cropped line of text stands on its head.

Network and loss are in `compress.models.networks.angle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from compress.models.contract import Algorithm, Classification, Deviation, Input, Mean, Sample
from compress.models.registry import of_network

LABELS = ("0", "180")  # degrees


@dataclass(frozen=True)
class Thresholds:
    """A class is read off the probabilities: there is nothing to choose."""


def angle_decode(outputs: Mapping[str, np.ndarray], *_: Any) -> list[Classification]:
    """The likelier angle of each line. outputs: `probability`, (B, 2), in 0..1. Raises ValueError for an array of another shape."""
    rows = np.asarray(outputs["probability"])
    if rows.ndim != 2 or rows.shape[1] != len(LABELS):
        raise ValueError(f"angles are read off probabilities of shape (B, {len(LABELS)}), not {rows.shape}.")
    return [Classification(LABELS[row.argmax()], float(row.max())) for row in rows]


def angle_targets(sample: Sample) -> dict[str, np.ndarray]:
    """`label`, int64: the place of the sample's label in `LABELS`. Raises ValueError for a label that is none of them."""
    name = sample.truth.name
    if name not in LABELS:
        raise ValueError(f"{sample.name} has the label '{name}'; the angle classifier knows {' and '.join(LABELS)}.")
    return {"label": np.array(LABELS.index(name), np.int64)}


def angle(width: Annotated[float, Field(gt=0, le=2)] = 0.35, mean: Mean = (0.5, 0.5, 0.5), std: Deviation = (0.5, 0.5, 0.5)) -> Algorithm:
    """The classifier as an :class:`Algorithm` of task "classification".

    width: of MobileNetV3-Small; 0.35 in PP-OCR, 1 for a teacher. mean, std: as in :func:`compress.models.db.db`.
    """
    return Algorithm(
        task="classification",
        network=partial(of_network, "angle", "AngleNet", width),
        targets=angle_targets,
        loss=partial(of_network, "angle", "angle_loss"),
        decode=angle_decode,
        settings=Thresholds,
        tunable=MappingProxyType({}),
        copies=MappingProxyType({"logits": "kl"}),
        features=("backbone.last",),
        kept_layers=("classifier",),
        labels=LABELS,
        input=Input(multiple=(16, 16), example=(48, 192), mean=tuple(mean), std=tuple(std)),
    )
