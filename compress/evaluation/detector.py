"""A detector ready for use, whatever it is stored in: a checkpoint folder or an exported file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.data.prepare import network_input, resize_for
from compress.errors import CompressError
from compress.evaluation.settings import Evaluate
from compress.models.contract import Algorithm, Classification, Detections, Sample
from compress.outside import allowing, build

if TYPE_CHECKING:
    from compress.evaluation.icdar import Picture

# With one thread, torch computes 1x1 convolutions of fewer than 16 pictures by a slower way: 16 of 320 x 320 take 0.88 of the time of 10.
PIXELS_PER_BATCH = 1 << 21
Maps = dict[str, np.ndarray]


@dataclass(frozen=True)
class Detector:
    """Finds words on pictures; or, from :func:`open_model`, says what class a picture is of.

    run: (B, 3, H, W) normalised float32 -> the exported maps. evaluate: input size and fixed thresholds. tuned: thresholds chosen on
    validation, which `predict` prefers. precision: as the runtime names it.
    """

    run: Callable[[np.ndarray], Maps]
    algorithm: Algorithm
    evaluate: Evaluate
    tuned: dict[str, Any]
    runtime: str
    precision: str

    def predict(self, image: np.ndarray) -> Detections | Classification:
        """Words on one (H, W, 3) uint8 RGB picture, in its own pixels, or its class."""
        (maps,) = self.maps([image])
        settings = self.evaluate.with_thresholds(**self.tuned.get("thresholds", {}))
        return self.decode(maps, image.shape[:2], settings)

    def maps(self, images: Iterable[np.ndarray]) -> Iterator[Maps]:
        """The exported maps of each picture, (1, C, H, W) arrays; pictures of equal size that follow each other share a batch."""
        for group in equal_sizes(resize_for(image, self.evaluate.short_side, self.algorithm.multiple) for image in images):
            outputs = self.run(network_input(group, (self.algorithm.mean, self.algorithm.std)))
            for index in range(len(group)):
                yield {name: array[index : index + 1] for name, array in outputs.items()}

    def shown_as(self, settings: Evaluate) -> Detector:
        """The same with other input size and thresholds, and none that were tuned."""
        return replace(self, evaluate=settings, tuned={})

    def judged(self, sample: Sample, maps: Maps, settings: Evaluate) -> Picture:
        """What a protocol is given of one picture: the polygons that its maps hold, and its words."""
        found = self.decode(maps, sample.image.shape[:2], settings)
        return found.polygons, sample.polygons, sample.ignore, sample.texts

    def decode(self, maps: Maps, size: tuple[int, int], settings: Evaluate) -> Detections | Classification:
        """What one picture's maps say; `size` is its original (height, width)."""
        return self.algorithm.decode(maps, [size], settings.thresholds(self.algorithm))[0]


def equal_sizes(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Runs of pictures of one size, at most about two megapixels together."""
    group: list[np.ndarray] = []
    for image in images:
        full = group and (image.shape != group[0].shape or (len(group) + 1) * image.shape[0] * image.shape[1] > PIXELS_PER_BATCH)
        if full:
            yield group
            group = []
        group.append(image)
    if group:
        yield group


def open_detector(path: str | Path, *, threads: int | None = None, device: str = "cpu", modules: Sequence[str] = ()) -> Detector:
    """:func:`open_model` for a model that must find words. Raises CompressError for any other."""
    detector = open_model(path, threads=threads, device=device, modules=modules)
    check_detects(detector.algorithm, path)
    return detector


def open_model(path: str | Path, *, threads: int | None = None, device: str = "cpu", modules: Sequence[str] = ()) -> Detector:
    """The detector or classifier in a checkpoint folder, or in an exported file.

    threads: for the runtimes of exported files; None leaves it to them. modules: names of those outside of the workbench that its model
    may be built by; see :mod:`compress.outside`. Raises CompressError for anything else.
    """
    with allowing(*modules):
        return opened(Path(path), threads, device)


def check_there(path: Path) -> None:
    """CompressError where there is neither a folder nor a file."""
    if not path.exists():
        raise CompressError(f"There is nothing at {path}; give a checkpoint folder, or an .onnx, .xml, .torchscript or .param file.")


def opened(path: Path, threads: int | None, device: str) -> Detector:
    """:func:`open_model` with what is allowed already."""
    if path.is_dir():
        from compress.checkpoint import load

        model = load(path)
        model.network.to(device)
        return of_model(model)
    check_there(path)
    from compress.runtimes import open_file

    runtime = open_file(path, threads=threads)
    description = runtime.description
    try:
        algorithm, evaluate = build(description["model"]), Evaluate(**description["evaluate"])
    except (KeyError, TypeError, ValueError) as error:
        raise CompressError(f"{path} does not describe a model that can be built here: {error}") from None
    return Detector(runtime.run, algorithm, evaluate, description.get("tuned") or {}, runtime.name, runtime.precision)


def check_detects(algorithm: Algorithm, place: object) -> None:
    """Raises CompressError for a model that finds no words; `place` is where it comes from."""
    if algorithm.task != "detection":
        raise CompressError(
            f"{place}: a model of task '{algorithm.task}' finds no words, so it cannot be trained or compressed here; "
            "`compress eval`, `export`, `benchmark` and `predict` take it."
        )


def of_model(model: Any) -> Detector:
    """The detector around a network in memory; the network is put in evaluation mode at each run."""
    precision = "fake-quantized int8" if model.quantization else "fp32"
    return Detector(torch_runner(model.network), model.algorithm, model.evaluate, model.tuned, "torch", precision)


def torch_runner(network: Any) -> Callable[[np.ndarray], Maps]:
    """Run a torch network on its own device."""
    import torch

    @torch.inference_mode()
    def run(images: np.ndarray) -> Maps:
        network.eval()
        device = next(network.parameters()).device
        batch = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
        return {name: tensor.float().cpu().numpy() for name, tensor in network(batch).items()}

    return run


def detect(
    detector: Detector, samples: Sequence[Sample] | Any, done: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[Sample, Maps]]:
    """Every sample of a split with its maps, in order; pictures are decoded a batch at a time."""
    order = iter(range(len(samples)))
    while chunk := [samples[index] for index in islice(order, 16)]:
        for sample, maps in zip(chunk, detector.maps(sample.image for sample in chunk), strict=True):
            yield sample, maps
            done(1)
