"""Parallel branches of PP-LCNetV3 as one convolution, against the branches themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from compress.converters.lcnet_v3 import branches


@pytest.mark.parametrize(("kernel", "groups"), [(5, 6), (1, 1)])
def test_merged_branches_compute_their_sum(kernel, groups) -> None:
    torch.manual_seed(0)
    x, tensors, total = torch.randn(2, 6, 9, 9), {}, torch.zeros(())
    with torch.no_grad():
        for branch in (*(f"conv_kxk.{number}" for number in range(3)), "identity", *(["conv_1x1"] if kernel > 1 else [])):
            y, norm = x, nn.BatchNorm2d(6).eval()
            for parameter in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(parameter)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            norms = f"layer.{branch}" if branch == "identity" else f"layer.{branch}.bn"
            if branch != "identity":
                size = 1 if branch == "conv_1x1" else kernel
                weight = torch.randn(6, 6 // groups, size, size)
                y = conv2d(x, weight, padding=size // 2, groups=groups)
                tensors[f"layer.{branch}.conv.weight"] = weight.numpy()
            parts = {"weight": norm.weight, "bias": norm.bias, "_mean": norm.running_mean, "_variance": norm.running_var}
            tensors |= {f"{norms}.{name}": value.detach().numpy() for name, value in parts.items()}
            total = total + norm(y)
    weight, bias = (torch.from_numpy(array.astype(np.float32)) for array in branches(tensors, "layer"))
    torch.testing.assert_close(conv2d(x, weight, bias, padding=kernel // 2, groups=groups), total, rtol=1e-4, atol=1e-4)
