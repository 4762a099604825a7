"""How long answers about real images take, from pixels to answer: resizing and decoding included, reading of files left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.predictor import Outputs, Predictor, nothing
from compress.tasks.reading import shares

WARMUP = 5  # calls before an image of a new size is timed: after a few of the same size OpenVINO compiles a model for it


@dataclass(frozen=True)
class ImageTiming:
    """One predictor's time for each image. seconds: (images,). parts: of a pipeline, the seconds of its parts for each; else empty."""

    seconds: np.ndarray
    parts: Sequence[Mapping[str, float]]

    def figures(self) -> dict[str, Any]:
        """Median and 90th percentile in milliseconds over the images, and each part's share of the time."""
        return {
            "median": float(np.median(self.seconds) * 1e3),
            "p90": float(np.quantile(self.seconds, 0.9) * 1e3),
            "input": [],
            "rounds": len(self.seconds),
            **({"shares": shares(self.parts)} if self.parts else {}),
        }


def image_timings(
    predictors: Sequence[Predictor], images: Iterable[np.ndarray], done: Callable[[int], None] = nothing
) -> list[ImageTiming]:
    """What each predictor takes for each (H, W, 3) uint8 RGB image, in turn on every image. done: called with 1 after each answer.

    A model is called on images of each size before it is timed on one. A pipeline is warmed up once: its parts are compiled for no size,
    and what another size costs them is part of its time.
    """
    preferred = [predictor.shown_as(predictor.preferred()) for predictor in predictors]
    readers = [predictor.reader() for predictor in preferred]
    seconds: list[list[float]] = [[] for _ in predictors]
    parts: list[list[Mapping[str, float]]] = [[] for _ in predictors]
    known = set()
    for image in images:
        for place, (predictor, read) in enumerate(zip(preferred, readers, strict=True)):
            for _ in range(0 if image.shape in known or parts[place] else WARMUP):
                answered(predictor, read, image)
            spent, outputs = answered(predictor, read, image)
            seconds[place].append(spent)
            if "seconds" in outputs:
                parts[place].append(outputs["seconds"])
            done(1)
        known.add(image.shape)
    return [ImageTiming(np.array(spent), of_parts) for spent, of_parts in zip(seconds, parts, strict=True)]


def answered(predictor: Predictor, read: Callable[[Outputs, tuple[int, int]], Any], image: np.ndarray) -> tuple[float, Outputs]:
    """Seconds for one answer, and the outputs that it was read from."""
    start = time.perf_counter()
    (outputs,) = predictor.outputs([image])
    read(outputs, image.shape[:2])
    return time.perf_counter() - start, outputs
