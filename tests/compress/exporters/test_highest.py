"""The highest value of a column in int8 files: equal to torch's in both runtimes, and not rounded to whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.exporters.highest import round_before_highest
from compress.exporters.onnx import export_onnx, onnx_model
from compress.exporters.openvino import export_openvino
from compress.quantization.nncf_torch import quantize
from compress.runtimes import open_file

NEAR = 0.1  # a few steps of 8 bits, below 0.05 here; what is rounded to whole numbers is off by up to 0.5


class Columns(nn.Module):
    """Features between -0.4 and 6, the highest (or lowest) of each column, two columns together, and a layer that reads them."""

    def __init__(self, taken: str = "amax") -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Hardswish())
        self.taken = taken
        self.pool = nn.MaxPool2d((1, 2))
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, images):
        column = getattr(self.first(images), self.taken)(2, keepdim=True)
        return {"map": self.last(self.pool(column)), "column": self.pool(column)}


def int8(taken: str = "amax") -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 24)
    network = Columns(taken).eval()
    return quantize(network, [images], images[:1]), images


@pytest.mark.parametrize("taken", ["amax", "amin"])
@pytest.mark.parametrize(
    ("write", "name", "runtime"),
    [(export_onnx, "model.onnx", "onnxruntime"), (export_onnx, "model.onnx", "openvino"), (export_openvino, "model.xml", "openvino")],
)
def test_files_give_what_torch_gives(tmp_path, taken, write, name, runtime):
    network, images = int8(taken)
    path = write(network, tmp_path / name, images[:1], {"format": 1})
    with torch.no_grad():
        expected = network(images)
    given = open_file(path, threads=1, runtime=runtime).run(images.numpy())
    for key, values in expected.items():
        assert abs(given[key] - values.numpy()).max() < NEAR, key


def test_rounding_comes_first():
    network, images = int8()
    graph = onnx_model(network, images[:1], {"format": 1}).graph
    writers = {name: node for node in graph.node for name in node.output}
    (highest,) = (node for node in graph.node if node.op_type == "ReduceMax")
    assert writers[highest.input[0]].op_type == "DequantizeLinear"


@pytest.mark.parametrize("kept", ["map", "other reader", "step a channel"])
def test_what_cannot_be_rounded_before_stays(kept):
    """The highest values are a map of the network, are read unrounded too, or have a step for each channel."""
    steps = np.ones(4 if kept == "step a channel" else (), np.float32)
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["highest"], axes=[2]),
        helper.make_node("QuantizeLinear", ["highest", "step", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "step", "zero"], ["back"]),
        *([helper.make_node("Relu", ["highest"], ["other"])] if kept == "other reader" else []),
    ]
    maps = [helper.make_tensor_value_info("highest" if kept == "map" else "back", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(steps, "step"), numpy_helper.from_array(np.zeros(steps.shape, np.uint8), "zero")]
    image = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 4, "h", "w"])]
    model = helper.make_model(helper.make_graph(nodes, "columns", image, maps, constants))
    before = model.SerializeToString()
    round_before_highest(model)
    assert model.SerializeToString() == before
