"""One face for what runs a model: torch, torch.compile, TorchScript, ONNX Runtime, OpenVINO, ncnn and TensorRT."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from compress.errors import CompressError, suggestion
from compress.files import check_file
from compress.runtimes.pytorch import from_network
from compress.runtimes.runtime import Runtime, interleaved, latency

__all__ = ["FILES", "Runtime", "from_network", "interleaved", "latency", "open_file", "runtime_of"]

# Suffix of an exported file -> the runtimes that read it; the first is its own.
FILES = {
    ".onnx": ("onnxruntime", "openvino", "tensorrt"),
    ".xml": ("openvino",),
    ".torchscript": ("torchscript",),
    ".param": ("ncnn",),
}

BESIDE = (".xml", ".param")  # whose weights are in a .bin beside them


def open_file(
    path: Path | str, threads: int | None = None, precision: str | None = None, runtime: str | None = None, *, steady: int | None = None
) -> Runtime:
    """Open an exported file in its own runtime (.onnx in ONNX Runtime, .xml in OpenVINO, .torchscript in TorchScript, .param in ncnn).

    threads: of the processor; None is all that this process may use. precision: of the float parts, None for 32 bit; OpenVINO
    also has "bf16", TensorRT "fp16". runtime: another one that reads this kind of file, as in `FILES`.
    steady: with a number, an input gives the same outputs bit for bit whatever came before it, and changes between so many sizes are
    fast; without, OpenVINO may compile the model anew for a size that keeps coming.
    Raises CompressError where the file or the package is missing, where the file is damaged, is no model, or was not written by an
    export stage. No Python pickle in a file is ever loaded, so a .pt2 file is refused.
    """
    path = Path(path)
    name = runtime_of(path, runtime)
    if name == "openvino" and steady is not None:
        from compress.runtimes.openvino import open_steady

        return open_steady(path, threads, precision, steady)
    return opener(name)(path, threads, precision)


def runtime_of(path: Path, wanted: str | None = None) -> str:
    """The name of the runtime that `path` is to be opened in. CompressError where there is no such file, or none fits it."""
    if not path.exists():
        raise CompressError(f"There is no file {path}; export the model first.")
    check_file(path, "file of a model")
    if path.suffix in BESIDE and os.path.lexists(path.with_suffix(".bin")):
        check_file(path.with_suffix(".bin"), "file of weights")
    if path.suffix == ".pt2":
        raise CompressError(
            f"{path} is not opened here, because torch.export.load executes pickles that the file may hold; "
            "give a .torchscript or .onnx file, or load it yourself where you trust it."
        )
    if path.suffix not in FILES:
        raise CompressError(f"{path} is neither an .onnx nor an .xml, .torchscript or .param file; give one that an export stage wrote.")
    fitting = FILES[path.suffix]
    if wanted is not None and wanted not in fitting:
        raise CompressError(f"{path} does not run in '{wanted}'{suggestion(wanted, fitting)}")
    return wanted or fitting[0]


def opener(runtime: str) -> Callable[[Path, int | None, str | None], Runtime]:
    """What opens a file in a runtime; each has a module of its own, imported when it is wanted."""
    if runtime == "onnxruntime":
        from compress.runtimes.onnxruntime import open_onnx as opened
    elif runtime == "openvino":
        from compress.runtimes.openvino import open_openvino as opened
    elif runtime == "tensorrt":
        from compress.runtimes.tensorrt import open_tensorrt as opened
    elif runtime == "ncnn":
        from compress.runtimes.ncnn import open_ncnn as opened
    else:
        from compress.runtimes.torchscript import open_torchscript as opened
    return opened
