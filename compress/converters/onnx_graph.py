"""The layers of an ONNX graph as paddle2onnx writes it: weights on Constant nodes, some biases as an Add of their own.

What PP-LCNetV3 multiplies by one number and adds another to is a Mul and an Add: after a convolution they are part of it here, elsewhere
a layer of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.converters.names import TORCH_SLOPE, Tensors
from compress.errors import CompressError
from compress.runtimes.runtime import telling


@dataclass(frozen=True)
class Layer:
    """One layer with weights. tensors: `weight`, `scale`, `bias`, `running_mean`, `running_var`, those that it has, as torch lays them out.

    form: kind, kernel, stride and whether it is depthwise: what a layer is, whatever its width.
    """

    name: str
    form: tuple[Any, ...]
    tensors: Tensors


@dataclass(frozen=True)
class Graph:
    """A graph's layers in its order, the weights that belong to none of them, the name of its input, and what its file says beside."""

    layers: list[Layer]
    unused: list[str]
    source: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Wires:
    """What a node's neighbours are found by: constants by name, and the nodes that read each tensor."""

    constants: Tensors
    readers: dict[str, list[Any]]

    def only_reader(self, tensor: str) -> Any | None:
        """The node that alone reads `tensor`."""
        readers = self.readers[tensor]
        return readers[0] if len(readers) == 1 else None


def read_onnx(path: Path) -> Graph:
    """The layers of the file at `path`. Nothing in it is run, and no other file is opened for it.

    Raises CompressError where it is no ONNX model, is cut off, or has not one input.
    """
    import onnx

    with telling(f"{path} cannot be read as an ONNX model; it is damaged: fetch or export it again"):
        model = onnx.load(str(path), load_external_data=False)
        graph = model.graph
        nodes = without_detours(graph)
        wires = wires_of(graph, nodes)
        used: set[str] = set()
        layers = [layer for node in nodes if (layer := read_layer(node, wires, used))]
        unused = unused_weights(wires, used)
    sources = [tensor.name for tensor in graph.input if tensor.name not in wires.constants]
    if len(sources) != 1:
        raise CompressError(f"{path} has {len(sources)} inputs instead of one image; it is damaged, or no model of images.")
    return Graph(layers, unused, sources[0], {entry.key: entry.value for entry in model.metadata_props})


def without_detours(graph: Any) -> list[Any]:
    """The nodes, each reading what the Identity before it reads: newer versions of paddle2onnx put one between a layer and its bias.
    Older ones put a Reshape there, which is stepped over as well: what it reshapes is a constant.
    """
    constants = {tensor.name for tensor in graph.initializer} | {node.output[0] for node in graph.node if node.op_type == "Constant"}
    sources: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [sources.get(name, name) for name in node.input]
        if node.op_type == "Identity" or (node.op_type == "Reshape" and node.input[0] in constants):
            sources[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    return kept


def wires_of(graph: Any, nodes: Sequence[Any]) -> Wires:
    """The constants of a graph, initializers and Constant nodes alike, and who of `nodes` reads what."""
    from onnx import numpy_helper

    wires = Wires({tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}, defaultdict(list))
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            wires.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        for name in node.input:
            wires.readers[name].append(node)
    return wires


def read_layer(node: Any, wires: Wires, used: set[str]) -> Layer | None:
    """The layer that `node` is, None where it has no weights; their names are added to `used`."""
    from onnx import helper

    if node.op_type == "Mul":
        return read_layer_norm(node, wires, used) or read_scale(node, wires, used)
    if node.op_type not in KINDS or len(node.input) < 2 or node.input[1] not in wires.constants:
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    names = [name for name in node.input[1:] if name]
    if any(name not in wires.constants for name in names):
        return None
    arrays = [wires.constants[name] for name in names]
    if node.op_type == "BatchNormalization":
        used.update(names)
        return Layer(names[0], ("norm",), dict(zip(("weight", "bias", "running_mean", "running_var"), arrays, strict=True)))
    weight, after = arrays[0], node
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attributes.get("transB")):
        weight = weight.T
    tensors, outputs = {"weight": weight}, weight.shape[KINDS[node.op_type] == "deconv"]
    if len(arrays) > 1:
        tensors["bias"] = arrays[1]
    elif added := bias_after(node, wires, outputs):
        after, name = added
        names.append(name)
        tensors["bias"] = wires.constants[name].reshape(-1)  # (1, C, 1, 1) there
    if scaled := scale_after(after, wires):
        after, (scale, shift) = scaled
        names += [scale, shift]
        tensors = {name: array * wires.constants[scale].reshape(()) for name, array in tensors.items()}
        tensors["bias"] = tensors.get("bias", np.zeros(outputs, np.float32)) + wires.constants[shift].reshape(())
    used.update(names)
    factor = gate_slope(after, wires) / TORCH_SLOPE
    form: tuple[Any, ...] = (KINDS[node.op_type],)
    if weight.ndim == 4:
        form += (weight.shape[2:], tuple(attributes.get("strides", (1, 1))), attributes.get("group", 1) > 1)
    return Layer(names[0], form, {name: (array * factor).astype(np.float32) for name, array in tensors.items()})


