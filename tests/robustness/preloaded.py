"""Whatever takes long to import, for processes that are forked."""

import cv2
import matplotlib.pyplot
import onnx
import onnxruntime
import torch

from compress.runtimes.telemetry import forbid_telemetry

forbid_telemetry()

import nncf  # noqa: E402
import openvino  # noqa: E402

import compress.benchmark  # noqa: E402
import compress.cli  # noqa: E402
import compress.convert  # noqa: E402
import compress.experiment  # noqa: E402
import compress.exporters.inspect  # noqa: E402
import compress.report.page  # noqa: E402
import compress.sensitivity  # noqa: E402

__all__ = ["compress", "cv2", "matplotlib", "nncf", "onnx", "onnxruntime", "openvino", "torch"]
