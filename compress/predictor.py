"""A model ready for use, whatever it is stored in, and the one pass over images that every score comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from pydantic import ValidationError

from compress import extras, pipeline
from compress.data.prepare import network_input
from compress.description import TUNED, check_tuned, read_tuned, understood
from compress.errors import CompressError
from compress.files import first_fault
from compress.models.contract import Algorithm, Sample
from compress.outside import allowing
from compress.packaged import default_model
from compress.processes import check_device, device_name
from compress.result import Color, Result, Source, pixels_of
from compress.tasks import TASKS
from compress.tasks.reading import Models, read_words
from compress.tasks.task import Evaluate, Scores, Task

if TYPE_CHECKING:
    from compress.checkpoint import Model

# With one thread, torch computes 1x1 convolutions of fewer than 16 images by a slower way: 16 of 320 x 320 take 0.88 of the time of 10.
PIXELS_PER_BATCH = 1 << 21
IMAGES_IN_MEMORY = 16
PIXELS_IN_MEMORY = 1 << 25  # 100 MB of them
# Sizes for which a part of a pipeline is kept ready: lines come in few widths, whole images in any size, each of which takes much memory.
READY = {"detector": 0, "classifier": 1, "recogniser": 4}
Outputs = dict[str, Any]  # arrays, but of a pipeline
# What turns one image's outputs and original (height, width) into an answer.
Reader = Callable[[Outputs, tuple[int, int]], Any]


@dataclass(frozen=True)
class Predictor:
    """Answers about images.

    run: (B, 3, H, W) normalised float32 -> the exported outputs. evaluate: input size and fixed decoding settings. tuned: settings chosen
    on validation, which `predict` prefers. precision: of the numbers, as the runtime names it.
    look: of a pipeline, which has no network: (one image as it is shown, evaluate) -> what its parts make of it.
    """

    run: Callable[[np.ndarray], Outputs]
    algorithm: Algorithm
    evaluate: Evaluate
    tuned: dict[str, Any]
    runtime: str
    precision: str
    look: Callable[[np.ndarray, Evaluate], Outputs] | None = None

    @property
    def task(self) -> Task:
        """The kind of its answers."""
        return TASKS[self.algorithm.task]

    @overload
    def predict(self, image: list[Source], color: Color = "rgb") -> list[Result]: ...
    @overload
    def predict(self, image: Source, color: Color = "rgb") -> Result: ...

    def predict(self, image: Source | list[Source], color: Color = "rgb") -> Result | list[Result]:
        """What the model says about an image, or about each of a list; coordinates are in the image's own pixels.

        image: the path of an image file, its bytes, a PIL image, or an array: (H, W, 3) uint8 RGB, or what
            :func:`compress.data.images.rgb` makes that of, such as grey, RGBA, uint16, and floats in 0..1. Those of a list are read one
            by one.
        color: of an array, the order of its channels: `rgb`, or `bgr`, as OpenCV has them.
        Raises CompressError for an image that it refuses, and for what is none.
        """
        answer = self.asked(self.preferred())
        if isinstance(image, list | tuple):
            return [Result(answer(pixels_of(one, color)), self.task, partial(pixels_of, one, color)) for one in image]
        return Result(answer(pixels_of(image, color)), self.task, partial(pixels_of, image, color))

    def asked(self, evaluate: Evaluate | None = None) -> Callable[[np.ndarray], Any]:
        """The answer about one (H, W, 3) uint8 RGB image, by the settings of `evaluate`, by default its own."""
        read = self.reader(evaluate)

        def answer(image: np.ndarray) -> Any:
            (outputs,) = self.outputs([image])
            return read(outputs, image.shape[:2])

        return answer

    def shown_width(self, image: np.ndarray) -> int:
        """How many pixels wide an image is shown."""
        return self.task.shown(image, self.evaluate, self.algorithm.input).shape[1]

    def preferred(self) -> Evaluate:
        """What `predict` goes by: tuned settings, where there are. Raises CompressError for those tuned on images of another size."""
        return self.evaluate.with_tuned(self.tuned)

    def outputs(self, images: Iterable[np.ndarray]) -> Iterator[Outputs]:
        """The exported outputs of each image, arrays of batch 1. Of a few that follow each other, those of equal size share a batch."""
        shown = (self.task.shown(image, self.evaluate, self.algorithm.input) for image in images)
        while chunk := list(islice(shown, IMAGES_IN_MEMORY)):
            yield from self.outputs_of(chunk)

    def outputs_of(self, shown: Sequence[np.ndarray]) -> list[Outputs]:
        """The outputs of each of a few images that are resized already, in their order."""
        if self.look:
            return [self.look(image, self.evaluate) for image in shown]
        found: list[Outputs] = [{}] * len(shown)
        for places in equal_sizes([image.shape for image in shown]):
            outputs = self.run(network_input([shown[place] for place in places], self.algorithm.input))
            check_finite(outputs)
            for index, place in enumerate(places):
                found[place] = {name: array[index : index + 1] for name, array in outputs.items()}
        return found

    def shown_as(self, evaluate: Evaluate) -> Predictor:
        """The same with another input size and other settings, and none that were tuned."""
        return replace(self, evaluate=evaluate, tuned={})

    def reader(self, evaluate: Evaluate | None = None) -> Reader:
        """Decodes by `evaluate`, by default its own."""
        settings = (evaluate or self.evaluate).settings(self.algorithm)

        def read(outputs: Outputs, size: tuple[int, int]) -> Any:
            try:
                return self.algorithm.decode(outputs, [size], settings)[0]
            except (KeyError, ValueError) as error:
                told = f"it lacks {error}" if isinstance(error, KeyError) else error
                raise CompressError(f"The model in {self.runtime} gives other outputs than its description says: {told}") from None

        return read


def check_finite(outputs: Outputs) -> None:
    """Refuse outputs from which no answer can be read."""
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            told = "its weights are damaged, or its training came apart: train again, from a lower lr"
            raise CompressError(f"The model gives values that are not finite in '{name}'; {told}.")


def equal_sizes(shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Places of images of one (height, width, channels), at most about two megapixels together; every place once."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, shape in enumerate(shapes):
        places.setdefault(shape, []).append(place)
    for (height, width, *_), alike in places.items():
        most = max(1, PIXELS_PER_BATCH // (height * width))
        yield from (alike[start : start + most] for start in range(0, len(alike), most))


def nothing(_count: int) -> None:
    """The progress callback that does nothing."""


def seen(predictor: Predictor, samples: Sequence[Sample] | Any, done: Callable[[int], None] = nothing) -> Iterator[tuple[Sample, Outputs]]:
    """Every sample with its outputs, in order; a few images are in memory at a time, and of large ones fewer. done: called with 1 each."""
    for chunk in few_at_a_time(samples[index] for index in range(len(samples))):
        for sample, outputs in zip(chunk, predictor.outputs(sample.image for sample in chunk), strict=True):
            yield sample, outputs
            done(1)


def few_at_a_time(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """The samples in runs of at most `IMAGES_IN_MEMORY`; a run ends with the image by which it has `PIXELS_IN_MEMORY`."""
    chunk: list[Sample] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == IMAGES_IN_MEMORY or sum(one.image.shape[0] * one.image.shape[1] for one in chunk) >= PIXELS_IN_MEMORY:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def score(
    predictor: Predictor,
    samples: Sequence[Sample] | Any,
    readers: Sequence[Reader] | None = None,
    done: Callable[[int], None] = nothing,
) -> list[Scores]:
    """THE evaluation: the network runs once over all samples, and the answers of every reader are judged by the predictor's `evaluate`.

    readers: by default the predictor's own alone. Returns the scores of each.
    """
    readers = [predictor.reader()] if readers is None else readers
    return [predictor.task.judge(found, predictor.evaluate) for found in answers(predictor, samples, readers, done)]


def answers(
    predictor: Predictor, samples: Sequence[Sample] | Any, readers: Sequence[Reader], done: Callable[[int], None] = nothing
) -> list[list[tuple[Any, Any]]]:
    """For every reader its answer about each sample, beside the ground truth; the network runs once over all samples."""
    pairs: list[list[tuple[Any, Any]]] = [[] for _ in readers]
    for sample, outputs in seen(predictor, samples, done):
        for found, read in zip(pairs, readers, strict=True):
            found.append((read(outputs, sample.image.shape[:2]), sample.truth))
    return pairs


def tune(predictor: Predictor, samples: Sequence[Sample] | Any, done: Callable[[int], None] = nothing) -> tuple[dict[str, Any], Scores]:
    """The settings that reach the best main metric over all combinations of the algorithm's `tunable`, and the scores they reach.

    The predictor's own values are among those tried, and of equally good combinations the one that is nearest to them is taken.
    """
    algorithm = predictor.algorithm
    tried = combinations(asdict(predictor.evaluate.settings(algorithm)), algorithm.tunable)
    readers = [predictor.reader(predictor.evaluate.with_settings(values)) for values in tried]
    scores = score(predictor, samples, readers, done)
    best = 0  # the first of equals wins, and the list begins at the start
    for index, found in enumerate(scores):
        if predictor.task.gain(scores[best], found) > 0:
            best = index
    return tried[best], scores[best]


def combinations(start: Mapping[str, Any], tunable: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """All combinations of the values of `tunable` and of `start`, nearest to `start` first, by steps of each value's own range."""
    values = {name: sorted({start[name], *tried}) for name, tried in tunable.items()}

    def distance(combination: tuple[float, ...]) -> float:
        moved = zip(values.items(), combination, strict=True)
        return sum(abs(value - start[name]) / ((tried[-1] - tried[0]) or 1) for (name, tried), value in moved)

    return [dict(zip(values, chosen, strict=True)) for chosen in sorted(product(*values.values()), key=distance)]


