"""How large the files of a pruned DB of realistic size are, in int8 against fp32."""

from __future__ import annotations

import onnx
import pytest
import torch
import torch_pruning

from compress.checkpoint import fresh
from compress.exporters.onnx import export_onnx, onnx_model
from compress.exporters.openvino import export_openvino
from compress.quantization.nncf_torch import quantize
from compress.runtimes import from_network, open_file
from compress.tasks.detection import EvaluateDetection as Evaluate

pytestmark = pytest.mark.slow

CONFIG = {"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 96}}


def all_maps(network, images):
    network.training = True
    return list(network(images).values())


@pytest.fixture(scope="module")
def files(tmp_path_factory, noise_images):
    """Precision -> the network, its .onnx and its .xml: DB with MobileNetV3, 0.6 of all channels removed, random weights."""
    torch.manual_seed(0)
    model = fresh(CONFIG, Evaluate())
    network, example = model.network.eval(), noise_images[0]
    maps = [network.probability.up2, network.threshold.up2]
    importance = torch_pruning.importance.MagnitudeImportance()
    torch_pruning.pruner.MagnitudePruner(
        network, example, importance, pruning_ratio=0.6, ignored_layers=maps, round_to=8, forward_fn=all_maps
    ).step()
    network.eval()
    networks = {"fp32": network, "int8": quantize(network, noise_images, example, model.algorithm.kept_layers)}
    folder = tmp_path_factory.mktemp("files")
    return {
        name: (
            made,
            export_onnx(made, folder / f"{name}.onnx", example, model.description()),
            export_openvino(made, folder / f"{name}.xml", example, model.description()),
        )
        for name, made in networks.items()
    }


@pytest.fixture(scope="module")
def noise_images():
    return [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def test_an_int8_onnx_file_is_under_0_45_of_the_fp32_one(files):
    sizes = {name: path.stat().st_size for name, (_, path, _) in files.items()}
    print(f"ONNX: {sizes}, {sizes['int8'] / sizes['fp32']:.3f}")
    assert sizes["fp32"] > 300_000
    assert sizes["int8"] < 0.45 * sizes["fp32"]


def test_int8_openvino_weights_are_under_0_40_of_the_fp32_ones_and_the_graph_does_not_eat_that_up(files):
    sizes = {
        name: (path.with_suffix(".bin").stat().st_size, path.with_suffix(".xml").stat().st_size) for name, (_, _, path) in files.items()
    }
    print(f"OpenVINO (.bin, .xml): {sizes}, {sizes['int8'][0] / sizes['fp32'][0]:.3f}")
    assert sizes["fp32"][0] > 300_000
    assert sizes["int8"][0] < 0.40 * sizes["fp32"][0]
    assert sum(sizes["int8"]) < sum(sizes["fp32"])


def test_openvino_reads_each_activation_as_one_rounding(files):
    import openvino

    kinds = [node.get_type_name() for node in openvino.Core().read_model(files["int8"][2]).get_ops()]
    written = [node.op_type for node in onnx.load(files["int8"][1]).graph.node]
    assert kinds.count("FakeQuantize") == written.count("QuantizeLinear") > 50
    assert kinds.count("Subtract") == 0
    # What is left converts int8 weights to float, those of layers that run in float by a Cast.
    assert kinds.count("Convert") == written.count("DequantizeLinear") - written.count("QuantizeLinear") + written.count("Cast")


def test_attributes_left_out_are_the_defaults(files, noise_images):
    """Every layer computes with what it was given: the file's maps are the network's, and nothing at its default is said."""
    network, path, _ = files["fp32"]
    expected = from_network(network, 1).run(noise_images[0].numpy())["probability"]
    given = open_file(path, threads=1).run(noise_images[0].numpy())["probability"]
    assert abs(given - expected).max() < 1e-4
    layers = [node for node in onnx_model(network, noise_images[0], {}).graph.node if node.op_type in ("Conv", "ConvTranspose")]
    told = {attribute.name: set() for node in layers for attribute in node.attribute}
    for node in layers:
        assert node.name
        for attribute in node.attribute:
            told[attribute.name].add(tuple(attribute.ints) or attribute.i)
    assert (1, 1) in told["kernel_shape"]
    assert (2, 2) in told["strides"]
    assert not {(1, 1), 1} & told["strides"] | {(0, 0, 0, 0)} & told["pads"] | {1} & told["group"] | {(1, 1)} & told.get("dilations", set())
