"""Convolutions that are trained as a sum of branches: what the one convolution that is kept of them gives."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.checkpoint import fresh, load
from compress.errors import CompressError
from compress.lab import Lab
from compress.models.backbones.lcnet_v3 import lcnet_v3
from compress.models.backbones.lcnet_v4 import lcnet_v4_lines_tiny
from compress.models.layers import branching_conv_bn
from compress.recipe import load as load_recipe
from compress.stages.train import Train
from compress.tasks.detection import EvaluateDetection
from compress.training import loop
from compress.training.branches import Branches, branching, merged, split

TINY = Path(__file__).parents[2] / "end_to_end" / "tiny.yml"
DETECTOR = {"name": "db", "backbone": {"name": "lcnet_v3", "width": 0.25}, "neck": {"name": "fpn", "channels": 16}}


def shaken(network: nn.Module) -> nn.Module:
    """The network with norms of any scale, shift and statistics."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
        if isinstance(module, Branches):
            nn.init.uniform_(module.scale, 0.5, 1.5)
            nn.init.normal_(module.shift)
    return network


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "groups", "branches"),
    [(8, 8, 3, 1, 8, 6), (8, 8, 5, (2, 1), 8, 5), (8, 8, 1, 1, 1, 5), (6, 10, 1, 1, 1, 4), (8, 8, 3, 1, 2, 6)],
)
def test_the_sum_of_branches_is_one_convolution(inputs, outputs, kernel, stride, groups, branches):
    torch.manual_seed(0)
    network = nn.Sequential(branching_conv_bn(inputs, outputs, kernel, stride=stride, groups=groups)).double()
    split(network, 4, 0)
    network.double()
    parts = [network[0].pointwise, network[0].identity, *network[0].convolutions]
    assert sum(part is not None for part in parts) == branches
    shaken(network)
    x = torch.randn(2, inputs, 12, 14).double()
    one = merged(network).eval()
    assert one is not network
    assert one.state_dict().keys() == {f"0.{name}" for name in branching_conv_bn(inputs, outputs).state_dict()}
    torch.testing.assert_close(one(x), network.eval()(x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("backbone", [lambda: lcnet_v3(0.25), lcnet_v4_lines_tiny])
def test_a_backbone_starts_as_it_was_and_is_one_again_within_rounding(backbone):
    torch.manual_seed(0)
    plain = shaken(backbone()).eval()
    network = copy.deepcopy(plain)
    split(network, 4, 0)
    network.eval()
    lines = torch.randn(1, 3, 48, 64)

    def features(one: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            found = one(lines)
        return torch.cat([tensor.flatten() for tensor in (found if isinstance(found, list) else [found])])

    scale = float(features(plain).abs().max())
    assert float((features(network) - features(plain)).abs().max()) < 1e-5 * scale
    names = merged(network).state_dict().keys()
    assert names == plain.state_dict().keys()
    torch.manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, Branches):
            for norm in [branch[1] for branch in layer.convolutions] + ([layer.pointwise[1]] if layer.pointwise else []):
                nn.init.normal_(norm.weight)
    expected = features(network)
    scale = float(expected.abs().max())
    assert float((features(network) - features(plain)).abs().max()) > 1e-2 * scale
    assert float((features(merged(network).eval()) - expected).abs().max()) < 1e-5 * scale


def test_the_one_convolution_has_the_statistics_of_the_sum():
    """In training, too, it gives what the branches give: further stages start where this one ended."""
    torch.manual_seed(0)
    network = nn.Sequential(branching_conv_bn(6, 6, 3)).train()
    split(network, 4, 0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x = 3 * torch.randn(64, 6, 8, 8) + 1
    for _ in range(200):
        branches = network(x).detach()
    one = merged(network).train()
    torch.testing.assert_close(one(x), branches, atol=1e-3, rtol=1e-3)


def test_a_network_without_such_layers_is_refused():
    model = fresh({"name": "db", "backbone": "resnet18", "neck": {"name": "fpn", "channels": 16}}, EvaluateDetection())
    with pytest.raises(CompressError, match="branches: the network has no layers that are trained as branches"):
        Train(name="a", epochs=1, branches=2).check(model)
    assert merged(model.network) is model.network


@pytest.mark.slow
def test_a_stage_trains_branches_and_keeps_one_convolution(tmp_path, monkeypatch):
    recipe = load_recipe(TINY).model_copy(update={"model": DETECTOR})
    lab = Lab(recipe, tmp_path, torch.device("cpu"), lambda _: None, quiet=True)
    seen = []
    real = loop.train_epoch
    monkeypatch.setattr(loop, "train_epoch", lambda run, *rest: (seen.append(run.modules[0]), real(run, *rest))[1])
    trained = Train(name="a", epochs=2, batch=8, crop=64, branches=2, precision="fp32").apply(None, lab)
    assert sum(isinstance(module, Branches) for module in seen[0].modules()) == len(branching(trained.network)) == 28
    assert trained.network.state_dict().keys() == fresh(DETECTOR, recipe.evaluate).network.state_dict().keys()
    image, live = torch.randn(1, 3, 64, 64), seen[0].eval()
    with torch.inference_mode():
        torch.testing.assert_close(load(tmp_path / "last").network.eval()(image), live(image), atol=1e-5, rtol=1e-4)
