"""From a model to files that other runtimes read, each checked against torch before it counts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress import outputs
from compress.checkpoint import Model, example_input, load
from compress.cost import inference_parameters
from compress.errors import CompressError, suggestion
from compress.exporters.formats import HOLD_INT8
from compress.exporters.inspect import inspect, words
from compress.exporters.integers import as_in_files
from compress.exporters.ncnn import export_ncnn
from compress.exporters.onnx import export_onnx
from compress.exporters.openvino import export_openvino
from compress.exporters.torch_export import export_torch_export
from compress.exporters.torchscript import export_torchscript
from compress.exporters.verify import verify
from compress.progress import Bar, counted
from compress.quantization.folding import fold_batch_norms
from compress.runtimes import Runtime, open_file

WRITERS: dict[str, tuple[Callable[..., Any], str]] = {
    "onnx": (export_onnx, "model.onnx"),
    "openvino": (export_openvino, "model.xml"),
    "torchscript": (export_torchscript, "model.torchscript"),
    "torch_export": (export_torch_export, "model.pt2"),
    "ncnn": (export_ncnn, "model.ncnn.param"),
}


def write_files(
    model: Model, formats: Sequence[str], folder: Path, images: Sequence[np.ndarray], bar: Bar | None = None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Write `model` in each format into `folder`; yields the format, the file's name and facts for its row.

    images: (H, W, 3) uint8 RGB images on which the file's maps must match torch's; none where a file is wanted for timing alone.
    bar: counts the images as they are compared.
    Raises CompressError where they do not match, and for a quantized model in a format that cannot hold int8.
    """
    if model.quantization and (refused := [name for name in formats if name not in HOLD_INT8]):
        raise CompressError(f"Format {refused[0]} cannot hold an int8 model; export a quantized one as {' or '.join(HOLD_INT8)}.")
    network = copy.deepcopy(model.network).cpu().eval()
    if not model.quantization:
        fold_batch_norms(network, example_input(model))
    batches = [torch.from_numpy(model.shown(image)) for image in images]
    compared = as_in_files(network, example_input(model)) if model.quantization and batches else network
    for name in formats:
        write, file = WRITERS[name]
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        written = write(network, path, example_input(model), model.description())
        facts: dict[str, Any] = {"params": inference_parameters(network, example_input(model))}
        if batches:
            # A file that is never opened comes back as the program that was written.
            runtime = written if isinstance(written, Runtime) else open_file(written)
            facts["difference"] = verify(runtime, compared, counted(batches, bar) if bar else batches)
        yield name, f"{name}/{file}", facts


def export_checkpoint(checkpoint: Path, formats: Sequence[str], out: Path, images: Sequence[Path]) -> Iterator[str]:
    """Write a checkpoint's files into `out`, a folder for each format, checked on `images`, or on synthetic ones where none are given.

    Yields one line a file. Raises CompressError, before any work, for a folder that cannot be written into or holds others of these names.
    """
    from compress.data.detection.synthetic import draw
    from compress.data.images import read_images

    for name in formats:
        if name not in WRITERS:
            raise CompressError(f"--format {name} is not known{suggestion(name, WRITERS)}")
    outputs.check_folder(out)
    compared = read_images(images) or [draw(0, "val", index, 320)[1] for index in range(4)]
    model = load(checkpoint)
    outputs.claim(out, formats)
    for name, path, facts in write_files(model, formats, out, compared):
        found = inspect(out / path)
        yield f"{name}: {out / path}, {facts['difference']}" + (f", {words(found)}" if found else "")
