"""Transposed convolutions written as convolutions and a layout: which, and that nothing changes but the time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.exporters.onnx import onnx_model
from compress.exporters.openvino import export_openvino
from compress.exporters.upsampling import convolve_then_lay_out
from compress.quantization.nncf_torch import quantize
from compress.runtimes import open_file


class Up(nn.Module):
    """Three that can be rewritten, the second of them the end of the network's map, and one whose windows overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(6, 5, 2, 2), nn.BatchNorm2d(5), nn.ReLU())
        self.end = nn.ConvTranspose2d(5, 1, 2, 2)
        self.third = nn.ConvTranspose2d(5, 4, 3, 3, bias=False)
        self.overlapping = nn.ConvTranspose2d(4, 2, 4, 2, padding=1)

    def forward(self, images):
        x = self.first(images)
        return {"map": self.end(x).sigmoid(), "other": self.overlapping(self.third(x))}


@pytest.fixture(scope="module")
def float_and_int8():
    torch.manual_seed(0)
    network = Up().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
    images = [torch.randn(1, 3, 16, 24) for _ in range(2)]
    return network, quantize(network, images, images[0])


def run(graph, images):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})


@pytest.mark.parametrize("which", [0, 1])
def test_the_graph_computes_the_same(float_and_int8, which):
    import onnx

    images = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    graph = onnx_model(float_and_int8[which], images[:1], {})
    expected = run(graph, images)
    convolve_then_lay_out(graph)
    onnx.checker.check_model(graph, full_check=True)
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("DepthToSpace") == 3
    assert kinds.count("ConvTranspose") == 1
    # What follows pointwise is computed on the narrow map: the sigmoid, the network's last, is followed by the layout.
    assert graph.graph.node[kinds.index("Sigmoid") + 1].op_type == "DepthToSpace"
    stored, read = {constant.name for constant in graph.graph.initializer}, {name for node in graph.graph.node for name in node.input}
    assert stored <= read
    for one, other in zip(expected, run(graph, images), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(torch.from_numpy(other), torch.from_numpy(one), rtol=0, atol=1e-5)


def test_a_constant_that_others_read_too_is_left_to_them(float_and_int8):
    images = torch.randn(1, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    graph = onnx_model(float_and_int8[0], images, {})
    expected = run(graph, images)[0]
    upward = [node for node in graph.graph.node if node.op_type == "ConvTranspose"]
    bias = upward[0].input[2]
    reader = graph.graph.node.add(op_type="Identity", input=[bias], output=["seen"])
    graph.graph.output.add(name="seen").type.tensor_type.elem_type = 1
    convolve_then_lay_out(graph)
    assert reader.input[0] == bias
    given = run(graph, images)
    torch.testing.assert_close(torch.from_numpy(given[0]), torch.from_numpy(expected), rtol=0, atol=1e-5)
    assert given[-1].shape == (5,)


def test_openvino_files_hold_it(float_and_int8, tmp_path):
    network = float_and_int8[0]
    images = torch.randn(1, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    given = open_file(export_openvino(network, tmp_path / "m.xml", images, {}), threads=1).run(images.numpy())
    assert (tmp_path / "m.xml").read_text().count('type="DepthToSpace"') == 3
    with torch.no_grad():
        expected = network(images)
    for name, tensor in expected.items():
        torch.testing.assert_close(torch.from_numpy(given[name]), tensor, rtol=0, atol=1e-5)


def test_one_that_stays_float_in_an_int8_file_is_rewritten_whatever_its_size(tmp_path):
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 160, 3, padding=1), nn.ReLU())
            self.last = nn.ConvTranspose2d(160, 1, 2, 2)

        def forward(self, images):
            return {"map": self.last(self.first(images)).sigmoid()}

    torch.manual_seed(0)
    images = torch.randn(1, 3, 12, 20)
    network = quantize(Wide().eval(), [images], images, ["last"])
    export_openvino(network, tmp_path / "m.xml", images, {})
    text = (tmp_path / "m.xml").read_text()
    assert (text.count('type="DepthToSpace"'), text.count('type="ConvolutionBackpropData"')) == (1, 0)
    given = open_file(tmp_path / "m.xml", threads=1).run(images.numpy())["map"]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(given), network(images)["map"], rtol=0, atol=0.02)
