"""A network with context attention after pruning: what is left computes what it did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.checkpoint import fresh, load, save
from compress.pruning.groups import find_groups, remove_channels
from compress.tasks.detection import EvaluateDetection as Evaluate

TINY_SAST = {"name": "sast", "backbone": {"name": "resnet18", "width": 0.125}, "neck": {"name": "cab_fpn", "channels": 16, "blocks": 2}}


def norms_after(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """Convolution -> the batch norm behind it, by their order in the network."""
    pairs, convolution = {}, ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.BatchNorm2d):
            pairs[convolution] = module
    return pairs


@pytest.fixture
def half_silent():
    """SAST, half of the channels of every group of which give zero; its groups, and which channels those are."""
    torch.manual_seed(0)
    model = fresh(TINY_SAST, Evaluate(short_side=64))
    norms = norms_after(model.network)
    for norm in norms.values():
        nn.init.uniform_(norm.weight, 0.5, 1.0)
    groups = find_groups(model)
    removed = {group.name: torch.randperm(group.channels)[: group.channels // 2].tolist() for group in groups}
    with torch.no_grad():
        for group in groups:
            for member in group.members:
                norms[member].weight[removed[group.name]] = 0
                norms[member].bias[removed[group.name]] = 0
    return model, groups, removed


def test_taking_silent_channels_out_changes_nothing_and_the_rest_comes_back_from_disk(half_silent, tmp_path):
    model, groups, removed = half_silent
    images = torch.randn(2, 3, 64, 96)
    before = sum(parameter.numel() for parameter in model.network.parameters())
    with torch.inference_mode():
        expected = model.network.eval()(images)
    remove_channels(model, groups, removed)
    assert sum(parameter.numel() for parameter in model.network.parameters()) < 0.35 * before
    with torch.inference_mode():
        given = model.network(images)
        for name, maps in expected.items():
            torch.testing.assert_close(given[name], maps, rtol=1e-4, atol=1e-4)
    save(model, tmp_path)
    with torch.inference_mode():
        loaded = load(tmp_path).network.eval()(images)
    for name, maps in given.items():
        assert torch.equal(loaded[name], maps)
