"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import CompressError
from compress.runtimes.runtime import Runtime, available_threads, read_description

LOG_NOTHING = 4


def open_onnx(path: Path, threads: int | None, precision: str | None) -> Runtime:
    """See :func:`compress.runtimes.open_file`."""
    if precision not in (None, "f32"):
        raise CompressError(f"ONNX Runtime has no precision '{precision}' on a CPU; leave it out, or use OpenVINO.")
    try:
        import onnxruntime
    except ImportError:
        raise CompressError(f"{path} needs ONNX Runtime, which is not installed; run `pip install onnxruntime`.") from None
    threads = available_threads(threads)
    try:
        session = onnxruntime.InferenceSession(str(path), session_options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base of their own
        raise CompressError(f"{path} cannot be read as an ONNX model; export it again ({first_line(error)}).") from None
    description = read_description(session.get_modelmeta().custom_metadata_map.get("compress"), path)
    source = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {source: images}), strict=True))

    return Runtime("onnxruntime", description["precision"], threads, description, run)


def session_options(threads: int) -> Any:
    """How a session is made, here and where its optimized graph is looked at."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_NOTHING
    # Images come in many sizes; a plan and a pool for each would stay in memory.
    options.enable_mem_pattern = False
    # Else its threads spin on after a call and slow down whatever is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def first_line(error: Exception) -> str:
    """What a library says, without its stack."""
    return str(error).strip().split("\n", 1)[0]
