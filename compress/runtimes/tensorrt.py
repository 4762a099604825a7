"""TensorRT on an NVIDIA GPU, from an exported .onnx file.

Written against the documented Python API of TensorRT 10 and 11 (https://docs.nvidia.com/deeplearning/tensorrt, "Python API" and
"Working with quantized types"); no engine has been built with it yet. What it does to the graph is tested in ONNX Runtime.

The network is strongly typed, as TensorRT 11 wants it: the types in the ONNX graph decide, so 16 bits and the kind of integers are
put into the graph in memory before it is parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.errors import CompressError
from compress.runtimes.runtime import Runtime, available_threads, read_description

if TYPE_CHECKING:
    import onnx

# Smallest, likeliest and largest (B, H, W) that the engine takes.
SHAPES = ((1, 32, 32), (1, 736, 1280), (16, 2048, 2048))
SIGNED_ZERO, SIGNED_MAX = 128, 127


def open_tensorrt(path: Path, threads: int | None, precision: str | None) -> Runtime:
    """See :func:`compress.runtimes.open_file`; precision is "f32" or "fp16", the latter for float files alone.

    TensorRT's integers are signed and symmetric. An activation that never goes below zero has 8 bits in the file and 7 here, so an
    int8 file's maps differ a little from those in other runtimes.
    """
    if precision not in (None, "f32", "fp16"):
        raise CompressError(f"TensorRT is run in 'f32' or 'fp16' here, not in '{precision}'.")
    try:
        import tensorrt
    except ImportError:
        raise CompressError(
            f"{path} in TensorRT needs the package tensorrt, which is not installed; run `pip install tensorrt` on a machine with "
            "an NVIDIA GPU."
        ) from None
    import torch

    if not torch.cuda.is_available():
        raise CompressError(f"{path} in TensorRT needs an NVIDIA GPU that torch can use, and there is none here.")
    import onnx

    model = onnx.load(path)
    text = next((entry.value for entry in model.metadata_props if entry.key == "compress"), None)
    description = read_description(text, path)
    held = description["precision"]
    if held == "int8":
        if precision == "fp16":
            raise CompressError(f"{path} holds int8 weights; leave the precision out, or give the float file for 'fp16'.")
        use_signed(model)
    elif precision == "fp16":
        use_half(model)
    engine = build(tensorrt, model, path)
    shown = "fp16" if precision == "fp16" else held
    return Runtime("tensorrt", shown, available_threads(threads), description, runner(tensorrt, engine))


def use_signed(model: onnx.ModelProto) -> None:
    """Rewrite, in place, unsigned activations as the signed, symmetric int8 that TensorRT computes with.

    A zero point of 128 moves to 0 and the step stays; any other grid is replaced by the symmetric one of the same largest value.
    """
    from onnx import numpy_helper

    stored = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3 or stored[node.input[2]].dtype != np.uint8:
            continue
        step, zero = (stored[name] for name in node.input[1:3])
        largest = max(255 - int(zero), int(zero))
        wider = step if zero == SIGNED_ZERO else (step * np.float32(largest / SIGNED_MAX)).astype(np.float32)
        # Constants of their own: exporters let activations share a zero point, or a step, that others keep.
        names = [f"{node.input[1]}.{node.input[2]}.{part}" for part in ("step", "zero")]
        for name, values in zip(names, (wider, np.zeros_like(zero, np.int8)), strict=True):
            if name not in stored:
                model.graph.initializer.append(numpy_helper.from_array(values, name))
                stored[name] = values
        node.input[1:3] = names


def use_half(model: onnx.ModelProto) -> None:
    """Turn a float32 graph into float16 in place; its inputs and outputs stay float32.

    Scales of a Resize stay float32, as ONNX wants them.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    kept = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
    for constant in graph.initializer:
        if constant.data_type == TensorProto.FLOAT and constant.name not in kept:
            constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float16), constant.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.t.data_type == TensorProto.FLOAT and node.output[0] not in kept:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))
    sources, results = {value.name for value in graph.input}, {value.name for value in graph.output}
    for node in graph.node:
        node.input[:] = [f"{name}_half" if name in sources or name in results else name for name in node.input]
        node.output[:] = [f"{name}_half" if name in results else name for name in node.output]
    before = [helper.make_node("Cast", [name], [f"{name}_half"], to=TensorProto.FLOAT16) for name in sorted(sources)]
    after = [helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT) for name in sorted(results)]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def build(tensorrt: Any, model: onnx.ModelProto, path: Path) -> Any:
    """The engine for this GPU; takes a minute or so."""
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        raise CompressError(f"TensorRT cannot read {path} ({parser.get_error(0)}).")
    profile = builder.create_optimization_profile()
    source = network.get_input(0)
    profile.set_shape(source.name, *((batch, source.shape[1], height, width) for batch, height, width in SHAPES))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CompressError(f"TensorRT cannot build an engine of {path} for this GPU.")
    return tensorrt.Runtime(logger).deserialize_cuda_engine(plan)


def runner(tensorrt: Any, engine: Any) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Arrays in and out of an engine, copies to and from the GPU included."""
    import torch

    context = engine.create_execution_context()
    tensors = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
    (source,) = (name for name in tensors if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT)
    stream = torch.cuda.Stream()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.cuda.stream(stream):
            given = torch.from_numpy(np.ascontiguousarray(images)).cuda()
            context.set_input_shape(source, tuple(given.shape))
            outputs = {name: torch.empty(tuple(context.get_tensor_shape(name)), device="cuda") for name in tensors if name != source}
            for name, tensor in {source: given, **outputs}.items():
                context.set_tensor_address(name, tensor.data_ptr())
            context.execute_async_v3(stream.cuda_stream)
            maps = {name: tensor.cpu().numpy() for name, tensor in outputs.items()}
        stream.synchronize()
        return maps

    return run
