"""Torch itself, for comparison with exported files: eager, and through torch.compile."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.errors import CompressError
from compress.runtimes.runtime import Runtime, available_threads

if TYPE_CHECKING:
    from torch import nn


def from_network(network: nn.Module, threads: int | None = None, *, compiled: bool = False) -> Runtime:
    """A copy of `network` in evaluation mode, on the CPU. Torch's number of threads is as before after each call.

    A quantized network computes in float32 what integers would give, and is slow at it: its precision is "fake-quantized int8".
    compiled: through torch.compile, as the runtime "torch.compile"; the first call at each image size compiles, for some seconds
    up to a minute, and raises CompressError where that fails, as without a C++ compiler. A quantized network is refused.
    """
    from compress.quantization.nncf_torch import is_quantized

    quantized = is_quantized(network)
    if compiled and quantized:
        raise CompressError("torch.compile is for float networks; time a quantized one in torch, or export it to int8 files.")
    inference = copy.deepcopy(network).eval().cpu()
    threads = available_threads(threads)
    precision = "fake-quantized int8" if quantized else "fp32"
    if compiled:
        return Runtime("torch.compile", precision, threads, {}, runner(compiled_call(inference), threads))
    return Runtime("torch", precision, threads, {}, runner(inference, threads))


def runner(call: Callable[[Any], Any], threads: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Arrays in and out of what takes a tensor and gives a dict of them."""
    import torch

    @torch.inference_mode()
    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch_threads(threads):
            return {name: values.numpy() for name, values in call(torch.from_numpy(images)).items()}

    return run


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Torch computes with so many threads until the block ends."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compiled_call(network: nn.Module) -> Callable[[Any], Any]:
    """`network` through torch.compile, whose failures become one sentence.

    Without its cache of graphs: those are pickles in a folder that others may be able to write to.
    """
    import torch

    compiled = torch.compile(network, options={"fx_graph_cache": False})

    def call(images: Any) -> Any:
        try:
            return compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            told = str(error).strip().split("\n", 1)[0]
            raise CompressError(
                f"torch.compile cannot compile this network here ({told}); it needs a C++ compiler such as g++: install one, "
                "or leave torch.compile out."
            ) from None

    return call
