"""What a runtime makes of an exported file: how many convolutions run as integers, and how many bytes of weights there are of each type."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compress.exporters.float_layers import KINDS
from compress.runtimes import runtime_of
from compress.runtimes.runtime import telling

# Operators of ONNX Runtime's optimized graphs, of all its domains.
INTEGER_CONVS = ("QLinearConv", "ConvInteger")
FLOAT_CONVS = ("Conv", "ConvTranspose", "FusedConv", "NhwcConv", "NhwcFusedConv")
WEIGHT_TYPES = ("int8", "float16", "float32")


def inspect(path: Path, runtime: str | None = None) -> dict[str, Any] | None:
    """Look into an .onnx or .xml file as its own runtime, or another one (`onnxruntime`, `openvino`), prepares it.

    Returns `runtime`; `convs`, the number of convolutions and transposed ones; `integer_convs`, how many of them compute in 8-bit
    integers; `recurrent`, the number of recurrent layers, which compute in float, where there are some; `weight_bytes`, element type ->
    bytes stored in the file. None for files and runtimes without integers.
    """
    if path.suffix not in (".onnx", ".xml"):
        return None
    name = runtime_of(path, runtime)
    if name == "onnxruntime":
        kinds, weights = onnxruntime_convs(path), onnx_weights(path)
    elif name == "openvino":
        kinds, weights = openvino_convs(path), openvino_weights(path)
    else:
        return None
    counted, recurrent = Counter(kinds), recurrent_layers(path)
    told = {"recurrent": recurrent} if recurrent else {}
    return {"runtime": name, "integer_convs": counted[True], "convs": counted.total(), **told, "weight_bytes": weights}


def words(found: dict[str, Any]) -> str:
    """`25 of 63 convolutions run as integers in onnxruntime, 2 recurrent layers in float; weights: 83.2 kB int8, 35.4 kB float32`."""
    weights = ", ".join(f"{size / 1e3:.1f} kB {kind}" for kind, size in found["weight_bytes"].items())
    layers = found.get("recurrent", 0)
    recurrent = f", {layers} recurrent layer{'s' * (layers != 1)} in float" if layers else ""
    return f"{found['integer_convs']} of {found['convs']} convolutions run as integers in {found['runtime']}{recurrent}; weights: {weights}"


def onnxruntime_convs(path: Path) -> list[bool]:
    """Of every convolution in the graph that ONNX Runtime really executes, whether it is one of integers."""
    import onnx

    from compress.runtimes.onnxruntime import open_session, session_options

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = session_options(1)
        options.optimized_model_filepath = str(optimized)
        open_session(path, options)
        nodes = onnx.load(optimized).graph.node
    return [node.op_type in INTEGER_CONVS for node in nodes if node.op_type in INTEGER_CONVS + FLOAT_CONVS]


def onnx_weights(path: Path) -> dict[str, int]:
    """Bytes of the constants of an ONNX file by element type."""
    import onnx

    with telling(f"{path} cannot be read as an ONNX model; export it again"):
        constants = onnx.load(path).graph.initializer
        return by_type((str(array.dtype), array.nbytes) for array in map(onnx.numpy_helper.to_array, constants))


def openvino_convs(path: Path) -> list[bool]:
    """Of every convolution in the graph that OpenVINO really executes, whether it is one of integers."""
    from compress.runtimes.openvino import read_model

    core, model = read_model(path)
    with telling(f"OpenVINO cannot run {path}; export the model again"):
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return [
        fact["runtimePrecision"].astype(str) in ("i8", "u8")
        for fact in facts
        if fact["layerType"].astype(str) in ("Convolution", "Deconvolution")
    ]


def openvino_weights(path: Path) -> dict[str, int]:
    """Bytes of the constants of a file that OpenVINO reads, by element type."""
    from compress.runtimes.openvino import read_model

    _, model = read_model(path)
    nodes = model.get_ops()
    constants = [node for node in nodes if node.get_type_name() == "Constant"]
    return by_type((str(constant.get_element_type().to_dtype()), constant.get_byte_size()) for constant in constants)


def recurrent_layers(path: Path) -> int:
    """How many LSTMs, GRUs and plain recurrent layers a file has, each direction of its own counted once."""
    if path.suffix == ".onnx":
        import onnx

        with telling(f"{path} cannot be read as an ONNX model; export it again"):
            return sum(node.op_type in KINDS for node in onnx.load(path).graph.node)
    from compress.runtimes.openvino import read_model

    _, model = read_model(path)
    return sum(node.get_type_name().removesuffix("Sequence") in KINDS for node in model.get_ops())


def by_type(sizes: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Sums for the types that weights have; whole numbers of 64 bits are shapes."""
    totals: Counter[str] = Counter()
    for kind, size in sizes:
        totals[kind] += size
    return {kind: totals[kind] for kind in WEIGHT_TYPES if totals[kind]}
