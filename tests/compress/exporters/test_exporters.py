"""Exported files: sizes, structure, equality with torch, and what the check of them catches."""

from __future__ import annotations

import copy
import re
from collections import Counter

import numpy as np
import pytest
import torch
import torch_pruning
from onnx import TensorProto, numpy_helper
from torch import nn

from compress.errors import CompressError, told_apart
from compress.exporters.onnx import export_onnx, onnx_model
from compress.exporters.openvino import export_openvino
from compress.exporters.verify import INT8_TOLERANCE, verify
from compress.models.backbones.resnet import resnet18
from compress.models.layers import conv_bn
from compress.models.necks.fpn import fpn
from compress.models.networks.db import DBNet
from compress.quantization.nncf_torch import plain_state, quantize, without_rounding
from compress.quantization.settings import Quantizers
from compress.runtimes import Runtime, from_network, open_file

pytestmark = pytest.mark.slow

EXPORTS = {"onnx": export_onnx, "xml": export_openvino}


@pytest.fixture(scope="module")
def int8_graph(quantized_detector, batches):
    return onnx_model(quantized_detector, batches[0], {})


@pytest.fixture(scope="module")
def symmetric_detector(detector, batches):
    return quantize(detector, batches[:2], batches[0], ["last"], settings=Quantizers(activations="symmetric"))


class Wide(nn.Module):
    """Enough weights that the graph's text does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, bias=False), nn.BatchNorm2d(128), nn.ReLU()
        )
        self.last = nn.Conv2d(128, 64, 3)

    def forward(self, images):
        return {"map": self.last(self.layers(images)).sigmoid()}


@pytest.fixture(scope="module")
def wide(batches):
    torch.manual_seed(0)
    network = Wide().eval()
    return network, quantize(network, [batches[0][:, :, :24, :24]], batches[0])


def sizes(folder, network, example) -> dict[str, int]:
    export_onnx(network, folder / "m.onnx", example, {})
    export_openvino(network, folder / "m.xml", example, {})
    return {"onnx": (folder / "m.onnx").stat().st_size, "bin": (folder / "m.bin").stat().st_size}


def test_int8_files_are_small(wide, batches, tmp_path):
    before, after = (sizes(tmp_path, network, batches[0]) for network in wide)
    weights = sum(parameter.numel() for parameter in wide[0].parameters() if parameter.dim() == 4)
    assert before["onnx"] > 4 * weights
    assert before["bin"] > 4 * weights
    assert after["onnx"] < 0.45 * before["onnx"]
    assert after["bin"] < 0.40 * before["bin"]


@pytest.mark.parametrize("kind", EXPORTS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_int8_files_compute_what_torch_simulates(detector, quantized_detector, symmetric_detector, batches, tmp_path, kind, symmetric):
    network = symmetric_detector if symmetric else quantized_detector
    runtime = open_file(EXPORTS[kind](network, tmp_path / f"m.{kind}", batches[0], {}), threads=1)
    assert runtime.precision == "int8"
    figures = verify(runtime, network, batches)["probability"]
    expected, simulated = from_network(detector, 1).run(batches[0].numpy()), from_network(network, 1).run(batches[0].numpy())
    assert expected["probability"].std() > 0.2
    # The file is nearer to its simulation than the float network is.
    assert figures["mean"] < np.abs(expected["probability"] - simulated["probability"]).mean()


def test_onnx_as_written_is_the_simulation(quantized_detector, int8_graph, batches):
    """Without the runtime's own rewriting the graph differs by float rounding alone: scales and zero points are right."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(int8_graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    check_is_simulation(quantized_detector, batches, lambda images: session.run(None, {"images": images})[0])


def test_openvino_as_written_is_the_simulation(quantized_detector, batches, tmp_path):
    import openvino

    core = openvino.Core()
    path = export_openvino(quantized_detector, tmp_path / "m.xml", batches[0], {})
    settings = {"LP_TRANSFORMS_MODE": "NO", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    check_is_simulation(quantized_detector, batches, lambda images: compiled(images)[0])


def check_is_simulation(network, batches, run):
    expected = np.stack([from_network(network, 1).run(images.numpy())["probability"] for images in batches])
    difference = np.abs(np.stack([run(images.numpy()) for images in batches]) - expected)
    assert np.median(difference) < 1e-6
    assert difference.mean() < 1e-3


def test_weights_are_stored_as_int8(int8_graph):
    graph = int8_graph.graph
    stored = {constant.name: constant for constant in graph.initializer}
    integers = [name for name, constant in stored.items() if constant.data_type == TensorProto.INT8 and len(constant.dims) == 4]
    assert len(integers) == 9
    assert {node.domain for node in graph.node} == {""}
    operators = Counter(node.op_type for node in graph.node)
    assert operators["Identity"] == operators["BatchNormalization"] == 0
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert node.input[0] not in stored, "a float weight is quantized at run time"
            assert stored[node.input[2]].data_type == TensorProto.UINT8
        if node.op_type == "DequantizeLinear" and node.input[0] in integers:
            values, step = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)
            assert step.shape == ((values.shape[axis],) if axis is not None else ())
            assert np.abs(values.astype(int)).max() <= 127
            assert (step > 0).all()
    floats = [name for name, constant in stored.items() if constant.data_type == TensorProto.FLOAT and len(constant.dims) == 4]
    assert floats == ["last.weight"]


