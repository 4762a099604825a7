"""OpenVINO on the CPU: at first with open sizes, then compiled for each of the few shapes that keep coming."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import CompressError
from compress.runtimes.runtime import Runtime, as_floats, available_threads, read_description, telling
from compress.runtimes.telemetry import forbid_telemetry

# A model that is compiled for one input shape takes down to half the time of one whose sizes are open, and to compile it a second or so.
CALLS_BEFORE_FIXING = 4
FIXED_SHAPES = 4


PRIMITIVES = 100  # of a model, about, for each size of its images


def open_steady(path: Path, threads: int | None, precision: str | None, sizes: int) -> Runtime:
    """The model with open sizes for good: one compiled for a size differs in the last bits, and after rounding to integers in more.

    sizes: of images, for which it is kept ready. Each takes megabytes; without, a change of size costs 5 to 12 ms.
    """
    return open_openvino(path, threads, precision, fixed_shapes=0, cached=sizes * PRIMITIVES)


def open_openvino(path: Path, threads: int | None, precision: str | None, *, fixed_shapes: int = FIXED_SHAPES, cached: int = 0) -> Runtime:
    """See :func:`compress.runtimes.open_file`. fixed_shapes: how many the model is compiled for. cached: primitives of open sizes kept."""
    forbid_telemetry()
    try:
        import openvino  # noqa: F401
    except ImportError:
        raise CompressError(f"{path} needs OpenVINO, which is not installed; run `pip install openvino`.") from None
    threads = available_threads(threads)
    # Said outright: left alone, OpenVINO computes float layers in bf16 on processors that can.
    wanted = precision or "f32"
    core, model = read_model(path)
    # An ONNX file's metadata arrive under "framework".
    place = next((place for place in (["compress"], ["framework", "compress"]) if model.has_rt_info(place)), None)
    with telling(f"{path} does not say which model it holds; export the model again"):
        text = model.get_rt_info(place).astype(str) if place else None
    description = read_description(text, path)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": wanted,
        # Else what was compiled for each size of images stays in memory: 300 MB after 20 sizes. Sizes that keep coming are fixed below.
        "CPU_RUNTIME_CACHE_CAPACITY": cached,
    }
    with telling(f"OpenVINO cannot run {path} in '{wanted}'; export the model again, or take another precision"):
        compiled = core.compile_model(model, "CPU", settings)
        given = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if given != wanted:
        raise CompressError(f"This processor has no '{wanted}': OpenVINO would run {path} in '{given}'; leave the precision out.")
    if len(compiled.inputs) != 1:
        raise CompressError(f"{path} has {len(compiled.inputs)} inputs instead of one image; it is damaged, or no model of images.")
    with telling(f"{path} has outputs without names; export the model again"):
        names = [output.get_any_name() for output in compiled.outputs]
    requests: dict[tuple[int, ...] | None, Any] = {None: compiled.create_infer_request()}
    calls: Counter[tuple[int, ...]] = Counter()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        shape = images.shape
        calls[shape] += 1
        if calls[shape] == CALLS_BEFORE_FIXING and len(requests) <= fixed_shapes:
            fixed = model.clone()
            fixed.reshape(list(shape))
            requests[shape] = core.compile_model(fixed, "CPU", settings).create_infer_request()
        with telling(f"{path} does not run on images of {' x '.join(map(str, shape))}; export the model again"):
            results = requests.get(shape, requests[None]).infer([images])
            return as_floats({name: results[place] for place, name in enumerate(names)})

    held = description["precision"]
    shown = held if wanted == "f32" else wanted if held == "fp32" else f"{held}+{wanted}"
    return Runtime("openvino", shown, threads, description, run)


def read_model(path: Path) -> tuple[Any, Any]:
    """OpenVINO's core, and the model of an .xml or .onnx file. Raises CompressError for one that cannot be read."""
    forbid_telemetry()
    import openvino

    core = openvino.Core()
    with telling(f"{path} cannot be read as an OpenVINO model; export it again"):
        return core, core.read_model(path)
