"""DB of each backbone, narrowed, with each neck: it runs, loses half of its channels, and runs again."""

from __future__ import annotations

import pytest
import torch

from compress.checkpoint import fresh
from compress.cost import parameters
from compress.models.registry import BACKBONES, NECKS
from compress.pruning.allocation import uniform
from compress.pruning.groups import find_groups, remove_channels
from compress.tasks.detection import EvaluateDetection as Evaluate

pytestmark = pytest.mark.slow

NARROW = dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet18_vd", "resnet50_vd", "pphgnet_small"), 0.125)


@pytest.mark.filterwarnings("ignore:Unwrapped parameters")
@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_runs_is_pruned_by_half_and_runs_again(backbone: str, neck: str) -> None:
    torch.manual_seed(0)
    config = {"name": "db", "backbone": {"name": backbone, "width": NARROW.get(backbone, 0.25)}, "neck": {"name": neck, "channels": 16}}
    model = fresh(config, Evaluate(short_side=64))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert model.network.eval()(images)["probability"].shape == (1, 1, 64, 64)
    groups, before = find_groups(model), parameters(model.network)
    kept = uniform(groups, 0.5, 1)
    remove_channels(model, groups, {group.name: range(kept[group.name], group.channels) for group in groups})
    assert parameters(model.network) < 0.5 * before
    with torch.no_grad():
        probability = model.network(images)["probability"]
    assert probability.shape == (1, 1, 64, 64)
    assert probability.isfinite().all()


@pytest.mark.parametrize("name", BACKBONES)
def test_the_channels_that_a_backbone_promises_are_those_it_gives(name: str) -> None:
    """At a width that nobody uses, and one so small that everything is rounded up."""
    from importlib import import_module

    for width in (0.05, 0.3):
        backbone = getattr(import_module(BACKBONES[name]), name)(width).eval()
        with torch.no_grad():
            features = backbone(torch.rand(1, 3, 64, 64))
        assert tuple(feature.shape[1] for feature in features) == backbone.channels
        assert [feature.shape[2] for feature in features] == [16, 8, 4, 2]
        assert min(backbone.channels) >= 1