KINDS = {"Conv": "conv", "ConvTranspose": "deconv", "BatchNormalization": "norm", "MatMul": "linear", "Gemm": "linear"}


def bias_after(node: Any, wires: Wires, outputs: int) -> tuple[Any, str] | None:
    """The Add that alone reads the node's output and adds `outputs` constants to it, and their name."""
    reader = wires.only_reader(node.output[0])
    if reader is None or reader.op_type != "Add":
        return None
    (other,) = [name for name in reader.input if name != node.output[0]] or [""]
    return (reader, other) if other in wires.constants and wires.constants[other].size == outputs else None


def read_scale(node: Any, wires: Wires, used: set[str]) -> Layer | None:
    """The layer that a Mul and the Add after it are, where both are by one number and no convolution has taken them in."""
    found = scale_and_shift(node, wires)
    if found is None or found[1][0] in used:
        return None
    _, names = found
    used.update(names)
    scale, shift = (wires.constants[name].astype(np.float32).reshape(1) for name in names)
    return Layer(names[0], ("scale",), {"scale": scale, "bias": shift})


def read_layer_norm(node: Any, wires: Wires, used: set[str]) -> Layer | None:
    """The layer norm whose last two nodes are a Mul and the Add after it, both by a number for each channel."""
    reader = wires.only_reader(node.output[0])
    if reader is None or reader.op_type != "Add":
        return None
    names = [name for both in (node, reader) for name in both.input if name in wires.constants and wires.constants[name].size > 1]
    if len(names) != 2:
        return None
    used.update(names)
    return Layer(
        names[0], ("layernorm",), dict(zip(("weight", "bias"), (wires.constants[name].reshape(-1) for name in names), strict=True))
    )


def scale_after(node: Any, wires: Wires) -> tuple[Any, tuple[str, str]] | None:
    """What :func:`scale_and_shift` finds in the one reader of the node's output."""
    reader = wires.only_reader(node.output[0])
    return scale_and_shift(reader, wires) if reader is not None and reader.op_type == "Mul" else None


def scale_and_shift(node: Any, wires: Wires) -> tuple[Any, tuple[str, str]] | None:
    """The Add that alone reads the Mul `node`, and the names of the one number that each of the two has; None where it is not so.

    Newer versions of paddle2onnx write the scale of attention's queries so too, which is no weight: a MatMul reads it.
    """
    reader = wires.only_reader(node.output[0])
    if reader is None or reader.op_type != "Add":
        return None
    after = wires.only_reader(reader.output[0])
    if after is not None and after.op_type == "MatMul":
        return None
    scales, shifts = (
        [name for name in both.input if name in wires.constants and wires.constants[name].size == 1] for both in (node, reader)
    )
    return (reader, (scales[0], shifts[0])) if len(scales) == len(shifts) == 1 else None


def gate_slope(node: Any, wires: Wires) -> float:
    """The slope of the hard sigmoid that alone reads the node's output; torch's where there is none."""
    from onnx import helper

    reader = wires.only_reader(node.output[0])
    if reader is None or reader.op_type != "HardSigmoid":
        return TORCH_SLOPE
    return next((helper.get_attribute_value(attribute) for attribute in reader.attribute if attribute.name == "alpha"), 0.2)


def unused_weights(wires: Wires, used: set[str]) -> list[str]:
    """Arrays of floating-point numbers that belong to no layer; the scales of a Resize are not weights."""
    scales = {name for nodes in wires.readers.values() for node in nodes if node.op_type == "Resize" for name in node.input}
    return sorted(
        name
        for name, array in wires.constants.items()
        if array.dtype.kind == "f" and array.size > 1 and name not in used and name not in scales
    )
