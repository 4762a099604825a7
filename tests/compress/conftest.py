"""A small network with everything that is hard to quantize and export, shared by the tests of quantizing, exporting and running."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.models.layers import conv_bn


class Block(nn.Module):
    """Expansion, depthwise convolution and projection with a residual."""

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.expand = conv_bn(channels, 2 * channels, activation=activation)
        self.depthwise = conv_bn(2 * channels, 2 * channels, 3, groups=2 * channels, activation=activation)
        self.project = conv_bn(2 * channels, channels, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.depthwise(self.expand(x)))


class SmallDetector(nn.Module):
    """Stride 2 and back, a concatenation, two transposed convolutions, and a branch for training alone. Odd widths, as after pruning."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 11, 3, stride=2, activation=nn.Hardswish)
        self.blocks = nn.ModuleList([Block(11, nn.ReLU), Block(11, nn.Hardswish)])
        self.head = conv_bn(22, 7, 3)
        self.up = nn.Sequential(nn.ConvTranspose2d(7, 5, 2, 2), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(5, 1, 3, padding=1)
        self.aside = nn.ConvTranspose2d(7, 1, 2, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.stem(images)
        levels = []
        for block in self.blocks:
            x = block(x)
            levels.append(x)
        x = self.head(torch.cat(levels, 1))
        probability = self.last(self.up(x)).sigmoid()
        if not self.training:
            return {"probability": probability}
        return {"probability": probability, "aside": self.aside(x).sigmoid()}


def smooth_noise(seed: int, *shape: int) -> Tensor:
    """Smooth noise: neighbouring pixels of images are alike."""
    coarse = torch.randn(*shape[:2], shape[2] // 8, shape[3] // 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, scale_factor=8.0, mode="bilinear")


def enliven(network: nn.Module, last: nn.Module) -> nn.Module:
    """Batch norm statistics of data, and logits scaled to a spread of 2: maps as varied as those of a trained network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    logits = []
    handle = last.register_forward_hook(lambda _module, _inputs, output: logits.append(output))
    with torch.no_grad():
        network.train()(smooth_noise(0, 4, 3, 64, 64))
        network.eval()(smooth_noise(0, 4, 3, 64, 64))
        handle.remove()
        last.weight.mul_(2 / logits[-1].std())
        last.bias.copy_(-logits[-1].mean() * 2 / logits[-1].std())
    return network.eval()


@pytest.fixture(scope="session")
def batches():
    return [smooth_noise(seed, 2, 3, 64, 96) for seed in range(1, 5)]


@pytest.fixture(scope="session")
def detector():
    """Not to be changed by a test; deep copy it."""
    torch.manual_seed(0)
    network = SmallDetector()
    return enliven(network, network.last)


@pytest.fixture(scope="session")
def quantized_detector(detector, batches):
    """Not to be changed by a test; deep copy it."""
    from compress.quantization.nncf_torch import quantize

    return quantize(detector, batches, batches[0], ["last"])


@pytest.fixture
def fresh_detector():
    return SmallDetector


@pytest.fixture
def noise():
    return smooth_noise


@pytest.fixture
def lively():
    return enliven