def open_predictor(
    path: str | Path | None = None, *, threads: int | None = None, device: str = "cpu", modules: Sequence[str] = ()
) -> Predictor:
    """The model in a checkpoint folder, or in an exported file; a pipeline folder; without a path, the pipeline that
    comes with the package.

    threads: that compute; None leaves it to the runtime. device: `auto`, `cpu` or `cuda`; of a checkpoint, which needs
    torch. modules: names of those outside of the workbench that its model may be built by; see :mod:`compress.outside`.
    Raises CompressError for anything else.
    """
    with allowing(*modules):
        return opened(Path(path) if path else default_model(), threads, device)


def check_there(path: Path) -> None:
    """CompressError where there is neither a folder nor a file."""
    if not path.exists():
        raise CompressError(f"There is nothing at {path}; give a checkpoint folder, or an .onnx, .xml, .torchscript or .param file.")


def opened(path: Path, threads: int | None, device: str) -> Predictor:
    """:func:`open_predictor` with what is allowed already."""
    check_device(device)
    if pipeline.is_pipeline(path):
        return of_pipeline(path, threads)
    if path.is_dir():
        with extras.told(f"The checkpoint {path}"):
            from compress.checkpoint import load

            model = load(path)
        model.network.to(device_name(device))
        return of_model(model, threads)
    check_there(path)
    return of_file(path, threads)