@pytest.mark.parametrize("kind", EXPORTS)
def test_exporting_leaves_the_network_alone(detector, quantized_detector, batches, tmp_path, kind):
    for network in (detector, quantized_detector):
        network = copy.deepcopy(network).train()
        network.blocks.eval()
        state = plain_state(network)
        modules = {name: (type(module), module.training) for name, module in network.named_modules()}
        EXPORTS[kind](network, tmp_path / f"m.{kind}", batches[0], {})
        after = plain_state(network)
        assert state.keys() == after.keys()
        assert all(torch.equal(state[name], after[name]) for name in state)
        assert {name: (type(module), module.training) for name, module in network.named_modules()} == modules


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_failed_export_leaves_the_old_file(detector, batches, tmp_path, kind):
    path = EXPORTS[kind](detector, tmp_path / f"m.{kind}", batches[0], {"first": True})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        EXPORTS[kind](detector, path, batches[0], {"not json": object()})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", EXPORTS)
def test_channels_last_networks(detector, batches, tmp_path, kind):
    network = copy.deepcopy(detector).to(memory_format=torch.channels_last)
    runtime = open_file(EXPORTS[kind](network, tmp_path / f"m.{kind}", batches[0], {}), threads=1)
    assert verify(runtime, detector, batches)["probability"]["maximum"] < 2e-5


def distorted(network: nn.Module, change) -> Runtime:
    reference = from_network(network, 1)
    return Runtime("elsewhere", "fp32", 1, {}, lambda images: change(reference.run(images)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps: {"probability": maps["probability"] * (1 - 5e-5)}, "mean"),
        (lambda maps: {"probability": np.where(np.arange(96) == 7, 0.5, maps["probability"])}, "quantile"),
        (lambda maps: {"probability": 8 * maps["probability"] - 4}, r"leaves 0\.\.1"),
        (lambda maps: {"probability": maps["probability"] * np.nan}, "finite"),
        (lambda maps: {"probability": maps["probability"][..., ::2]}, "shape"),
        (lambda maps: {"map": maps["probability"]}, "instead of"),
    ],
)
def test_verify_catches(detector, batches, change, message):
    with pytest.raises(CompressError, match=message):
        verify(distorted(detector, change), detector, batches)


class Saturated(nn.Module):
    """Its map is 0 or 1 in places, exactly."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images):
        return {"probability": (20 * self.network(images)["probability"] - 10).clamp(0, 1)}


def test_verify_lets_the_last_bits_leave_the_range_and_tells_what_leaves_it_further(detector, batches):
    network, last_bit = Saturated(detector), np.float32(2**-23)

    def beyond(amount):
        return lambda maps: {"probability": np.where(maps["probability"] == 1, 1 + amount, maps["probability"] - amount).astype(np.float32)}

    figures = verify(distorted(network, beyond(last_bit)), network, batches)["probability"]
    assert 0 < figures["maximum"] <= 2 * last_bit
    with pytest.raises(CompressError, match=r"leaves 0\.\.1 \(-5e-06\.\.1\.00001\)"):
        verify(distorted(network, beyond(5e-6)), network, batches)


@pytest.mark.parametrize(
    ("value", "bound", "text"),
    [
        (0.021, 0.02, "0.021"),
        (0.0200001, 0.02, "0.0200001"),
        (1.00000012, 1.0, "1.0000001"),
        (5.0, 1.0, "5"),
        (1.0, 1.0, "1"),
        (np.nan, 1.0, "nan"),
    ],
)
def test_numbers_are_told_with_the_digits_that_matter(value, bound, text):
    assert told_apart(value, bound) == text


def test_verify_measures(detector, batches):
    def change(maps):
        return {"probability": np.clip(maps["probability"] + 0.25 * (np.arange(96) == 7), 0, 1)}

    figures = verify(distorted(detector, change), detector, batches, tolerance=0.3, mean_tolerance=0.1)["probability"]
    assert figures["maximum"] == pytest.approx(0.25)
    assert 0 < figures["mean"] <= 0.25 / 96 * 1.001
    assert verify(distorted(detector, dict), detector, batches) == {"probability": {"maximum": 0, "quantile": 0, "mean": 0}}


class Offsets(nn.Module):
    """A detector whose map holds pixels instead of probabilities."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, images):
        return {"offsets": self.scale * (self.network(images)["probability"] - 0.5)}


