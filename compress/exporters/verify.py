"""Whether an exported file computes what the network does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor, nn

from compress.errors import CompressError
from compress.quantization.nncf_torch import is_quantized
from compress.runtimes.pytorch import from_network
from compress.runtimes.runtime import Runtime

# Of an absolute difference between maps in 0..1: its 99.9 % quantile, and its mean.
TOLERANCE = {"fp32": (1e-4, 1e-5), "int8": (0.1, 0.01)}
QUANTILE = 0.999


def verify(
    runtime: Runtime,
    network: nn.Module,
    batches: Iterable[Tensor],
    tolerance: float | None = None,
    mean_tolerance: float | None = None,
) -> dict[str, dict[str, float]]:
    """Compare an exported file with the network it was made of, on normalised (B, 3, H, W) batches of real pictures.

    Each map must have the same shape, be finite, lie in 0..1 where the network's own does, and differ from it by at most
    `tolerance` in the 99.9 % quantile of the absolute differences and by at most `mean_tolerance` in their mean (by default
    `TOLERANCE`, for whether the network is quantized). Returns map -> `maximum`, `quantile`, `mean` of them.

    No bound is put on the maximum: a value that float rounding moves over a tie changes by a whole quantum, the layers after it
    spread that, and so two right int8 files differ visibly in a few pixels. A fault (a wrong scale, a dropped sigmoid) moves
    the mean. Maps of an untrained network are near a constant, and prove nothing.

    Raises CompressError that names the map and the difference, or where `batches` is empty.
    """
    quantile_bound, mean_bound = TOLERANCE["int8" if is_quantized(network) else "fp32"]
    quantile_bound = quantile_bound if tolerance is None else tolerance
    mean_bound = mean_bound if mean_tolerance is None else mean_tolerance
    reference = from_network(network, runtime.threads)
    where = f"The exported {runtime.precision} model in {runtime.name}"
    differences: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        images = batch.numpy()
        expected, given = reference.run(images), runtime.run(images)
        if expected.keys() != given.keys():
            raise CompressError(f"{where} gives the maps {sorted(given)} instead of {sorted(expected)}; export it again.")
        for name, values in expected.items():
            check_values(f"{where}: map '{name}'", given[name], values)
            differences.setdefault(name, []).append(np.abs(given[name] - values).ravel())
    if not differences:
        raise CompressError("There is no picture to verify the exported model with; give the export stage at least one.")
    return {name: check_differences(f"{where}: map '{name}'", parts, quantile_bound, mean_bound) for name, parts in differences.items()}


def check_values(what: str, given: np.ndarray, expected: np.ndarray) -> None:
    """Shape, finiteness and range of one map."""
    if given.shape != expected.shape:
        raise CompressError(f"{what} has shape {given.shape} instead of {expected.shape}; export it again.")
    if not np.isfinite(given).all():
        raise CompressError(f"{what} holds values that are not finite; keep its last layers in float.")
    bounded = expected.min() >= 0 and expected.max() <= 1
    if bounded and (given.min() < 0 or given.max() > 1):
        raise CompressError(f"{what} leaves 0..1 ({given.min():.3g}..{given.max():.3g}); keep its last layers in float.")


def check_differences(what: str, parts: list[np.ndarray], quantile_bound: float, mean_bound: float) -> dict[str, Any]:
    """Figures of the differences of one map, if they are small enough."""
    difference = np.concatenate(parts)
    figures = {
        "maximum": float(difference.max()),
        "quantile": float(np.quantile(difference, QUANTILE)),
        "mean": float(difference.mean()),
    }
    for figure, bound in (("quantile", quantile_bound), ("mean", mean_bound)):
        if figures[figure] > bound:
            raise CompressError(
                f"{what} differs from the network's by {figures[figure]:.3g} ({figure} of absolute differences); allowed are {bound:.3g}."
            )
    return figures