def of_file(path: Path, threads: int | None, steady: int | None = None) -> Predictor:
    """The predictor around an exported file. steady: as :func:`compress.runtimes.open_file` has it."""
    from compress.runtimes import open_file

    runtime = open_file(path, threads=threads, steady=steady)
    found = understood(runtime.description, path)
    return Predictor(runtime.run, found.algorithm, found.evaluate, found.tuned, runtime.name, runtime.precision)


def of_pipeline(folder: Path, threads: int | None) -> Predictor:
    """The predictor around the pipeline in a folder. Raises CompressError for parts that do not fit together."""
    found = pipeline.read(folder)
    parts = {part: of_file(path, threads, READY[part]) for part, path in found.files.items()}
    for part, path in found.files.items():
        pipeline.check_part(part, path, parts[part].algorithm, found.characters if part == "recogniser" else None)
    runtimes, precisions = ("+".join(dict.fromkeys(getattr(its, name) for its in parts.values())) for name in ("runtime", "precision"))

    known: dict[str, Models] = {}

    def look(image: np.ndarray, evaluate: Any) -> Outputs:
        key = evaluate.model_dump_json()
        if key not in known:
            known[key] = models_of(parts, evaluate)
        return read_words(image, known[key], evaluate)

    models_of(parts, found.evaluate)  # refuses settings that a part does not have
    tuned = read_tuned(folder)
    if tuned:
        check_tuned(tuned, found.algorithm, found.evaluate, folder / TUNED)
    return Predictor(no_network, found.algorithm, found.evaluate, tuned, runtimes, precisions, look)


def models_of(parts: Mapping[str, Predictor], evaluate: Evaluate) -> Models:
    """The parts of a pipeline as functions, by what `evaluate` says of each, and else by their own settings."""
    asked = {}
    for part, its in parts.items():
        try:
            own = its.preferred().with_settings(getattr(evaluate, part))
            own.settings(its.algorithm)
        except ValidationError as error:
            raise CompressError(f"evaluate.{part}.{first_fault(error)}.") from None
        except CompressError as error:
            raise CompressError(str(error).replace("evaluate.", f"evaluate.{part}.", 1)) from None
        asked[part] = its.shown_as(own)
    return Models({part: its.asked() for part, its in asked.items()}, asked["recogniser"].shown_width)


def no_network(_images: np.ndarray) -> Outputs:
    """What a pipeline has instead of a network of its own."""
    raise ValueError("a pipeline has no network; it looks at images as they are.")


def of_model(model: Model, threads: int | None = None) -> Predictor:
    """The predictor around a network in memory; the network is put in evaluation mode at each run. threads: of torch, as they are."""
    precision = "fake-quantized int8" if model.quantization else "fp32"
    return Predictor(torch_runner(model.network, threads), model.algorithm, model.evaluate, model.tuned, "torch", precision)


def torch_runner(network: Any, threads: int | None = None) -> Callable[[np.ndarray], Outputs]:
    """Run a torch network on its own device. threads: of torch on the CPU; as many as it has where none are said."""
    import torch

    from compress.runtimes.pytorch import torch_threads

    @torch.inference_mode()
    def run(images: np.ndarray) -> Outputs:
        network.eval()
        device = next(network.parameters()).device
        batch = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
        with torch_threads(threads or torch.get_num_threads()):
            return {name: tensor.float().cpu().numpy() for name, tensor in network(batch).items()}

    return run
