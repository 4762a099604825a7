"""A float network as TorchScript: traced, frozen, its description in the archive's extra file "compress".

Torch 2.13 calls all of TorchScript deprecated, and still reads and writes it; new work is better served by `onnx`.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.exporters.onnx import METADATA_KEY
from compress.quantization.folding import fold_batch_norms


def export_torchscript(network: nn.Module, path: Path | str, example: Tensor, description: Mapping[str, Any]) -> Path:
    """Write the evaluation maps of a float `network` to `path` (.torchscript), with batch, height and width left open.

    Arguments as for :func:`compress.exporters.onnx.export_onnx`.
    """
    path = Path(path)
    described = json.dumps({**description, "precision": "fp32"})
    partial = path.with_name(f"{path.name}.partial")
    module = traced(folded(network, example), example)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.freeze(module).save(partial, _extra_files={METADATA_KEY: described})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def folded(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `network` in evaluation mode, with its batch norms folded and without gradients."""
    inference = copy.deepcopy(network).eval().requires_grad_(False)
    fold_batch_norms(inference, example)
    return inference


def traced(inference: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """A trace of a network that gives a dict of maps, or a tuple of them."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.jit.trace(inference, example, strict=False)