def test_verify_measures_large_values_by_the_largest(detector, batches):
    def change(maps):
        return {"offsets": maps["offsets"] + 2e-4}

    with pytest.raises(CompressError, match="'offsets'"):
        verify(distorted(Offsets(detector, 1.0), change), Offsets(detector, 1.0), batches)
    network = Offsets(detector, 1000.0)
    with torch.inference_mode():
        largest = max(float(network(batch)["offsets"].abs().max()) for batch in batches)
    assert largest > 50
    verify(distorted(network, change), network, batches)
    with pytest.raises(CompressError, match="'offsets'"):
        verify(distorted(network, lambda maps: {"offsets": maps["offsets"] + 2e-5 * largest}), network, batches)


def test_int8_files_are_given_twice_the_room_on_fewer_than_four_images(quantized_detector, batches):
    """Of one image the cost of quantization may be small by chance."""
    image = batches[0][:1]
    with torch.inference_mode():
        cost = (quantized_detector(image)["probability"] - without_rounding(quantized_detector)(image)["probability"]).abs().mean().item()
    allowed = max(INT8_TOLERANCE[1], 2**0.5 * cost)

    def change(maps):
        """Moved by three halves of that, towards the middle of 0..1."""
        return {"probability": maps["probability"] + 1.5 * allowed * np.where(maps["probability"] < 0.5, 1, -1).astype(np.float32)}

    verify(distorted(quantized_detector, change), quantized_detector, [image] * 3, tolerance=1.0)
    with pytest.raises(CompressError, match="mean of the absolute differences"):
        verify(distorted(quantized_detector, change), quantized_detector, [image] * 4, tolerance=1.0)


def test_verify_wants_images(detector):
    with pytest.raises(CompressError, match="no image"):
        verify(from_network(detector, 1), detector, [])


def test_a_pruned_detector(lively, noise, tmp_path):
    """Odd widths everywhere. A network with fewer layers than MobileNetV3: untrained, a deep one is chaotic, and proves nothing."""
    torch.manual_seed(0)
    features = resnet18()
    network = DBNet(features, fpn(features.channels, 48), 50.0).eval()
    example = torch.randn(1, 3, 64, 64)
    outputs = [network.probability.up2, network.threshold.up2]

    def all_maps(model, images):
        model.training = True
        return list(model(images).values())

    pruner = torch_pruning.pruner.MagnitudePruner(
        network, example, torch_pruning.importance.MagnitudeImportance(), pruning_ratio=0.53, ignored_layers=outputs, forward_fn=all_maps
    )
    pruner.step()
    lively(network, network.probability.up2)
    assert {layer.out_channels % 2 for layer in network.modules() if isinstance(layer, nn.Conv2d)} == {0, 1}
    images = [noise(seed, 1, 3, 64, 64) for seed in range(2)]
    quantized = quantize(network, images, images[0], ["*.up2"])
    for kind, write in EXPORTS.items():
        for model in (network, quantized):
            runtime = open_file(write(model, tmp_path / f"m.{kind}", images[0], {}), threads=1)
            verify(runtime, model, images, **({} if model is quantized else {"tolerance": 1e-3, "mean_tolerance": 1e-4}))


class Pooled(nn.Module):
    """What is joined was measured before the pooling on one side: one quantizer sees two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = conv_bn(3, 8, 3), conv_bn(8, 8, 3)
        self.join, self.last = conv_bn(16, 8), nn.Conv2d(8, 1, 1)

    def forward(self, images):
        x = nn.functional.max_pool2d(self.stem(images), 2)
        return {"probability": self.last(self.join(torch.cat([x, self.conv(x)], 1))).sigmoid()}


def test_a_quantizer_that_runs_at_two_resolutions(tmp_path, batches, lively):
    torch.manual_seed(0)
    network = Pooled()
    quantized = quantize(lively(network, network.last), batches, batches[0], ["last"])
    path = export_onnx(quantized, tmp_path / "model.onnx", batches[0], {})
    verify(open_file(path), quantized, batches)


def test_the_same_weights_give_the_same_openvino_files_whatever_was_made_before(tmp_path, detector, quantized_detector, batches):
    for name, network in (("float", detector), ("int8", quantized_detector)):
        written = []
        for turn in range(2):
            (tmp_path / f"{name}{turn}").mkdir()
            path = export_openvino(network, tmp_path / f"{name}{turn}/model.xml", batches[0], {"precision": name})
            written.append([path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")])
        assert written[0] == written[1]
        text = written[0][0].decode()
        names = re.findall(r'<layer id="\d+" name="([^"]*)"', text)
        assert len(set(names)) == len(names)
