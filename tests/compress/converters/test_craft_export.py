"""CRAFT's export with random weights and few channels: recognised, equal to ONNX Runtime, its norms back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.checkpoint import load, save
from compress.convert import TOLERANCE, convert
from compress.data.detection.synthetic import draw
from compress.errors import CompressError
from compress.predictor import open_predictor


class Graph:
    """Nodes and weights of an export by torch, batch norms folded."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.widths = {"image": 3}

    def add(self, kind: str, inputs: list[str], width: int, **attributes: Any) -> str:
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        self.widths[output] = width
        return output

    def weight(self, array: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array, np.float32), f"weight_{len(self.weights)}"))
        return self.weights[-1].name

    def conv(self, x: str, width: int, kernel: int, dilation: int = 1, relu: bool = True) -> str:
        inputs = self.widths[x]
        names = [
            self.weight(self.rng.normal(0, (2 / (inputs * kernel**2)) ** 0.5, (width, inputs, kernel, kernel))),
            self.weight(self.rng.normal(0, 0.2, width)),
        ]
        pads = [dilation * (kernel // 2)] * 4
        y = self.add("Conv", [x, *names], width, kernel_shape=[kernel] * 2, pads=pads, dilations=[dilation] * 2, strides=[1, 1], group=1)
        return self.add("Relu", [y], width) if relu else y

    def pool(self, x: str, kernel: int, stride: int) -> str:
        return self.add("MaxPool", [x], self.widths[x], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 3] * 4)

    def join(self, x: str, skip: str, enlarge: bool = True) -> str:
        if enlarge:
            options = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            x = self.add("Resize", [x, "", self.weight([1, 1, 2, 2])], self.widths[x], **options)
        return self.add("Concat", [x, skip], self.widths[x] + self.widths[skip], axis=1)


def export(folder: Path, act: bool = True) -> Path:
    """`craft.onnx` in `folder`. act: whether there is a ReLU between the last two layers."""
    graph, x, taps = Graph(), "image", {}
    for place, (width, depth) in enumerate(((4, 2), (6, 2), (8, 3), (10, 3), (12, 2))):
        x = graph.pool(x, 2, 2) if place else x
        for number in range(depth):
            x = graph.conv(x, width, 3, relu=(place, number) != (4, 1))
            taps[place, number] = x
    far = graph.conv(graph.conv(graph.pool(x, 3, 1), 24, 3, 6, relu=False), 24, 1, relu=False)
    y = graph.join(far, x, enlarge=False)
    for skip, width in ((taps[3, 1], 6), (taps[2, 1], 5), (taps[1, 1], 4), (None, 3)):
        y = graph.conv(graph.conv(y, 2 * width, 1), width, 3)
        y = graph.join(y, skip) if skip else y
    for width, kernel in ((3, 3), (3, 3), (5, 3)):
        y = graph.conv(y, width, kernel)
    y = graph.conv(graph.conv(y, 5, 1, relu=act), 2, 1, relu=False)
    source = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])
    outputs = [helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 2, "a", "b"])]
    made = helper.make_graph(graph.nodes, "craft", [source], outputs, graph.weights)
    path = folder / "craft.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [draw(0, "val", index, 128)[1] for index in range(2)]


def expected(path: Path, image: np.ndarray) -> np.ndarray:
    """The file's maps of an RGB image, normalised by ImageNet's constants."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    normalised = (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return session.run(None, {"image": normalised.astype(np.float32).transpose(2, 0, 1)[None]})[0]


def test_a_generated_export(tmp_path, images) -> None:
    path = export(tmp_path)
    converted = convert(path, images)
    assert converted.family.title == "CRAFT"
    assert (converted.unused, converted.fresh) == ([], [])
    assert set(converted.differences) == {"region_scores", "affinity_scores"}
    assert all(largest <= TOLERANCE for largest, _ in converted.differences.values())
    theirs = expected(path, images[0]).clip(0, 1)
    assert theirs.std((2, 3)).min() > 0.01  # a constant map would prove nothing
    save(converted.model, tmp_path / "out")
    predictor = open_predictor(tmp_path / "out")
    (ours,) = predictor.shown_as(predictor.evaluate.model_copy(update={"short_side": 128})).outputs(images[:1])
    np.testing.assert_allclose(np.concatenate([ours["region"], ours["affinity"]], 1), theirs, atol=TOLERANCE)


def test_norms_are_back_with_the_statistics_of_the_images(tmp_path, images) -> None:
    """In training mode, on the very images, norms use the statistics that they have: the network computes the same."""
    converted = convert(export(tmp_path), images)
    save(converted.model, tmp_path / "out")
    network = load(tmp_path / "out").network
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 12 + 8
    wanted = converted.model.algorithm.input
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    batch = (batch - torch.tensor(wanted.mean)[:, None, None]) / torch.tensor(wanted.std)[:, None, None]
    with torch.no_grad():
        settled = network.eval()(batch)
        trained = network.train()(batch)
    for name, maps in settled.items():
        torch.testing.assert_close(trained[name], maps, rtol=1e-3, atol=1e-3)
    assert min(float(norm.weight.detach().max()) for norm in norms) > 1e-2


def test_a_graph_that_computes_something_else_is_refused(tmp_path, images) -> None:
    with pytest.raises(CompressError, match="differs by up to"):
        convert(export(tmp_path, act=False), images)
