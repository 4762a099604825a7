"""Weights leave room for sums of two products in 16 bits: counted by hand, with each layer's own operator, on what it is given."""

from __future__ import annotations

import copy
from itertools import pairwise, product

import pytest
import torch
from torch import nn

from compress.quantization.nncf_torch import layer_quantizers, quantize
from compress.quantization.settings import Quantizers
from compress.quantization.sixteen_bits import leave_room

pytestmark = pytest.mark.slow

LAYERS = {
    "convolution": lambda: nn.Conv2d(6, 4, 3, padding=1),
    "odd": lambda: nn.Conv2d(6, 4, 1, bias=False),
    "grouped": lambda: nn.Conv2d(6, 4, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(6, 4, 2, 2),
    "grouped and transposed": lambda: nn.ConvTranspose2d(6, 4, 2, 2, groups=2),
    "linear": lambda: nn.Linear(6, 4),
}
PLAIN = Quantizers(without_vnni=False, bias_correction=False)


class Between(nn.Module):
    """One layer between two others; a linear one reads channels last."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.end = nn.Conv2d(3, 6, 1), layer, nn.Conv2d(4, 1, 1)

    def forward(self, images):
        x = self.first(images).relu()
        last = isinstance(self.layer, nn.Linear)
        x = self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if last else self.layer(x)
        return {"map": self.end(x.relu())}


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, 12, 16, generator=generator) for _ in range(3)]


def network(name: str) -> nn.Module:
    """Weights of both signs in neighbouring outputs, all large, so that sums leave 16 bits on bright pixels."""
    torch.manual_seed(0)
    made = Between(LAYERS[name]()).eval()
    with torch.no_grad():
        made.first.weight.copy_(torch.rand(made.first.weight.shape))
        made.layer.weight.copy_(torch.rand(made.layer.weight.shape) * 0.3 + 0.7)
        outputs = made.layer.weight.movedim(1, 0) if "transposed" in name else made.layer.weight
        outputs[1] *= -1
    return made


@torch.no_grad()
def integers(quantized: nn.Module, image: torch.Tensor, quantizers) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of the layer's input, 0..255, and of its weight."""
    given = []
    handle = quantized.layer.register_forward_pre_hook(lambda _layer, inputs: given.append(inputs[0].clone()))
    quantized(image)
    handle.remove()
    weights, activation = quantizers
    low, high = activation.get_input_low_input_high()
    step_low, step_high = weights.get_input_low_input_high()
    values = (given[0].clamp(low, high) - low) / (high - low) * 255
    return values.round(), (quantized.layer.weight / (step_high - step_low) * 254).round()


@torch.no_grad()
def largest_sum(quantized: nn.Module, images, quantizers) -> float:
    """The largest absolute sum of products of two neighbouring channels at one place of the kernel."""
    found = 0.0
    for image in images:
        values, weight = integers(quantized, image, quantizers)
        layer = copy.deepcopy(quantized.layer)
        layer.bias = None
        transposed = isinstance(layer, nn.ConvTranspose2d)
        channels = 0 if transposed else 1
        count = weight.shape[channels] // (layer.groups if transposed else 1)
        for first, second in pairwise(range(count)):
            for place in product(*map(range, weight.shape[2:])):
                alone = torch.zeros_like(weight)
                for group in range(layer.groups if transposed else 1):
                    for channel in (group * count + first, group * count + second):
                        index = (channel, slice(None), *place) if transposed else (slice(None), channel, *place)
                        alone[index] = weight[index]
                layer.weight.copy_(alone)
                found = max(found, layer(values).abs().max().item())
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_no_sum_of_two_leaves_16_bits_and_only_as_much_is_given_up_as_that_needs(name, images):
    plain = quantize(network(name), images, images[0], ["end"], PLAIN)
    quantizers = layer_quantizers(plain, images[0])
    assert largest_sum(plain, images, quantizers["layer"]) > 2**15
    widened = leave_room(plain, quantizers, images)
    assert 1 < widened["layer"] <= 2.01
    assert 2**15 / 1.3 < largest_sum(plain, images, quantizers["layer"]) < 2**15


def test_where_neighbours_do_not_add_up_to_too_much_nothing_changes(images):
    made = network("convolution")
    with torch.no_grad():
        made.layer.weight[:, 1::2] *= -1  # the signs of neighbours differ
    plain = quantize(made, images, images[0], ["end"], PLAIN)
    quantizers = layer_quantizers(plain, images[0])
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items() if "layer" in name}
    assert "layer" not in leave_room(plain, quantizers, images)
    assert all(torch.equal(plain.state_dict()[name], tensor) for name, tensor in before.items())


def test_biases_take_up_what_coarser_weights_lose_in_the_mean(images):
    errors = {}
    for corrected in (False, True):
        plain = quantize(network("convolution"), images, images[0], ["end"], PLAIN)
        seen = []
        plain.layer.register_forward_hook(lambda _layer, _given, gives, seen=seen: seen.append(gives[..., 1:-1, 1:-1].mean((0, 2, 3))))
        with torch.no_grad():
            plain(images[0])
            leave_room(plain, layer_quantizers(plain, images[0]), images[:1], correct_biases=corrected)
            plain(images[0])
        errors[corrected] = (seen[-1] - seen[0]).abs().max().item()
    assert errors[True] < 0.3 * errors[False]


def test_quantize_leaves_room_unless_told_that_there_is_vnni(images):
    states = [
        quantize(network("convolution"), images, images[0], ["end"], Quantizers(without_vnni=room, bias_correction=False)).state_dict()
        for room in (True, False)
    ]
    (name,) = [name for name in states[0] if name.endswith("scale") and "layer" in name and states[0][name].numel() == 4]
    assert (states[0][name] >= states[1][name]).all()
    assert (states[0][name] > states[1][name]).any()
