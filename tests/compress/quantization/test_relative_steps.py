"""Steps in proportion to channels: as plain as the optimiser's where all are of size one, and harmless where they are far apart."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compress.quantization.nncf_torch import quantize, quantizers
from compress.quantization.relative_steps import balanced, sizes, take_relative_steps


class TwoLayers(nn.Module):
    """Four hidden channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, images):
        return self.out(self.hidden(images).relu())


def rescaled(network: TwoLayers, factors: torch.Tensor) -> TwoLayers:
    """The same function, but for rounding: each hidden channel `factors` times as large, and read so much less."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.hidden.weight.mul_(factors.view(-1, 1, 1, 1))
        other.hidden.bias.mul_(factors)
        other.out.weight.div_(factors.view(1, -1, 1, 1))
    return other


def trained(network: TwoLayers, *, relative: bool, lr: float) -> list[float]:
    """The losses of thirty steps towards a fixed target."""
    torch.manual_seed(1)
    images, target = torch.randn(8, 3, 6, 6), torch.randn(8, 2, 4, 4)
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.0)
    if relative:
        take_relative_steps(optimizer, network)
    losses = []
    for _ in range(30):
        loss = (network(images) - target).square().mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


def test_a_step_is_the_optimisers_times_the_size():
    network = TwoLayers()
    plain = copy.deepcopy(network)
    images = torch.randn(2, 3, 6, 6)
    expected = []
    for one, relative in ((plain, False), (network, True)):
        optimizer = torch.optim.AdamW(one.parameters(), 0.01, weight_decay=0.0)
        if relative:
            scales = {name: sizes(one)[parameter].clone() for name, parameter in one.named_parameters()}
            take_relative_steps(optimizer, one)
        before = {name: parameter.detach().clone() for name, parameter in one.named_parameters()}
        one(images).square().sum().backward()
        optimizer.step()
        expected.append({name: parameter.detach() - before[name] for name, parameter in one.named_parameters()})
    for name, step in expected[0].items():
        torch.testing.assert_close(expected[1][name], step * scales[name], atol=1e-7, rtol=1e-4)


def test_channels_of_any_scale_learn_alike_and_absolute_steps_destroy_them():
    network, factors = TwoLayers(), torch.tensor([1.0, 1e-4, 100.0, 1e-5])
    level, spread = (trained(one, relative=True, lr=0.03) for one in (copy.deepcopy(network), rescaled(network, factors)))
    assert level[-1] < 0.95 * level[0]
    np.testing.assert_allclose(spread, level, rtol=0.02)
    assert max(trained(rescaled(network, factors), relative=False, lr=0.03)) > 100 * level[0]


def test_balance_finds_the_factors_that_channels_were_scaled_by():
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3, 3)
    weight /= balanced(weight)
    torch.testing.assert_close(balanced(weight), torch.ones(6, 5, 1, 1), atol=1e-3, rtol=0)
    rows, columns = torch.logspace(-6, 2, 6).view(-1, 1, 1, 1), torch.logspace(3, -3, 5).view(1, -1, 1, 1)
    torch.testing.assert_close(balanced(weight * rows * columns), rows * columns, atol=0, rtol=1e-2)
    depthwise = torch.randn(4, 1, 3, 3)
    torch.testing.assert_close(balanced(depthwise).flatten(), depthwise.square().mean((1, 2, 3)).sqrt())


def test_what_is_dead_has_a_size_above_zero():
    assert balanced(torch.zeros(3, 2)).min() > 0
    norm = nn.LayerNorm(4)
    assert torch.equal(sizes(norm)[norm.weight], norm.weight)


@pytest.mark.slow
def test_the_size_of_a_range_is_the_range():
    network = quantize(TwoLayers(), [torch.randn(2, 3, 8, 8)], torch.randn(2, 3, 8, 8))
    found = sizes(network)
    ranges = [parameter for one in quantizers(network).values() for parameter in one.parameters() if parameter.requires_grad]
    assert ranges
    for one in quantizers(network).values():
        own = [parameter for parameter in one.parameters() if parameter in found]
        assert all(torch.equal(found[parameter], torch.stack([each.abs() for each in own]).amax(0)) for parameter in own)
