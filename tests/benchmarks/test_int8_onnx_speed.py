"""Int8 ONNX in ONNX Runtime: weights spelt out for layers that run in float, against plain Q/DQ pairs everywhere."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

from compress.exporters.onnx import export_onnx, onnx_model
from compress.models.layers import conv_bn
from compress.quantization.nncf_torch import quantize
from compress.runtimes import Runtime
from compress.runtimes.onnxruntime import session_options
from compress.runtimes.runtime import timed


class HardSwishes(nn.Module):
    """Convolutions that ONNX Runtime does not run as integers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_bn(3, 48, 3), *(conv_bn(48, 48, 3, activation=nn.Hardswish) for _ in range(4)))

    def forward(self, images):
        return {"map": self.layers(images)}


def test_spelt_out_weights_are_faster(tmp_path):
    torch.manual_seed(0)
    images = torch.randn(1, 3, 96, 96)
    network = quantize(HardSwishes().eval(), [images], images)
    path = export_onnx(network, tmp_path / "m.onnx", images, {})
    runtimes = []
    for data in (onnx_model(network, images, {}).SerializeToString(), path.read_bytes()):
        session = onnxruntime.InferenceSession(data, session_options(1), providers=["CPUExecutionProvider"])
        runtimes.append(Runtime("onnxruntime", "int8", 1, {}, lambda given, session=session: session.run(None, {"images": given})))
    plain, spelt = timed(runtimes, images.shape, 15, 3)
    ratio = float(np.median(spelt / plain))
    print(f"\nint8 ONNX: {np.median(plain) * 1e3:.2f} ms plain, {np.median(spelt) * 1e3:.2f} ms spelt out, ratio {ratio:.2f}")
    assert ratio < 0.9
