"""TorchScript, torch.export and ncnn files, int8 ONNX as ONNX Runtime likes it, and what is found inside files."""

from __future__ import annotations

import copy
import itertools
import zipfile

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compress.checkpoint import fresh
from compress.errors import CompressError
from compress.exporters.inspect import inspect, words
from compress.exporters.ncnn import UNSUPPORTED, named
from compress.exporters.onnx import export_onnx, float_weights, onnx_model
from compress.exporters.openvino import export_openvino
from compress.exporters.torch_export import export_torch_export
from compress.exporters.torchscript import export_torchscript
from compress.exporters.verify import enough
from compress.exporters.write import write_files
from compress.quantization.nncf_torch import plain_state
from compress.runtimes import open_file
from compress.runtimes.onnxruntime import session_options
from compress.tasks.detection import EvaluateDetection as Evaluate

pytestmark = pytest.mark.slow

FLOAT_FORMATS = {"torchscript": export_torchscript, "pt2": export_torch_export}


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory, quantized_detector, batches):
    return export_onnx(quantized_detector, tmp_path_factory.mktemp("int8") / "m.onnx", batches[0], {})


@pytest.fixture(scope="module")
def tiny_model():
    torch.manual_seed(0)
    return fresh({"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 32}}, Evaluate(short_side=64))


def test_a_program_of_torch_export_takes_any_batch_height_and_width(detector, batches, tmp_path):
    program = export_torch_export(detector, tmp_path / "m.pt2", batches[0][:1], {"größe": 1})
    for shape in [(1, 3, 64, 96), (3, 3, 96, 64)]:
        images = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
        with torch.no_grad():
            expected = detector(images)["probability"].numpy()
        np.testing.assert_allclose(program.run(images.numpy())["probability"], expected, atol=2e-5)
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("extra/compress"))
        assert archive.read(name).decode() == '{"gr\\u00f6\\u00dfe": 1, "precision": "fp32"}'


@pytest.mark.parametrize("kind", FLOAT_FORMATS)
def test_exporting_leaves_the_network_alone(detector, batches, tmp_path, kind):
    network = copy.deepcopy(detector).train()
    state = plain_state(network)
    FLOAT_FORMATS[kind](network, tmp_path / f"m.{kind}", batches[0], {})
    after = plain_state(network)
    assert state.keys() == after.keys()
    assert all(torch.equal(state[name], after[name]) for name in state)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("kind", FLOAT_FORMATS)
def test_a_failed_export_leaves_the_old_file(detector, batches, tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        FLOAT_FORMATS[kind](detector, path, batches[0], {"not json": object()})
    with pytest.raises(RuntimeError):
        FLOAT_FORMATS[kind](detector, path, batches[0][:, :1], {})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {path.name: b"old"}


def test_every_format_is_checked_and_says_which_model_it_holds(tiny_model, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    written = list(write_files(tiny_model, ["torchscript", "torch_export"], tmp_path, [image]))
    assert [(name, path) for name, path, _ in written] == [
        ("torchscript", "torchscript/model.torchscript"),
        ("torch_export", "torch_export/model.pt2"),
    ]
    assert all(facts["difference"]["probability"]["maximum"] < 1e-5 for _, _, facts in written)
    description = open_file(tmp_path / "torchscript/model.torchscript").description
    assert description == {**tiny_model.description(), "precision": "fp32"}


@pytest.mark.parametrize("name", ["torchscript", "torch_export", "ncnn"])
def test_an_int8_model_is_refused_by_formats_that_cannot_hold_it(tiny_model, tmp_path, name):
    quantized = tiny_model.with_network(tiny_model.network, "{}")
    with pytest.raises(CompressError, match=f"Format {name} cannot hold an int8 model"):
        list(write_files(quantized, ["onnx", name], tmp_path, []))
    assert not any(tmp_path.iterdir())


def test_ncnn_blobs_are_called_as_the_maps_are():
    graph = "7767517\n2 2\nInput in0 0 1 in0\nSigmoid main0 1 1 in0 out0 0=1\n"
    assert named(graph, {"in0": "images", "out0": "probability"}) == (
        "7767517\n2 2\nInput images 0 1 images\nSigmoid main0 1 1 images probability 0=1\n"
    )
    assert UNSUPPORTED.search(graph) is None
    assert UNSUPPORTED.search(graph + "aten::erfinv x 1 1 a b\n").group() == "aten::erfinv"


def test_ncnn_as_converted(detector, batches, tmp_path):
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    from compress.exporters.ncnn import export_ncnn

    before = plain_state(detector)
    path = export_ncnn(detector, tmp_path / "m.ncnn.param", batches[0][:1], {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.ncnn.bin", "m.ncnn.param"]
    weights = sum(parameter.numel() for name, parameter in detector.named_parameters() if parameter.dim() == 4 and "aside" not in name)
    assert 4 * weights <= path.with_suffix(".bin").stat().st_size < 4.5 * weights
    assert all(torch.equal(before[name], tensor) for name, tensor in plain_state(detector).items())


def run_session(model_bytes: bytes, images: np.ndarray, *, optimized: bool) -> np.ndarray:
    import onnxruntime

    options = session_options(1)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def test_spelt_out_weights_are_the_same_numbers(quantized_detector, int8_file, batches):
    plain = onnx_model(quantized_detector, batches[0], {})
    assert float_weights(plain), "nothing was spelt out, so nothing is tested"
    for images in batches:
        given, expected = (
            run_session(data, images.numpy(), optimized=False) for data in (int8_file.read_bytes(), plain.SerializeToString())
        )
        np.testing.assert_array_equal(given, expected)


def optimized_graph(path, tmp_path):
    import onnxruntime

    options = session_options(1)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(tmp_path / "optimized.onnx").graph


def test_onnxruntime_dequantizes_no_weight_at_each_call(quantized_detector, int8_file, batches, tmp_path):
    def dequantized_weights(path):
        graph = optimized_graph(path, tmp_path)
        stored = {constant.name for constant in graph.initializer}
        return sum(node.op_type == "DequantizeLinear" and node.input[0] in stored for node in graph.node)

    plain = tmp_path / "plain.onnx"
    plain.write_bytes(onnx_model(quantized_detector, batches[0], {}).SerializeToString())
    assert dequantized_weights(plain) == len(float_weights(onnx.load(plain)))
    assert dequantized_weights(int8_file) == 0


def executed_layers(network: nn.Module) -> list[nn.Module]:
    return [
        module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and "aside" not in name
    ]


def test_integers_are_counted_in_what_onnxruntime_executes(detector, quantized_detector, int8_file, batches, tmp_path):
    found = inspect(int8_file)
    layers = executed_layers(detector)
    in_integers = len(layers) - 1 - len(float_weights(onnx_model(quantized_detector, batches[0], {})))
    assert (found["runtime"], found["convs"], found["integer_convs"]) == ("onnxruntime", len(layers), in_integers)
    assert 0 < in_integers < len(layers)
    assert found["weight_bytes"]["int8"] == sum(layer.weight.numel() for layer in layers) - detector.last.weight.numel()
    in_float = inspect(export_onnx(detector, tmp_path / "f.onnx", batches[0], {}))
    assert (in_float["integer_convs"], in_float["convs"]) == (0, len(layers))
    assert in_float["weight_bytes"].keys() == {"float32"}
    assert words(found).startswith(f"{in_integers} of {len(layers)} convolutions run as integers in onnxruntime; weights: ")


def test_integers_are_counted_in_what_openvino_executes(detector, quantized_detector, int8_file, batches, tmp_path):
    path = export_openvino(quantized_detector, tmp_path / "m.xml", batches[0], {})
    found = inspect(path)
    layers = executed_layers(detector)
    assert (found["runtime"], found["convs"]) == ("openvino", len(layers))
    assert 0 < found["integer_convs"] <= len(layers) - 1
    assert found["weight_bytes"]["int8"] == sum(layer.weight.numel() for layer in layers) - detector.last.weight.numel()
    assert inspect(int8_file, "openvino")["integer_convs"] == found["integer_convs"]
    in_float = inspect(export_openvino(detector, tmp_path / "f.xml", batches[0], {}))
    assert (in_float["integer_convs"], in_float["convs"]) == (0, len(layers))


def test_files_without_integers_have_nothing_to_inspect(tmp_path):
    (tmp_path / "m.torchscript").touch()
    assert inspect(tmp_path / "m.torchscript") is None


@pytest.mark.parametrize(
    ("shape", "count", "taken"),
    [((736, 1280), None, 8), ((192, 192), None, 8), ((48, 320), None, 18), ((32, 100), None, 64), ((32, 100), 3, 3)],
)
def test_files_are_compared_on_more_images_where_these_are_small(shape, count, taken):
    image = np.zeros((*shape, 3), np.uint8)
    assert len(enough(itertools.repeat(image), count)) == taken
    assert len(enough([image] * 2)) == 2
