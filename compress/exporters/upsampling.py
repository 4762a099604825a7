"""Transposed convolutions whose windows do not overlap, as the 1x1 convolutions that they are.

Every output pixel of a k x k transposed convolution with stride k reads one input pixel: it is a 1x1 convolution to k * k times as many
channels, whose results are then laid out side by side (Shi et al. 2016, section 3.2, efficient sub-pixel convolution). The sums are the
same. OpenVINO has integer and fused kernels for the one and neither for the other: at input sizes that are open, the bias and the
sigmoid after a transposed convolution to a single channel took 38 % of the time of a pruned DB. ONNX Runtime is slower by 10 % this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

# What acts on each value by itself, wherever it lies.
POINTWISE = ("Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Clip", "QuantizeLinear", "DequantizeLinear")


def convolve_then_lay_out(model: onnx.ModelProto) -> None:
    """Rewrite, in place, each such ConvTranspose as Conv and DepthToSpace, with what is pointwise done before the layout.

    Weights may be float or int8 behind a DequantizeLinear. Others are left as they are.
    """
    graph = model.graph
    for node in list(graph.node):
        if node.op_type == "ConvTranspose" and rewritable(node, graph):
            rewrite(node, graph)


def rewritable(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Whether no two windows overlap and the weight is a constant, used by this node alone where it is int8."""
    facts = attributes(node)
    kernel = facts.get("kernel_shape", [])
    plain = facts.get("group", 1) == 1 and not any(facts.get(name) for name in ("pads", "output_padding", "output_shape", "auto_pad"))
    fits = len(kernel) == 2 and len(set(kernel)) == 1 and list(facts.get("strides", [1, 1])) == list(kernel)
    dequantizer = writer(graph, node.input[1])
    stored = node.input[1] if dequantizer is None else dequantizer.input[0]
    known = any(constant.name == stored for constant in graph.initializer)
    return plain and fits and known and len(readers(graph, node.input[1])) == 1


def rewrite(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """See :func:`convolve_then_lay_out`."""
    from onnx import helper

    side = attributes(node)["kernel_shape"][0]
    dequantizer = writer(graph, node.input[1])
    if dequantizer is None:
        replace_constant(graph, node, 1, pointwise_weight(constant(graph, node.input[1])))
    else:
        replace_constant(graph, dequantizer, 0, pointwise_weight(constant(graph, dequantizer.input[0])))
        step = constant(graph, dequantizer.input[1])
        if step.ndim:  # one for each output channel, the second axis of a transposed convolution's weight
            replace_constant(graph, dequantizer, 1, step.repeat(side * side))
            del dequantizer.attribute[:]
            dequantizer.attribute.append(helper.make_attribute("axis", 0))
    if len(node.input) > 2:
        replace_constant(graph, node, 2, constant(graph, node.input[2]).repeat(side * side))
    node.op_type = "Conv"
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("kernel_shape", [1, 1]))
    last = end_of_pointwise(node, graph)
    name, narrow = last.output[0], f"{last.output[0]}_narrow"
    last.output[0] = narrow
    layout = helper.make_node("DepthToSpace", [narrow], [name], blocksize=side, mode="CRD")
    graph.node.insert(list(graph.node).index(last) + 1, layout)


def pointwise_weight(weight: np.ndarray) -> np.ndarray:
    """(inputs, outputs, k, k) of a transposed convolution to (outputs * k * k, inputs, 1, 1), in DepthToSpace's order."""
    return np.ascontiguousarray(weight.transpose(1, 2, 3, 0).reshape(-1, len(weight), 1, 1))


def end_of_pointwise(node: onnx.NodeProto, graph: onnx.GraphProto) -> onnx.NodeProto:
    """The last of the pointwise nodes that follow `node` in a row, each the only reader of the one before; `node` where there is none."""
    maps = {value.name for value in graph.output}
    while node.output[0] not in maps:
        following = readers(graph, node.output[0])
        if len(following) != 1 or following[0].op_type not in POINTWISE or following[0].input[0] != node.output[0]:
            break
        node = following[0]
    return node


def constant(graph: onnx.GraphProto, name: str) -> np.ndarray:
    """The values of a stored constant."""
    from onnx import numpy_helper

    return numpy_helper.to_array(next(stored for stored in graph.initializer if stored.name == name))


def replace_constant(graph: onnx.GraphProto, node: onnx.NodeProto, place: int, values: np.ndarray) -> None:
    """Let `node` alone read `values` at `place`; what it read before goes when nothing else reads it."""
    from onnx import numpy_helper

    old = node.input[place]
    node.input[place] = f"{old}_pointwise"
    graph.initializer.append(numpy_helper.from_array(values, node.input[place]))
    if not readers(graph, old):
        graph.initializer.remove(next(stored for stored in graph.initializer if stored.name == old))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node by name."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def writer(graph: onnx.GraphProto, name: str) -> onnx.NodeProto | None:
    """The node that writes `name`, None for a constant or an input."""
    return next((node for node in graph.node if name in node.output), None)


def readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that read `name`, once for each time."""
    return [node for node in graph.node for read in node.input if read == name]
