"""Torch itself, for comparison with exported files."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from compress.runtimes.runtime import Runtime, available_threads

if TYPE_CHECKING:
    from torch import nn


def from_network(network: nn.Module, threads: int | None = None) -> Runtime:
    """A copy of `network` in evaluation mode, on the CPU. Torch's number of threads is as before after each call.

    A quantized network computes in float32 what integers would give, and is slow at it: its precision is "int8 simulated".
    """
    import torch

    from compress.quantization.nncf_torch import is_quantized

    inference = copy.deepcopy(network).eval().cpu()
    threads = available_threads(threads)

    @torch.inference_mode()
    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return {name: values.numpy() for name, values in inference(torch.from_numpy(images)).items()}
        finally:
            torch.set_num_threads(before)

    return Runtime("torch", "int8 simulated" if is_quantized(network) else "fp32", threads, {}, run)
