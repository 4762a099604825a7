"""A network as an ONNX file. A quantized one is written with int8 weights and QuantizeLinear / DequantizeLinear pairs.

The description (model, thresholds and the like) travels in the file's metadata under the key "compress", with "precision" added.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from compress.exporters.float_layers import store_in_8_bits
from compress.exporters.highest import round_before_highest
from compress.exporters.integers import use_integers
from compress.quantization.folding import fold_batch_norms
from compress.quantization.nncf_torch import HOOKS, is_quantized, quiet_nncf

if TYPE_CHECKING:
    import onnx

METADATA_KEY = "compress"
INPUT = "images"
OPSET = 17
# Of images and maps, (B, C, H, W); of the classes of steps, (B, T, classes); of classes, (B, classes).
OPEN_AXES = {4: {0: "batch", 2: "height", 3: "width"}, 3: {0: "batch", 1: "steps"}, 2: {0: "batch"}}


def export_onnx(network: nn.Module, path: Path | str, example: Tensor, description: Mapping[str, Any]) -> Path:
    """Write the evaluation maps of `network` to `path`, with batch, height and width left open, and return the path.

    example: (B, 3, H, W), used for tracing. description: what JSON can hold. The network is left as it was; its batch norms are
    folded in the file. The file appears whole or not at all.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        model = onnx_model(network, example, description)
        spell_out_float_weights(model)
        partial.write_bytes(model.SerializeToString())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def onnx_model(
    network: nn.Module, example: Tensor, description: Mapping[str, Any], rearrange: Callable[[onnx.ModelProto], None] | None = None
) -> onnx.ModelProto:
    """What :func:`export_onnx` writes, checked by ONNX's own checker. rearrange: changes the graph while float weights are float."""
    import onnx

    inference = copy.deepcopy(network).eval()
    quantized = is_quantized(inference)
    if quantized:
        use_integers(inference, example)
    else:
        fold_batch_norms(inference, example)
    with torch.no_grad():
        outputs = inference(example)
    names = list(outputs)
    buffer = io.BytesIO()
    with quiet_nncf(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            inference,
            (example,),
            cast(str, buffer),  # a file-like object is documented, and left out of the stubs
            input_names=[INPUT],
            output_names=names,
            dynamic_axes={INPUT: OPEN_AXES[4], **{name: OPEN_AXES[tensor.dim()] for name, tensor in outputs.items()}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    tidy(model)
    if quantized:
        round_before_highest(model)
    if rearrange:
        rearrange(model)
    if quantized:
        store_in_8_bits(model, exact={name for name, _ in inference.named_buffers()})
    described = {**description, "precision": "int8" if quantized else "fp32"}
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(described))
    onnx.checker.check_model(model, full_check=True)
    return model


# What ONNX takes an attribute of a convolution to be where it is left out.
DEFAULTS = {"dilations": 1, "strides": 1, "pads": 0, "group": 1}
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def tidy(model: onnx.ModelProto) -> None:
    """Leave out what says nothing: copies of constants, tensors' names but those of parameters and maps, attributes at their defaults.

    In a small int8 model all that weighs a third of the file. Only layers with weights keep the name of their node.
    """
    graph = model.graph
    constants = {constant.name for constant in graph.initializer}
    copies = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity" and node.input[0] in constants}
    kept = [node for node in graph.node if node.output[0] not in copies]
    named = {value.name for value in [*graph.input, *graph.output]} | {name for name in constants if HOOKS not in name}
    numbers: dict[str, str] = {}

    def renamed(name: str) -> str:
        name = copies.get(name, name)
        # An empty name is an optional input left out.
        return name if name in named or not name else numbers.setdefault(name, f"t{len(numbers)}")

    for node in kept:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        if node.op_type in LAYERS:
            told = [attribute for attribute in node.attribute if set(attribute.ints or [attribute.i]) != {DEFAULTS.get(attribute.name)}]
            del node.attribute[:]
            node.attribute.extend(told)
        else:
            node.name = ""
    for constant in graph.initializer:
        constant.name = renamed(constant.name)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)


def spell_out_float_weights(model: onnx.ModelProto) -> None:
    """Write `Mul(Cast(weights), step)` for the int8 weights, still stored as such, of convolutions that ONNX Runtime runs in float.

    It folds those two into packed float weights when a session is made. A DequantizeLinear it keeps, for integer kernels that these
    convolutions do not have (a hard-swish stands between them and the next quantizer), and runs it at every call. The numbers are
    the same; on a pruned MobileNetV3, where these are 19 of 63 layers, a call takes 0.6 times as long.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    stored = {constant.name: constant for constant in graph.initializer}
    spelt = []
    in_float = float_weights(model)
    for node in graph.node:
        if node.output[0] not in in_float:
            spelt.append(node)
            continue
        integers, result = stored[node.input[0]], node.output[0]
        step = numpy_helper.to_array(stored[node.input[1]])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        shape = [1] * len(integers.dims)
        shape[axis] = -1
        graph.initializer.append(numpy_helper.from_array(step.reshape(shape if step.ndim else ()), f"{result}_step"))
        spelt.append(helper.make_node("Cast", [integers.name], [f"{result}_float"], to=TensorProto.FLOAT))
        spelt.append(helper.make_node("Mul", [f"{result}_float", f"{result}_step"], [result]))
    del graph.node[:]
    graph.node.extend(spelt)
    read = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def float_weights(model: onnx.ModelProto) -> set[str]:
    """Names of the dequantized weights that ONNX Runtime will use in float.

    It computes a convolution in integers where its image comes from a DequantizeLinear and its result goes, through a Relu at most,
    into one QuantizeLinear and nowhere else; a transposed one never.
    """
    writers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def dequantized(name: str) -> bool:
        return name in writers and writers[name].op_type == "DequantizeLinear"

    def quantized_next(node: onnx.NodeProto) -> bool:
        following = readers.get(node.output[0], [])
        if [reader.op_type for reader in following] == ["Relu"]:
            following = readers.get(following[0].output[0], [])
        return [reader.op_type for reader in following] == ["QuantizeLinear"]

    layers = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose") and dequantized(node.input[1])]
    integer = {node.input[1] for node in layers if node.op_type == "Conv" and dequantized(node.input[0]) and quantized_next(node)}
    return {node.input[1] for node in layers} - integer
