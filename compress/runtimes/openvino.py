"""OpenVINO on the CPU: at first with open sizes, then compiled for each of the few shapes that keep coming."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import CompressError
from compress.runtimes.runtime import Runtime, available_threads, read_description
from compress.runtimes.telemetry import forbid_telemetry

# A model that is compiled for one input shape takes down to half the time of one whose sizes are open, and to compile it a second or so.
CALLS_BEFORE_FIXING = 4
FIXED_SHAPES = 4


def open_openvino(path: Path, threads: int | None, precision: str | None) -> Runtime:
    """See :func:`compress.runtimes.open_file`."""
    forbid_telemetry()
    try:
        import openvino
    except ImportError:
        raise CompressError(f"{path} needs OpenVINO, which is not installed; run `pip install openvino`.") from None
    threads = available_threads(threads)
    # Said outright: left alone, OpenVINO computes float layers in bf16 on processors that can.
    wanted = precision or "f32"
    core = openvino.Core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise CompressError(f"{path} cannot be read as an OpenVINO model; export it again ({last_line(error)}).") from None
    # An ONNX file's metadata arrive under "framework".
    place = next((place for place in (["compress"], ["framework", "compress"]) if model.has_rt_info(place)), None)
    text = model.get_rt_info(place).astype(str) if place else None
    description = read_description(text, path)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": wanted,
        # Else what was compiled for each size of images stays in memory: 300 MB after 20 sizes. Sizes that keep coming are fixed below.
        "CPU_RUNTIME_CACHE_CAPACITY": 0,
    }
    try:
        compiled = core.compile_model(model, "CPU", settings)
        given = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    except RuntimeError as error:
        raise CompressError(f"OpenVINO cannot run {path} in '{wanted}' ({last_line(error)}).") from None
    if given != wanted:
        raise CompressError(f"This processor has no '{wanted}': OpenVINO would run {path} in '{given}'; leave the precision out.")
    names = [output.get_any_name() for output in compiled.outputs]
    requests: dict[tuple[int, ...] | None, Any] = {None: compiled.create_infer_request()}
    calls: Counter[tuple[int, ...]] = Counter()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        shape = images.shape
        calls[shape] += 1
        if calls[shape] == CALLS_BEFORE_FIXING and len(requests) <= FIXED_SHAPES:
            fixed = model.clone()
            fixed.reshape(list(shape))
            requests[shape] = core.compile_model(fixed, "CPU", settings).create_infer_request()
        results = requests.get(shape, requests[None]).infer([images])
        return {name: results[place] for place, name in enumerate(names)}

    held = description["precision"]
    shown = held if wanted == "f32" else wanted if held == "fp32" else f"{held}+{wanted}"
    return Runtime("openvino", shown, threads, description, run)


def last_line(error: Exception) -> str:
    """What OpenVINO says after naming the places in its sources."""
    return str(error).strip().rsplit("\n", 1)[-1]
