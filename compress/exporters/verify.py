"""Whether an exported file computes what the network does."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
from torch import Tensor, nn

from compress.errors import CompressError, told_apart
from compress.quantization.nncf_torch import is_quantized, without_rounding
from compress.runtimes.pytorch import from_network
from compress.runtimes.runtime import Runtime

QUANTILE = 0.999
LAST_BITS = 1e-6  # how far runtimes' own sigmoids leave 0..1 by rounding: a few times 2^-23
# Bounds on differences between maps in 0..1, of their 99.9 % quantile and of their mean; of maps with larger values, times the largest.
TOLERANCE = (1e-4, 1e-5)
# Of int8 files, where rounding to integers costs less than this.
INT8_TOLERANCE = (0.1, 0.01)
# Two networks whose rounding errors have nothing to do with each other are this much further apart than either is from the float one.
INDEPENDENT = 2**0.5
# On fewer images than this, int8 files are allowed twice as much: one on which quantization happens to cost little proves little.
STEADY_IMAGES = 4
# The 99.9 % quantile of few values is their maximum: lines of text, which are small and give few, are compared on more images.
FEWEST_IMAGES, MOST_IMAGES = 8, 64
ENOUGH_PIXELS = 2**18


def enough(images: Iterable[np.ndarray], count: int | None = None) -> list[np.ndarray]:
    """The first `count` of (H, W, 3) images; unless it is said, as many as hold `ENOUGH_PIXELS` together, but 8 to 64."""
    taken: list[np.ndarray] = []
    pixels = 0
    for image in islice(images, count or MOST_IMAGES):
        taken.append(image)
        pixels += image.shape[0] * image.shape[1]
        if count is None and len(taken) >= FEWEST_IMAGES and pixels >= ENOUGH_PIXELS:
            break
    return taken


def verify(
    runtime: Runtime,
    network: nn.Module,
    batches: Iterable[Tensor],
    tolerance: float | None = None,
    mean_tolerance: float | None = None,
) -> dict[str, dict[str, float]]:
    """Compare an exported file with the network it was made of, on normalised (B, 3, H, W) batches of real images.

    Each map must have the same shape, be finite, lie in 0..1 where the network's own does, and differ from it by at most
    `tolerance` in the 99.9 % quantile of the absolute differences and by at most `mean_tolerance` in their mean. By default
    `TOLERANCE`, times the map's largest absolute value where that is above 1 (offsets in pixels); for a quantized network
    `INT8_TOLERANCE`, or sqrt(2) times what quantization itself has cost if that is more, and twice that on fewer than four images.
    Returns map -> `maximum`, `quantile`, `mean` of the differences.

    No bound is put on the maximum: a value that float rounding moves over a tie changes by a whole quantum, the layers after it
    spread that, and so two right int8 files differ visibly in a few pixels. OpenVINO also leaves out the rounding between a
    convolution and a residual addition. Neither takes a file further from its simulation than independent rounding would; a fault (a
    wrong scale, a dropped sigmoid) does. Maps of an untrained network are near a constant, and prove nothing.

    Raises CompressError that names the map and the difference, or where `batches` is empty.
    """
    quantized = is_quantized(network)
    reference = from_network(network, runtime.threads)
    plain = from_network(without_rounding(network), runtime.threads) if quantized else None
    where = f"The exported {runtime.precision} model in {runtime.name}"
    differences: dict[str, list[np.ndarray]] = {}
    costs: dict[str, list[np.ndarray]] = {}
    largest: dict[str, float] = {}
    shown = 0
    for batch in batches:
        images = batch.numpy()
        shown += len(images)
        expected, given = reference.run(images), runtime.run(images)
        if expected.keys() != given.keys():
            raise CompressError(f"{where} gives the maps {sorted(given)} instead of {sorted(expected)}; export it again.")
        unrounded = plain.run(images) if plain else {}
        for name, values in expected.items():
            check_values(f"{where}: map '{name}'", given[name], values)
            differences.setdefault(name, []).append(np.abs(given[name] - values).ravel())
            costs.setdefault(name, []).append(np.abs(unrounded.get(name, values) - values).ravel())
            largest[name] = max(largest.get(name, 1.0), float(np.abs(values).max()))
    if not differences:
        raise CompressError("There is no image to verify the exported model with; give the export stage at least one.")
    report = {}
    scatter = 2 if quantized and shown < STEADY_IMAGES else 1
    for name, parts in differences.items():
        report[name], cost = summary(parts), summary(costs[name])
        quantile, mean = (scatter * largest[name] * bound for bound in (INT8_TOLERANCE if quantized else TOLERANCE))
        bounds = {
            "quantile": max(quantile, scatter * INDEPENDENT * cost["quantile"]) if tolerance is None else tolerance,
            "mean": max(mean, scatter * INDEPENDENT * cost["mean"]) if mean_tolerance is None else mean_tolerance,
        }
        for figure, bound in bounds.items():
            if report[name][figure] > bound:
                raise CompressError(
                    f"{where}: map '{name}' differs from the network's by {told_apart(report[name][figure], bound)} "
                    f"({figure} of the absolute differences); allowed are {bound:.3g}."
                )
    return report


def summary(parts: list[np.ndarray]) -> dict[str, float]:
    """Maximum, 99.9 % quantile and mean of all `parts` together."""
    values = np.concatenate(parts)
    return {"maximum": float(values.max()), "quantile": float(np.quantile(values, QUANTILE)), "mean": float(values.mean())}


def check_values(what: str, given: np.ndarray, expected: np.ndarray) -> None:
    """Shape, finiteness and range of one map."""
    if given.shape != expected.shape:
        raise CompressError(f"{what} has shape {given.shape} instead of {expected.shape}; export it again.")
    if not np.isfinite(given).all():
        raise CompressError(f"{what} holds values that are not finite; keep its last layers in float.")
    bounded = expected.min() >= -LAST_BITS and expected.max() <= 1 + LAST_BITS
    if bounded and (given.min() < -LAST_BITS or given.max() > 1 + LAST_BITS):
        least, most = told_apart(float(given.min()), 0), told_apart(float(given.max()), 1)
        raise CompressError(f"{what} leaves 0..1 ({least}..{most}); keep its last layers in float.")
