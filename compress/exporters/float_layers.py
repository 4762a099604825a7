"""Layers of a quantized network that compute in float: recurrent ones, steps of decoders, squeeze-and-excites, those that were kept float.
Their weights lie in the file in 8 bits, rounded as it is written.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

KINDS = ("LSTM", "GRU", "RNN")
# Where such nodes have their weights among their inputs; a recurrent layer's read the step before it, and its own last output.
PLACES = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1,), "Gather": (0,)} | dict.fromkeys(KINDS, (1, 2))
LARGEST = 127
WORTH = 512  # bytes: what three more nodes weigh


def store_in_8_bits(model: onnx.ModelProto, exact: Collection[str] = ()) -> None:
    """Replace the float weights of layers and tables, in place, by integers of 8 bits times a step for each row.

    Runtimes compute that once, when they open the file. Small weights stay, and so do constants that something else reads, too.
    exact: names of constants that are no weights.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    reads: dict[str, set[str]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            reads.setdefault(name, set()).add(node.op_type if place in PLACES.get(node.op_type, ()) else "")
    spelt = []
    for constant in list(graph.initializer):
        name, kinds = constant.name, reads.get(constant.name, {""})
        if constant.data_type != TensorProto.FLOAT or len(constant.dims) < 2 or "" in kinds or name in exact:
            continue
        integers, step = rounded(numpy_helper.to_array(constant), by_column=kinds == {"MatMul"})
        if not saves_bytes(integers, step):
            continue
        graph.initializer.remove(constant)
        graph.initializer.append(numpy_helper.from_array(integers, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(step, f"{name}_step"))
        # By way of int32: OpenVINO leaves a product of converted int8 alone, for integer layers, and its LSTM takes constants only.
        spelt.append(helper.make_node("Cast", [f"{name}_int8"], [f"{name}_int32"], to=TensorProto.INT32))
        spelt.append(helper.make_node("Cast", [f"{name}_int32"], [f"{name}_float"], to=TensorProto.FLOAT))
        spelt.append(helper.make_node("Mul", [f"{name}_float", f"{name}_step"], [name]))
    nodes = [*spelt, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def saves_bytes(integers: np.ndarray, step: np.ndarray) -> bool:
    """Whether weights of 8 bits and their steps are so much smaller than the same weights in float32 that it is worth it."""
    return 4 * integers.size - integers.nbytes - step.nbytes >= WORTH


def rounded(weights: np.ndarray, by_column: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Float32 of a recurrent layer, (directions, rows, n), of a matrix, (rows, n), or of a convolution, (rows, n, h, w), as int8 of that
    shape, and a positive step for each row, in as many dimensions.

    by_column: a step for each column of a matrix instead, which gives one output where a matrix stands on the right.
    """
    axes: tuple[int, ...] = (-2,) if by_column else (1, 2, 3)[: weights.ndim - 1] if weights.ndim != 3 else (-1,)
    largest = np.abs(weights).max(axes, keepdims=True)
    step = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.round(weights / step).clip(-LARGEST, LARGEST).astype(np.int8), step
