"""Recurrent layers, steps of decoders and squeeze-and-excites of a quantized network: they compute in float; their weights lie in the file
in 8 bits, rounded as it is written.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

KINDS = ("LSTM", "GRU", "RNN")
WEIGHTS = (1, 2)  # places among the inputs of such a node: what reads the step before it, and what reads its own last output
TABLES = ("Gather", "Gemm", "MatMul")  # what reads the weights of a step that is written out again and again
MEANS = ("GlobalAveragePool", "ReduceMean")  # what the first convolution of a squeeze-and-excite reads
LARGEST = 127


def store_in_8_bits(model: onnx.ModelProto) -> None:
    """Replace the float weights of recurrent layers, of what a decoder runs at every step and of squeeze-and-excites, in place, by integers
    of 8 bits times a step for each row.

    Runtimes compute that once, when they open the file. Weights of recurrent layers and squeeze-and-excites that others share, or that are
    no constants, stay as they are.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    stored = {constant.name: constant for constant in graph.initializer}
    names = [node.input[place] for node in graph.node if node.op_type in KINDS for place in WEIGHTS]
    names += [node.input[1] for node in squeezes(graph)]
    readers = Counter(name for node in graph.node for name in node.input)
    alone = [name for name in names if name in stored and readers[name] == 1]
    spelt = []
    for name in [*alone, *of_steps(graph)]:
        integers, step = rounded(numpy_helper.to_array(stored[name]))
        graph.initializer.remove(stored[name])
        graph.initializer.append(numpy_helper.from_array(integers, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(step, f"{name}_step"))
        # By way of int32: OpenVINO leaves a product of converted int8 alone, for integer layers, and its LSTM takes constants only.
        spelt.append(helper.make_node("Cast", [f"{name}_int8"], [f"{name}_int32"], to=TensorProto.INT32))
        spelt.append(helper.make_node("Cast", [f"{name}_int32"], [f"{name}_float"], to=TensorProto.FLOAT))
        spelt.append(helper.make_node("Mul", [f"{name}_float", f"{name}_step"], [name]))
    nodes = [*spelt, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def of_steps(graph: onnx.GraphProto) -> list[str]:
    """Names of the float weights, of more than one column, that several nodes read each as a table or a matrix: those of unrolled steps."""
    from onnx import TensorProto

    readers = Counter(name for node in graph.node if node.op_type in TABLES for name in node.input)
    return [
        constant.name
        for constant in graph.initializer
        if readers[constant.name] > 1 and constant.data_type == TensorProto.FLOAT and len(constant.dims) == 2 and constant.dims[1] > 1
    ]


def squeezes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The convolutions of squeeze-and-excites: those that read a map's mean, and those that read what such a one gives, through a ReLU.

    NNCF leaves them in float.
    """
    writers = {name: node for node in graph.node for name in node.output}
    found: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        before = writers.get(node.input[0]) if node.op_type == "Conv" else None
        if before is not None and before.op_type == "Relu":
            before = writers.get(before.input[0])
        if before is not None and (before.op_type in MEANS or before.output[0] in found):
            found[node.output[0]] = node
    return list(found.values())


def rounded(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float32 of a recurrent layer, (directions, rows, n), of a matrix, (rows, n), or of a convolution, (rows, n, h, w), as int8 of that
    shape, and a positive step for each row, in as many dimensions.
    """
    largest = np.abs(weights).max((1, 2, 3) if weights.ndim == 4 else -1, keepdims=True)
    step = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.round(weights / step).clip(-LARGEST, LARGEST).astype(np.int8), step
