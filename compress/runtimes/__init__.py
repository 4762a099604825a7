"""One face for what runs a model: torch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

from pathlib import Path

from compress.errors import CompressError
from compress.runtimes.pytorch import from_network
from compress.runtimes.runtime import Runtime, interleaved, latency

__all__ = ["Runtime", "from_network", "interleaved", "latency", "open_file"]


def open_file(path: Path | str, threads: int | None = None, precision: str | None = None) -> Runtime:
    """Open an exported file: .onnx in ONNX Runtime, .xml in OpenVINO.

    threads: of the processor; None is all that this process may use. precision: of the float parts, None for 32 bit; only OpenVINO
    has another, "bf16". Raises CompressError where the file or the package is missing, where the file is damaged, is no model,
    or was not written by an export stage.
    """
    path = Path(path)
    if not path.exists():
        raise CompressError(f"There is no file {path}; export the model first.")
    if path.suffix == ".onnx":
        from compress.runtimes.onnxruntime import open_onnx as opened
    elif path.suffix == ".xml":
        from compress.runtimes.openvino import open_openvino as opened
    else:
        raise CompressError(f"{path} is neither an .onnx nor an .xml file; give one that an export stage wrote.")
    return opened(path, threads, precision)
