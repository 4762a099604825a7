"""One artefact on disk to the figures of its row. Nothing here is derived from the recipe: what is measured is what was loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.checkpoint import Model, load, shipped_bytes
from compress.cost import macs, parameters
from compress.image_timing import image_timings
from compress.lab import Lab
from compress.pipeline import folder_bytes, is_pipeline
from compress.predictor import of_model, open_predictor
from compress.runtimes.processor import processor
from compress.runtimes.runtime import available_threads
from compress.runtimes.settings import Latency


def measure(path: Path, lab: Lab, *, runtimes: Sequence[str], network: Model | None = None, timed: bool = True) -> dict[str, Any]:
    """Size, cost, scores and latency of the checkpoint folder or exported file at `path`.

    runtimes: those to time a checkpoint in; a float one is written for each into a temporary folder first. An exported file is
    timed in its own.
    network: the model that an exported file was written from, for its MACs, which no runtime tells; a file needs it.
    timed: whether latency is measured.
    """
    latency = lab.recipe.latency
    if is_pipeline(path):
        predictor = open_predictor(path)
        facts: dict[str, Any] = {"params": None, "macs": None, "bytes": folder_bytes(path)}
    elif path.is_dir():
        model = load(path)
        model.network.to(lab.device)
        predictor = of_model(model)
        facts = {
            "params": parameters(model.network),
            "macs": macs(model.network, latency.input),
            "bytes": shipped_bytes(model),
        }
    else:
        if network is None:
            raise ValueError(f"{path} is a file, whose multiply-accumulates are counted on its network")
        predictor = open_predictor(path)
        facts = {"macs": macs(network.network, latency.input), "bytes": weight_bytes(path), **integers(path)}
    scores, left_out = lab.score_in_blocks(predictor, lab.split(lab.report_split))
    return {
        **facts,
        "task": lab.task.name,
        "scores": scores,
        "left_out": left_out,
        "main": lab.task.main,
        "split": lab.report_split,
        "images": len(lab.split(lab.report_split)),
        "settings": lab.recipe.evaluate.reported(predictor.algorithm),
        "runtime": f"{predictor.runtime} {predictor.precision}",
        "latency_ms": latencies(path, lab, runtimes) if timed else {},
        "cpu": processor(),
    }


def latencies(path: Path, lab: Lab, runtimes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Latencies of the checkpoint folder or exported file at `path`, as for :func:`measure`."""
    if is_pipeline(path):
        return pipeline_latency(path, lab)
    if path.is_file():
        return file_latency([path], lab.recipe.latency)
    model = load(path)
    model.network.to(lab.device)
    return checkpoint_latency(model, lab.recipe.latency, runtimes)


def pipeline_latency(path: Path, lab: Lab) -> dict[str, dict[str, Any]]:
    """Latency of a pipeline from pixels to answer, on the first images of the split that rows are measured on, and its parts' shares."""
    latency, split = lab.recipe.latency, lab.split(lab.report_split)
    predictor = open_predictor(path, threads=latency.threads)
    images = [split[place].image for place in range(min(latency.rounds, len(split)))]
    (found,) = image_timings([predictor], images)
    return {f"{predictor.runtime} {predictor.precision}": {**found.figures(), "threads": available_threads(latency.threads)}}


def weight_bytes(path: Path) -> int:
    """Bytes of the file that holds the weights: the .bin beside OpenVINO's .xml or ncnn's .param, any other file itself."""
    return (path.with_suffix(".bin") if path.suffix in (".xml", ".param") else path).stat().st_size


def integers(path: Path) -> dict[str, Any]:
    """Key `integers` of a row: what an exported file's runtime makes of it; nothing for files that hold no integers."""
    from compress.exporters.inspect import inspect

    found = inspect(path)
    return {"integers": found} if found else {}


def checkpoint_latency(model: Model, latency: Latency, runtimes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Latency of a checkpoint in torch, and of a float one in the other runtimes, those that read files through temporary ones."""
    from compress.runtimes import from_network, interleaved

    times = {}
    if "torch" in runtimes:
        runtime = from_network(model.network, latency.threads)
        times[f"torch {runtime.precision}"] = interleaved([runtime], latency.input, rounds=latency.rounds)[0]
    if "torch.compile" in runtimes and not model.quantization:
        runtime = from_network(model.network, latency.threads, compiled=True)
        times[f"torch.compile {runtime.precision}"] = interleaved([runtime], latency.input, rounds=latency.rounds)[0]
    others = [name for name in runtimes if not name.startswith("torch")]
    if others and not model.quantization:
        times |= written_latency(model, latency, others)
    return times


def written_latency(model: Model, latency: Latency, runtimes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Latency of a checkpoint, float or quantized, in runtimes that read files, through temporary ones."""
    from compress.exporters.write import write_files

    formats = [{"onnxruntime": "onnx"}.get(name, name) for name in runtimes]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / file for _, file, _ in write_files(model, formats, Path(folder), [])]
        return file_latency(files, latency)


def file_latency(paths: Sequence[Path], latency: Latency) -> dict[str, dict[str, Any]]:
    """Latency of exported files, timed in turn."""
    from compress.runtimes import interleaved, open_file

    opened = [open_file(path, threads=latency.threads) for path in paths]
    measured = interleaved(opened, latency.input, rounds=latency.rounds)
    return {f"{runtime.name} {runtime.precision}": values for runtime, values in zip(opened, measured, strict=True)}
