"""Batch norm folding leaves every map as it was, and a folded structure can be rebuilt from names alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.models.backbones.mobilenet_v3 import mobilenet_v3_small, mobilenet_v3_small_torchvision
from compress.models.backbones.resnet import resnet18
from compress.models.necks.fpn import fpn
from compress.models.networks.db import DBNet
from compress.quantization.folding import fold_batch_norms, fold_like

EXAMPLE = torch.linspace(-2, 2, 2 * 3 * 32 * 64).sin().reshape(2, 3, 32, 64)


def randomise_norms(network: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network


def all_maps(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    network.eval()
    network.training = True
    with torch.no_grad():
        return network(images)


@pytest.mark.parametrize("build", [mobilenet_v3_small, mobilenet_v3_small_torchvision, resnet18])
def test_every_map_of_a_folded_network_is_the_same(build):
    torch.manual_seed(0)
    backbone = build()
    network = randomise_norms(DBNet(backbone, fpn(backbone.channels, 96), 50.0)).double()
    images = EXAMPLE.double()
    before = all_maps(network, images)
    # In single precision rounding alone moves `binary`, with its steepness of 50, by more than the tolerance.
    folded = fold_batch_norms(network, images)
    assert folded
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    after = all_maps(network, images)
    assert after.keys() == before.keys()
    for name, values in after.items():
        torch.testing.assert_close(values, before[name], rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


def test_single_precision_logits_move_by_rounding_alone():
    torch.manual_seed(0)
    backbone = mobilenet_v3_small()
    network = randomise_norms(DBNet(backbone, fpn(backbone.channels, 96), 50.0))
    before = all_maps(network, EXAMPLE)["logits"]
    fold_batch_norms(network, EXAMPLE)
    after = all_maps(network, EXAMPLE)["logits"]
    assert (after - before).abs().max() < 1e-5 * before.abs().max()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 8, 3, groups=2, bias=False),
        nn.Conv2d(6, 8, 3),
        nn.ConvTranspose2d(6, 8, 2, 2, groups=2),
        nn.ConvTranspose2d(6, 8, 3, bias=False),
    ],
)
@pytest.mark.parametrize("affine", [True, False])
def test_grouped_and_transposed_layers(layer, affine):
    network = randomise_norms_or_statistics(nn.Sequential(copy.deepcopy(layer), nn.BatchNorm2d(8, affine=affine))).double()
    images = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    expected = network.eval()(images)
    assert fold_batch_norms(network, images) == ["1"]
    torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-12)


def randomise_norms_or_statistics(network: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            for parameter in module.parameters():
                parameter.data.uniform_(0.5, 2)
    return network


class ReadTwice(nn.Module):
    """The norm's input is also read by an addition that no module hook can see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class Returned(ReadTwice):
    def forward(self, x):
        y = self.conv(x)
        return {"normed": self.norm(y), "raw": y}


class SharedNorm(ReadTwice):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm(self.conv(x + 1))


@pytest.mark.parametrize("kind", [ReadTwice, Returned, SharedNorm])
def test_a_norm_whose_input_is_needed_elsewhere_stays(kind):
    network = kind()
    assert fold_batch_norms(network, torch.randn(1, 3, 5, 5)) == []
    assert isinstance(network.norm, nn.BatchNorm2d)


def test_folding_keeps_modes_and_hooks():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()).train()
    network[2].eval()
    statistics = network[1].running_mean.clone()
    norm = network[1]
    fold_batch_norms(network, torch.randn(2, 3, 5, 5))
    assert [network.training, network[0].training, network[2].training] == [True, True, False]
    assert torch.equal(norm.running_mean, statistics)
    assert not network[0]._forward_hooks


def test_a_folded_structure_is_rebuilt_from_its_names():
    backbone = mobilenet_v3_small()
    network = randomise_norms(DBNet(backbone, fpn(backbone.channels, 96), 50.0))
    folded = copy.deepcopy(network)
    fold_batch_norms(folded, EXAMPLE)
    fold_like(network, folded.state_dict().keys())
    network.load_state_dict(folded.state_dict(), strict=True)
    assert torch.equal(all_maps(network, EXAMPLE)["binary"], all_maps(folded, EXAMPLE)["binary"])


def test_an_unfolded_structure_is_left_alone():
    backbone = mobilenet_v3_small()
    network = DBNet(backbone, fpn(backbone.channels, 96), 50.0)
    before = {name: type(module) for name, module in network.named_modules()}
    fold_like(network, network.state_dict().keys())
    assert {name: type(module) for name, module in network.named_modules()} == before
