"""The names of the file formats, and which of them hold integers; read without any exporter."""

from __future__ import annotations

from typing import Literal

Format = Literal["onnx", "openvino", "torchscript", "torch_export", "ncnn"]
HoldsInt8 = Literal["onnx", "openvino"]
HOLD_INT8: tuple[Format, ...] = ("onnx", "openvino")
