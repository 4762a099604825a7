"""A task that the workbench does not know: how many dots an image has. All of it is in this file: data, model, task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from compress.data.data_format import DataFormat
from compress.data.split import Annotation, Split
from compress.models.contract import Algorithm, Input, Sample
from compress.tasks.task import Evaluate, Metric, Scores, Shape, Task

SIDE = 32


@dataclass(frozen=True)
class Dots:
    """The ground truth: (n, 2) x, y of the centres."""

    centres: np.ndarray


# Data


class NoAugment(BaseModel):
    """Nothing happens to an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DotImages(DataFormat):
    """White dots on grey; as many images as `train`, `val` and `test` say."""

    task: ClassVar[str] = "dots"

    format: Literal["dots"]
    train: int = 64
    val: int = 8
    test: int = 8

    def default_augment(self) -> NoAugment:
        return NoAugment()

    def splits(self) -> tuple[str, ...]:
        return "train", "val", "test"

    def open(self, split: str, seed: int, _progress: Callable[[int, int], None] | None = None) -> Split:
        rng = np.random.default_rng((seed, self.splits().index(split)))
        truths = [Dots(rng.integers(4, SIDE - 4, (rng.integers(1, 9), 2))) for _ in range(getattr(self, split))]
        annotations = [Annotation(f"{split}_{number}", truth) for number, truth in enumerate(truths)]
        digest = hashlib.sha256(f"dots {split} {seed} {len(truths)}".encode()).hexdigest()
        return Split(split, annotations, lambda index: painted(truths[index]), digest)


def painted(truth: Dots) -> np.ndarray:
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    for x, y in truth.centres.tolist():
        cv2.circle(image, (x, y), 2, (250, 250, 250), cv2.FILLED)
    return image


# Model


class Counter(nn.Module):
    """(B, 3, H, W) to `density`, (B, 1, H, W) in 0..1, whose sum over a tenth is the number of dots."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"density": self.last(self.features(images)).sigmoid()}


def targets(sample: Sample) -> dict[str, np.ndarray]:
    density = np.zeros((1, *sample.image.shape[:2]), np.float32)
    for x, y in sample.truth.centres.tolist():
        density[0, y - 1 : y + 2, x - 1 : x + 2] = 1
    return {"density": density}


def loss(outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    error = nn.functional.binary_cross_entropy(outputs["density"].float(), wanted["density"])
    return error, {"density": error.detach()}


@dataclass(frozen=True)
class Settings:
    """Pixels of one dot."""

    area: float = 9.0


def decode(outputs: Mapping[str, np.ndarray], _sizes: Sequence[tuple[int, int]], settings: Settings) -> list[float]:
    return [float(density.sum() / settings.area) for density in outputs["density"]]


def build(width: int = 16) -> Algorithm:
    return Algorithm(
        task="dots",
        network=lambda: Counter(width),
        targets=targets,
        loss=loss,
        decode=decode,
        settings=Settings,
        tunable={"area": (6.0, 9.0, 12.0)},
        copies={"density": "dice"},
        features=("features.3",),
        kept_layers=("last",),
        input=Input(multiple=(8, 8), example=(SIDE, SIDE)),
    )


# Task


def whole(image: np.ndarray, *_: Any) -> np.ndarray:
    return image


def unchanged(sample: Sample, *_: Any) -> Sample:
    return sample


def judge(pairs: Sequence[tuple[float, Dots]], _evaluate: Evaluate) -> Scores:
    return {"error": float(np.mean([abs(found - len(truth.centres)) for found, truth in pairs]))}


def counts(truths: Iterable[Dots]) -> dict[str, int]:
    return {"dots": sum(len(truth.centres) for truth in truths)}


DOTS = Task(
    name="dots",
    metrics=(Metric("error", "dots off", percent=False, higher_is_better=False),),
    main="error",
    evaluate=Evaluate,
    augment=NoAugment,
    crop=(SIDE, SIDE),
    size=lambda _evaluate, _input: (SIDE, SIDE),
    view=unchanged,
    shown=whole,
    resized=unchanged,
    judge=judge,
    counts=counts,
    record=lambda found: {"dots": found},
    told=lambda found: f"{found:.1f} dots",
    drawn=whole,
    outlined=whole,
    shapes=lambda found: [Shape(caption=f"{found:.1f}")],
    true_shapes=lambda truth: [Shape(np.repeat(truth.centres, 4, 0)[:4].astype(np.float32), "dot")],
)
