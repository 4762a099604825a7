"""Adaptive scale fusion against its steps written out one by one, and what pruning and export make of it."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch.nn.functional import conv2d

from compress.checkpoint import Model, example_input, fresh, load, save
from compress.exporters.onnx import export_onnx
from compress.models.necks.asf import AdaptiveScaleFusion, fpn_asf
from compress.pruning.groups import find_groups, remove_channels, widths
from compress.tasks.detection import EvaluateDetection as Evaluate
from compress.training.modes import show_all_maps

FORMS = ["scale_spatial", "scale_channel_spatial"]


def model(attention: str = "scale_channel_spatial") -> Model:
    torch.manual_seed(0)
    neck = {"name": "fpn_asf", "channels": 32, "attention": attention}
    return fresh({"name": "db", "backbone": {"name": "lcnet", "width": 0.25}, "neck": neck}, Evaluate(short_side=64))


def halved(kept: Model) -> Model:
    groups = find_groups(kept)
    remove_channels(kept, groups, {group.name: range(0, group.channels, 2) for group in groups if group.channels > 1})
    return kept


@pytest.mark.parametrize("attention", FORMS)
def test_every_pixel_of_every_scale_gets_its_own_weight(attention) -> None:
    torch.manual_seed(0)
    fusion = AdaptiveScaleFusion((5, 6, 7, 8), 8, attention == "scale_channel_spatial")
    levels = [torch.randn(2, width, 6, 9) for width in (5, 6, 7, 8)]
    weight = dict(fusion.named_parameters())
    x = conv2d(torch.cat(levels, 1), weight["fuse.weight"], weight["fuse.bias"], padding=1)
    if attention == "scale_channel_spatial":
        pooled = x.mean((2, 3), keepdim=True)
        gate = conv2d(conv2d(pooled, weight["attention.channel.1.weight"]).relu(), weight["attention.channel.3.weight"]).sigmoid()
        x = gate + x
    spatial = conv2d(x.mean(1, keepdim=True), weight["attention.spatial.layer.0.weight"], padding=1).relu()
    x = conv2d(spatial, weight["attention.spatial.layer.2.weight"]).sigmoid() + x
    scales = conv2d(x, weight["attention.scales.layer.0.weight"]).sigmoid()
    expected = torch.cat([level * scales[:, [scale]] for scale, level in enumerate(levels)], 1)
    assert scales.shape == (2, 4, 6, 9)
    torch.testing.assert_close(fusion(levels), expected)


def test_levels_of_which_nothing_is_wanted_are_left_out() -> None:
    neck = fpn_asf((3, 4, 5, 6), 16).eval()
    assert neck.channels == 16
    features = [torch.rand(1, width, 32 >> level, 32 >> level) for level, width in enumerate((3, 4, 5, 6))]
    with torch.no_grad():
        neck.fusion.fuse.bias.fill_(1000)
        scales = neck.fusion.attention.scales.layer[0].weight.zero_()
        scales[1], scales[3] = -1, 1
        joined = neck(features)
    assert joined.shape == (1, 16, 32, 32)
    assert joined[:, 4:8].abs().max() == 0
    assert joined[:, 12:].abs().max() > 0


@pytest.mark.parametrize("attention", FORMS)
def test_pruning_leaves_one_weight_for_each_scale_and_narrows_all_else(attention, tmp_path) -> None:
    kept = model(attention)
    before = widths(kept.network)
    groups = {group.name: set(group.members) for group in find_groups(kept)}
    assert not {name for members in groups.values() for name in members if ".spatial." in name or ".scales." in name}
    smooth = groups["neck.smooths.0.0"]
    assert smooth == {"neck.smooths.0.0"}, "a level's channels are coupled with those of no other layer, attention included"
    after = widths(halved(kept).network)
    fixed = {name for name in before if before[name] == after[name]}
    attention_layers = {f"neck.fusion.attention.{name}.layer.{place}" for name, place in (("spatial", 0), ("spatial", 2), ("scales", 0))}
    assert fixed == {*attention_layers, "probability.up2", "threshold.up2"}
    assert after["neck.fusion.attention.scales.layer.0"] == 4
    assert kept.network.neck.fusion.attention.scales.layer[0].in_channels == after["neck.fusion.fuse"] == 4
    save(kept, tmp_path)
    again = load(tmp_path)
    for network in (kept.network, again.network):
        show_all_maps(network)
    images = example_input(kept)
    with torch.no_grad():
        expected, found = kept.network(images), again.network(images)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_pruned_channel_is_missed_by_no_reader() -> None:
    """Channels that give zero and are read as zero can go: the maps stay as they are."""
    kept = model()
    smooth, fuse = kept.network.neck.smooths[0][0], kept.network.neck.fusion.fuse
    with torch.no_grad():
        kept.network.neck.smooths[0][1].weight[3] = 0
        kept.network.neck.smooths[0][1].bias[3] = 0
    images, before = example_input(kept), fuse.in_channels
    with torch.no_grad():
        expected = kept.network.eval()(images)["probability"]
    remove_channels(kept, find_groups(kept), {"neck.smooths.0.0": [3]})
    assert (smooth.out_channels, fuse.in_channels) == (7, before - 1)
    with torch.no_grad():
        torch.testing.assert_close(kept.network(images)["probability"], expected, rtol=0, atol=1e-5)


def test_the_exported_file_gives_the_same_maps_at_another_size(tmp_path) -> None:
    kept = halved(model())
    path = export_onnx(kept.network, tmp_path / "model.onnx", example_input(kept), kept.description())
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = kept.network.eval()(images)["probability"]
    (found,) = onnxruntime.InferenceSession(str(path)).run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
