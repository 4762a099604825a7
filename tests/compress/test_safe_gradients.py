"""Strided 1x1 convolutions of few channels. Gradients are taken in processes of their own, which oneDNN's would end, or never end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from compress.checkpoint import channels_last
from compress.safe_gradients import Strided1x1

GRADIENTS = """
import torch
from torch import nn
from compress.checkpoint import channels_last

torch.manual_seed(0)
torch.set_num_threads({threads})
for channels in (2, 3, 4, 7, 8, 15, 16):
    for _ in range(20):
        layer = channels_last(nn.Sequential(nn.Conv2d(channels, 8, 1, 2)))[0]
        images = torch.randn(8, channels, 32, 32).to(memory_format=torch.channels_last)
        slope = torch.randn(8, 8, 16, 16)
        layer(images).backward(slope)
        true = torch.einsum("bohw,bihw->oi", slope.double(), images[:, :, ::2, ::2].double())
        assert torch.allclose(layer.weight.grad[:, :, 0, 0].double(), true, atol=1e-2), channels
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_narrow_strided_layer_learns_rightly(threads):
    command = [sys.executable, "-c", GRADIENTS.format(threads=threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "MALLOC_CHECK_": "3"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stride", [(2, 2), (2, 1), (1, 3)])
def test_it_computes_the_same_with_gradients_and_without(stride):
    plain = nn.Conv2d(5, 8, 1, stride)
    safe = channels_last(nn.Sequential(nn.Conv2d(5, 8, 1, stride)))[0]
    safe.load_state_dict(plain.state_dict())
    assert type(safe) is Strided1x1
    images = torch.randn(2, 5, 9, 12)
    with torch.no_grad():
        expected = plain(images)
        assert torch.allclose(safe(images), expected, atol=1e-6)
    assert torch.allclose(safe(images), expected, atol=1e-6)


def test_other_layers_stay_what_they_are():
    others = [nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, 2), nn.Conv2d(4, 4, 1, 2, groups=4), nn.Conv2d(4, 8, 1, 2, padding=1), nn.Linear(4, 8)]
    assert [type(layer) for layer in channels_last(nn.Sequential(*others))] == [type(layer) for layer in others]
    assert type(others[0]) is nn.Conv2d
