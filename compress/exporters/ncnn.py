"""A float network for ncnn: a .param file with the graph, the description in its last line, and a .bin file with float32 weights.

The converter is pnnx, ncnn's own: a program that reads TorchScript, installed by `pip install pnnx`.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.errors import CompressError
from compress.exporters.onnx import INPUT
from compress.exporters.torchscript import folded, traced
from compress.runtimes.ncnn import MARK

UNSUPPORTED = re.compile(r"^(?:pnnx|aten|prim|torch|F|nn)[.:]\S*", re.MULTILINE)


class InOrder(nn.Module):
    """The maps as a tuple, which is all that pnnx takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(images).values())


def export_ncnn(network: nn.Module, path: Path | str, example: Tensor, description: Mapping[str, Any]) -> Path:
    """Write the evaluation maps of a float `network` to `path` (.param) and the .bin beside it, with height and width left open; where the
    images of `example` are lines of text, which are not square, the width alone.

    Arguments as for :func:`compress.exporters.onnx.export_onnx`; 1.5 times an open side of the example is a size that the network takes.
    Raises CompressError where pnnx is missing, fails, or leaves an operator that ncnn does not have.
    """
    program = converter()
    path = Path(path)
    text = json.dumps({**description, "precision": "fp32"})
    inference = folded(network, example)
    names = list(inference(example))
    height, width = example.shape[2:]
    larger = nn.functional.interpolate(example, scale_factor=(1.5 if height == width else 1.0, 1.5))
    with tempfile.TemporaryDirectory() as folder:
        traced(InOrder(inference), example).save(Path(folder) / "model.pt")
        shapes = [f"inputshape{n}=[{','.join(map(str, images.shape))}]" for n, images in (("", example), ("2", larger))]
        done = subprocess.run([program, "model.pt", *shapes, "fp16=0"], cwd=folder, capture_output=True, text=True, check=False)
        written = [Path(folder) / f"model.ncnn.{part}" for part in ("param", "bin")]
        if done.returncode != 0 or not all(file.exists() for file in written):
            raise CompressError(f"pnnx cannot convert this network to ncnn (status {done.returncode}); export it as onnx instead.")
        graph, weights = written[0].read_text(encoding="utf-8"), written[1].read_bytes()
    if found := UNSUPPORTED.search(graph):
        raise CompressError(f"ncnn has no operator for '{found.group()}' of this network; export it as onnx instead.")
    graph = named(graph, {"in0": INPUT, **{f"out{place}": name for place, name in enumerate(names)}})
    described = json.dumps({**json.loads(text), "weight_bytes": len(weights)})
    partial = path.with_name(f"partial.{path.name}")
    files = [(partial.with_suffix(".bin"), weights, path.with_suffix(".bin")), (partial, f"{graph}{MARK}{described}\n".encode(), path)]
    try:
        for temporary, data, _ in files:
            temporary.write_bytes(data)
        for temporary, _, final in files:
            temporary.replace(final)
    finally:
        for temporary, _, _ in files:
            temporary.unlink(missing_ok=True)
    return path


def converter() -> str:
    """The program pnnx. CompressError where it is not installed."""
    try:
        import pnnx
    except ImportError:
        raise CompressError("Format ncnn needs the converter pnnx, which is not installed; run `pip install pnnx ncnn`.") from None
    return pnnx.EXEC_PATH


def named(graph: str, names: Mapping[str, str]) -> str:
    """The graph's text with its inputs and outputs called as the network calls them."""
    return re.sub(r"(?<= )(?:in|out)\d+(?=\s)", lambda found: names.get(found.group(), found.group()), graph)
