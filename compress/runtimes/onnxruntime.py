"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import CompressError
from compress.runtimes.runtime import Runtime, as_floats, available_threads, read_description, telling

LOG_NOTHING = 4


def open_onnx(path: Path, threads: int | None, precision: str | None) -> Runtime:
    """See :func:`compress.runtimes.open_file`."""
    if precision not in (None, "f32"):
        raise CompressError(f"ONNX Runtime has no precision '{precision}' on a CPU; leave it out, or use OpenVINO.")
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise CompressError(f"{path} needs ONNX Runtime, which is not installed; run `pip install onnxruntime`.") from None
    threads = available_threads(threads)
    session = open_session(path, session_options(threads))
    description = read_description(session.get_modelmeta().custom_metadata_map.get("compress"), path)
    source = input_of(session, path)
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with telling(f"{path} does not run on images of {' x '.join(map(str, images.shape))}; export the model again"):
            return as_floats(dict(zip(names, session.run(names, {source: images}), strict=True)))

    return Runtime("onnxruntime", description["precision"], threads, description, run)


def open_session(path: Path, options: Any) -> Any:
    """The session of a file. Other files that it names are opened inside of its folder alone, as ONNX Runtime sees to.

    Raises CompressError for one that cannot be read.
    """
    import onnxruntime

    with telling(f"{path} cannot be read as an ONNX model; export it again"):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def input_of(session: Any, path: Path) -> str:
    """The name of a session's only input."""
    names = [value.name for value in session.get_inputs()]
    if len(names) != 1:
        raise CompressError(f"{path} has {len(names)} inputs instead of one image; it is damaged, or no model of images.")
    return names[0]


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
