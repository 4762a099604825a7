"""A float network as a program of torch.export (.pt2), its description in the archive's extra file "compress".

Such a file is written and never opened here. `torch.export.load` of torch 2.13 executes pickles: weights and constants that the
archive says are pickled go through `torch.load(weights_only=False)`, opaque constants through `pickle.loads`
(torch/export/pt2_archive/_package.py), and sample inputs fall back to `weights_only=False` (torch/_export/serde/serialize.py).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import CompressError
from compress.exporters.onnx import METADATA_KEY
from compress.exporters.torchscript import folded
from compress.runtimes.pytorch import runner
from compress.runtimes.runtime import Runtime, available_threads


def export_torch_export(network: nn.Module, path: Path | str, example: Tensor, description: Mapping[str, Any]) -> Runtime:
    """Write the evaluation maps of a float `network` to `path` (.pt2), with batch, height and width left open.

    Arguments as for :func:`compress.exporters.onnx.export_onnx`. Gives back the program that was written, from memory, ready to run.
    Raises CompressError for a network with recurrent layers.
    """
    if any(isinstance(module, nn.RNNBase) for module in network.modules()):
        told = "torch.export fixes the number of steps of its recurrent layers, and so the width of its input"
        raise CompressError(f"Format torch_export cannot hold this network: {told}; export it as onnx, openvino or torchscript.")
    path = Path(path)
    described = {**description, "precision": "fp32"}
    text = json.dumps(described)
    # torch.export takes a length of 1 in its example for a constant.
    several = example.expand(2, -1, -1, -1) if len(example) == 1 else example
    open_axes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    partial = path.with_name(f"partial.{path.name}")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(folded(network, example), (several,), dynamic_shapes=(open_axes,))
            torch.export.save(program, partial, extra_files={METADATA_KEY: text})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    threads = available_threads(None)
    return Runtime("torch.export", "fp32", threads, described, runner(program.module(), threads))
