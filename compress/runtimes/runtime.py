"""What every runtime gives, and how its latency is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import CompressError
from compress.files import parse_json
from compress.last_resort import out_of_memory

LONGEST = 300  # characters of what a runtime says


@dataclass(frozen=True)
class Runtime:
    """A model that is ready to run.

    name: "torch", "torch.compile", "torchscript", "onnxruntime", "openvino", "ncnn" or "tensorrt".
    precision: "fp32", "int8" and so on, as a row of a table should say it.
    description: what was given to the export. run: (B, 3, H, W) float32 images -> name -> float32 map.
    """

    name: str
    precision: str
    threads: int
    description: dict[str, Any]
    run: Callable[[np.ndarray], dict[str, np.ndarray]]


@contextmanager
def telling(sentence: str) -> Iterator[None]:
    """Whatever a runtime raises inside as a CompressError: `sentence`, with what the runtime says in brackets.

    Runtimes raise exceptions of many kinds with no base of their own. A failed allocation is raised as it is: the file is not at fault.
    """
    try:
        yield
    except CompressError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise CompressError(f"{sentence} ({said(error)}).") from None


def said(error: Exception) -> str:
    """What a runtime says, without its stack and the places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1] if lines[0].startswith(("Exception from ", "Check '")) else lines[0]
    return line[:LONGEST].rstrip(".:")


def as_floats(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What a runtime has given as float32 arrays, those that are such uncopied. Raises ValueError or TypeError for anything else."""
    return {str(name): np.asarray(values, np.float32) for name, values in outputs.items()}


def latency(runtime: Runtime, shape: Sequence[int], rounds: int = 50, warmup: int = 10) -> dict[str, Any]:
    """Time of one call on noise of `shape` (B, 3, H, W): `median` and `p90` in milliseconds, `threads`, `input`, `rounds`."""
    return interleaved([runtime], shape, rounds, warmup)[0]


def interleaved(runtimes: Sequence[Runtime], shape: Sequence[int], rounds: int = 50, warmup: int = 10) -> list[dict[str, Any]]:
    """:func:`latency` of several runtimes, which take turns, so that whatever else the machine does meets all of them alike."""
    seconds = timed(runtimes, shape, rounds, warmup)
    return [figures(runtime, shape, times) for runtime, times in zip(runtimes, seconds, strict=True)]


def timed(
    runtimes: Sequence[Runtime], shape: Sequence[int], rounds: int, warmup: int, done: Callable[[int], None] = lambda _: None
) -> np.ndarray:
    """Seconds of every call, (runtimes, rounds), the runtimes taking turns in each round; `done(1)` is called after every call."""
    images = np.random.default_rng(0).standard_normal(tuple(shape), dtype=np.float32)
    for runtime in runtimes:
        for _ in range(warmup):
            runtime.run(images)
            done(1)
    seconds = np.empty((len(runtimes), rounds))
    for turn in range(rounds):
        for which, runtime in enumerate(runtimes):
            start = time.perf_counter()
            runtime.run(images)
            seconds[which, turn] = time.perf_counter() - start
            done(1)
    return seconds


def figures(runtime: Runtime, shape: Sequence[int], seconds: np.ndarray) -> dict[str, Any]:
    """Median and 90th percentile, in milliseconds, of the (rounds,) seconds of one runtime, and what they were measured with."""
    return {
        "median": float(np.median(seconds) * 1e3),
        "p90": float(np.quantile(seconds, 0.9) * 1e3),
        "threads": runtime.threads,
        "input": list(shape),
        "rounds": len(seconds),
    }


def available_threads(wanted: int | None) -> int:
    """`wanted`, or as many as this process may use."""
    if wanted is not None:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


FROM_OUTSIDE = " PP-OCR's own files come in by `compress convert FILE -o CHECKPOINT`."


def read_description(text: str | None, path: Path) -> dict[str, Any]:
    """The description out of a file's metadata. CompressError where there is none."""
    try:
        described = parse_json(text or "", dict[str, Any], str(path))
    except CompressError:
        described = {}
    if not isinstance(described.get("precision"), str):
        told = f"{path} does not say which model it holds: it was not written by an export stage; export the model again."
        raise CompressError(told + FROM_OUTSIDE)
    return described
