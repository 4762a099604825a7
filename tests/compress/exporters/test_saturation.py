"""Sums of large products come out whole on every processor: x86 without VNNI adds two of them up in 16 bits, and cuts the rest off."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.exporters.onnx import export_onnx
from compress.exporters.openvino import export_openvino
from compress.quantization.nncf_torch import quantize
from compress.quantization.settings import Quantizers
from compress.runtimes import open_file
from compress.runtimes.processor import processor

pytestmark = pytest.mark.slow

DESCRIPTION = {"precision": "int8"}
LAYERS = ("wide", "narrow", "grouped")  # those that sum over channels


class Bright(nn.Module):
    """Layers whose weights are all at the end of their range, and so is what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.wide = nn.Conv2d(16, 16, 1)
        self.narrow = nn.Conv2d(16, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.end = nn.Conv2d(16, 1, 1)
        for layer in self.children():
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)

    def forward(self, images):
        x = self.stem(images).relu()
        for layer in (self.wide, self.narrow, self.grouped, self.depthwise):
            x = layer(x).relu()
        return {"map": self.end(x)}


@pytest.fixture(scope="module")
def images():
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.05 + 0.95


@pytest.fixture(scope="module")
def files(tmp_path_factory, images):
    """Whether room is left for sums of 16 bits -> the ONNX and the OpenVINO file."""

    def written(room):
        folder = tmp_path_factory.mktemp("files")
        network = quantize(Bright().eval(), [images], images, ["end"], Quantizers(without_vnni=room, bias_correction=False))
        onnx_file = export_onnx(network, folder / "model.onnx", images, DESCRIPTION)
        return onnx_file, export_openvino(network, folder / "model.xml", images, DESCRIPTION)

    return {room: written(room) for room in (True, False)}


def error(path, images) -> float:
    """The largest, of values that are all near 1; those that see padding are left out."""
    found = open_file(path).run(images.numpy())["map"][:, :, 4:-4, 4:-4]
    return float(np.abs(found - images.mean().item()).max())


def test_no_sum_is_cut_off_in_either_runtime(files, images):
    assert max(error(path, images) for path in files[True]) < 0.05


@pytest.mark.skipif(not processor().endswith((", AVX2", ", AVX-512")), reason="this processor adds products up in 32 bits")
def test_without_room_they_are_on_such_a_processor(files, images):
    assert min(error(path, images) for path in files[False]) > 0.2


@pytest.mark.parametrize("room", [True, False])
def test_integers_are_small_where_sums_would_leave_16_bits_and_there_alone(files, room):
    """All activations are near 255 and all weights equal, so that two products fit up to 64: 2 * 255 * 64 < 2 ** 15."""
    arrays = [numpy_helper.to_array(constant) for constant in onnx.load(files[room][0]).graph.initializer]
    highest = {values.shape: int(np.abs(values).max()) for values in arrays if values.dtype == np.int8 and values.ndim == 4}
    sums = {shape: value for shape, value in highest.items() if shape[1] > 3}
    assert len(sums) == len(LAYERS)
    assert {value > 64 for value in sums.values()} == {not room}
    assert 63 <= highest[16, 3, 1, 1] <= 64
    assert highest[16, 1, 3, 3] == 127
