"""Fake quantization against NNCF's own reference and against torch's."""

from __future__ import annotations

import pytest
import torch

from compress.quantization.fake_quantize import quantize_backward, quantize_forward
from compress.runtimes.telemetry import forbid_telemetry

forbid_telemetry()

# low, span, levels, level_low, level_high
PER_TENSOR = [
    (-1.0, 255 / 127, 256, -128, 127),
    (0.0, 3.0, 256, 0, 255),
    (-0.375, 0.375 * 255 / 32, 256, 0, 255),
    (-2.0, 4.0, 255, -127, 127),
]


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1.5


@pytest.mark.parametrize(("low", "span", "levels", "level_low", "level_high"), PER_TENSOR)
def test_forward_equals_torch(low, span, levels, level_low, level_high):
    x = values(2, 5, 7, 7)
    given = quantize_forward(x, torch.tensor([low]), torch.tensor([span]), levels)
    step = span / (levels - 1)
    zero_point = level_low + round(-low / step)
    expected = torch.fake_quantize_per_tensor_affine(x, step, zero_point, level_low, level_high)
    torch.testing.assert_close(given, expected, rtol=1e-6, atol=1e-7)
    assert len(given.unique()) <= levels


def test_forward_equals_torch_per_channel():
    x = values(6, 4, 3, 3)
    scale = torch.linspace(0.5, 3, 6)
    given = quantize_forward(x, -scale.reshape(6, 1, 1, 1), 2 * scale.reshape(6, 1, 1, 1), 255)
    expected = torch.fake_quantize_per_channel_affine(x, scale / 127, torch.zeros(6, dtype=torch.int32), 0, -127, 127)
    torch.testing.assert_close(given, expected, rtol=1e-6, atol=1e-7)


def test_quantizing_twice_changes_nothing():
    low, span = torch.tensor([-0.5]), torch.tensor([0.5 * 255 / 50])
    once = quantize_forward(values(1000), low, span, 256)
    torch.testing.assert_close(quantize_forward(once, low, span, 256), once, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("low", "span", "levels", "level_low", "level_high"), PER_TENSOR)
@pytest.mark.parametrize("shape", [(1,), (6, 1, 1, 1)])
def test_backward_equals_the_reference(low, span, levels, level_low, level_high, shape):
    from nncf.torch.quantization.reference import torch_executor

    x, gradient = values(6, 5, 7, 7), values(6, 5, 7, 7).flip(0)
    low, span = torch.full(shape, low), torch.full(shape, span)
    given = quantize_backward(gradient, x, low, span, levels, level_low, level_high)
    expected = torch_executor.backward(gradient, x, low, span, levels, level_low, level_high)
    for tensor, reference in zip(given, expected, strict=True):
        torch.testing.assert_close(tensor, reference.sum_to_size(tensor.shape), rtol=1e-4, atol=1e-4)
