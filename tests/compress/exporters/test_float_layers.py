"""Weights of layers in float lie in int8 files in 8 bits: what runtimes compute from them is what torch computes from the rounded ones."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from compress.exporters.float_layers import rounded, store_in_8_bits

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU}


class Steps(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, steps):
        return self.layer(steps)[0]


def test_rows_are_rounded_to_their_own_step():
    weights = np.random.default_rng(0).normal(0, 1, (1, 6, 9)).astype(np.float32) * np.float32([1, 10, 100, 0, 0.1, 1])[None, :, None]
    integers, step = rounded(weights)
    assert integers.dtype == np.int8
    assert step.shape == (1, 6, 1)
    assert (np.abs(integers * step - weights) <= step / 2 + 1e-5).all()
    assert (np.abs(integers).max(2)[0, [0, 1, 2, 4, 5]] == 127).all()
    assert not integers[0, 3].any()


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_a_file_with_integers_computes_with_the_rounded_weights(kind):
    torch.manual_seed(0)
    network = Steps(LAYERS[kind](12, 16, batch_first=True)).eval()
    steps = torch.randn(2, 11, 12)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (steps,), buffer, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)
    model = onnx.load_model_from_string(buffer.getvalue())
    before = len(model.SerializeToString())
    store_in_8_bits(model)
    onnx.checker.check_model(model, full_check=True)
    kinds = {constant.name: constant.data_type for constant in model.graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in kinds.values()) == 2
    assert len(model.SerializeToString()) < before
    with torch.no_grad():
        exact = network(steps).numpy()
        for parameter in network.layer.parameters():
            if parameter.dim() == 2:
                integers, step = rounded(parameter.numpy()[None])
                parameter.copy_(torch.from_numpy((integers * step)[0]))
        expected = network(steps).numpy()
    text = model.SerializeToString()
    by_onnxruntime = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"]).run(None, {"x": steps.numpy()})[0]
    core = openvino.Core()
    by_openvino = core.compile_model(core.read_model(text), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([steps.numpy()])[0]
    for found in (by_onnxruntime, by_openvino):
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert 1e-4 < np.abs(found - exact).max() < 0.02


class Unrolled(nn.Module):
    """The same layers at every step."""

    def __init__(self):
        super().__init__()
        self.table, self.layer, self.last = nn.Embedding(16, 24), nn.Linear(24, 24), nn.Linear(24, 16)

    def forward(self, x):
        found = []
        for _ in range(3):
            x = self.layer(x).tanh() + self.table(self.last(x).argmax(1))
            found.append(x)
        return torch.stack(found, 1)


def test_weights_of_steps_that_are_written_out_lie_in_8_bits_once():
    torch.manual_seed(0)
    network, x = Unrolled().eval(), torch.randn(2, 24)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (x,), buffer, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)
    model = onnx.load_model_from_string(buffer.getvalue())
    store_in_8_bits(model)
    onnx.checker.check_model(model, full_check=True)
    kinds = [tuple(constant.dims) for constant in model.graph.initializer if constant.data_type == onnx.TensorProto.INT8]
    assert sorted(kinds) == [(16, 24), (16, 24), (24, 24)]
    with torch.no_grad():
        exact = network(x).numpy()
        for weight in (network.table.weight, network.layer.weight, network.last.weight):
            integers, step = rounded(weight.numpy())
            weight.copy_(torch.from_numpy(integers * step))
        expected = network(x).numpy()
    found = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 1e-4 < np.abs(found - exact).max() < 0.1


class Layers(nn.Module):
    """Convolutions, one of few weights; a linear layer without bias, which is a matrix on the right in ONNX; a matrix that is no weight."""

    matrix: torch.Tensor

    def __init__(self):
        super().__init__()
        self.small, self.large, self.across = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 3), nn.ConvTranspose2d(32, 24, 2, 2)
        self.last = nn.Linear(24, 40, bias=False)
        self.register_buffer("matrix", torch.randn(40, 30))

    def forward(self, x):
        x = self.across(torch.relu(self.large(torch.relu(self.small(x)))))
        return self.last(x.mean((2, 3))) @ self.matrix


def test_weights_of_layers_in_float_lie_in_8_bits_and_other_constants_as_they_are():
    torch.manual_seed(0)
    network, x = Layers().eval(), torch.randn(2, 3, 9, 9)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (x,), buffer, input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)
    model = onnx.load_model_from_string(buffer.getvalue())
    store_in_8_bits(model, exact={"matrix"})
    onnx.checker.check_model(model, full_check=True)
    kinds = {tuple(constant.dims): constant.data_type for constant in model.graph.initializer if len(constant.dims) > 1}
    integers = {dims for dims, kind in kinds.items() if kind == onnx.TensorProto.INT8}
    assert integers == {(32, 16, 3, 3), (32, 24, 2, 2), (24, 40)}
    assert kinds[16, 3, 1, 1] == kinds[40, 30] == onnx.TensorProto.FLOAT
    with torch.no_grad():
        exact = network(x).numpy()
        for layer in (network.large, network.across, network.last):
            integers, step = rounded(layer.weight.numpy())  # of a linear layer a row is an output, as a column of its matrix in the file
            layer.weight.copy_(torch.from_numpy(integers * step))
        expected = network(x).numpy()
    text = model.SerializeToString()
    by_onnxruntime = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})[0]
    core = openvino.Core()
    by_openvino = core.compile_model(core.read_model(text), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x.numpy()])[0]
    for found in (by_onnxruntime, by_openvino):
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert 1e-4 < np.abs(found - exact).max() < 0.02 * np.abs(exact).max()
