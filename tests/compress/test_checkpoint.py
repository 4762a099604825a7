from __future__ import annotations

import time

import pytest
import torch
import yaml

from compress.checkpoint import Model, channels_last, example_input, fresh, load, save
from compress.errors import CompressError
from compress.pruning.groups import all_maps
from compress.tasks.detection import EvaluateDetection as Evaluate
from compress.training.modes import show_all_maps

pytestmark = pytest.mark.slow

BACKBONES = ["mobilenet_v3_small", "mobilenet_v3_small_torchvision", "mobilenet_v3_large_ppocr", "lcnet_v3", "resnet18"]


def model(backbone: str = "mobilenet_v3_small", channels: int = 32, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return fresh({"name": "db", "backbone": backbone, "neck": {"name": "fpn", "channels": channels}}, Evaluate(short_side=64))


def pruned(backbone: str, ratio: float = 0.6) -> Model:
    """A model with fewer channels everywhere, odd widths included."""
    return prune(model(backbone), ratio)


def prune(kept: Model, ratio: float) -> Model:
    """Remove a share of all channels, in place."""
    import torch_pruning as tp

    outputs = [layer for name, layer in kept.network.named_modules() if name.endswith("up2")]
    importance = tp.importance.MagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        kept.network, example_input(kept), importance, pruning_ratio=ratio, ignored_layers=outputs, forward_fn=all_maps
    )
    pruner.step()
    channels_last(kept.network)
    return kept


def maps_of(kept: Model) -> dict[str, torch.Tensor]:
    show_all_maps(kept.network)
    with torch.no_grad():
        return kept.network(example_input(kept))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_pruned_model_comes_back_bit_for_bit(tmp_path, backbone):
    kept = pruned(backbone)
    save(kept, tmp_path)
    again = load(tmp_path)
    before, after = kept.network.state_dict(), again.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    expected, found = maps_of(kept), maps_of(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_floats_too_small_to_be_normal_ones_are_loaded_as_zeros_and_nothing_else_changes(tmp_path):
    kept = model()
    name, weight = next((name, weight) for name, weight in kept.network.named_parameters() if weight.dim() == 4)
    tiny = torch.finfo(torch.float32).tiny
    with torch.no_grad():
        weight[0, 0, 0, :3] = torch.tensor([tiny / 2, -tiny / 1000, tiny])
    before = {key: tensor.clone() for key, tensor in kept.network.state_dict().items()}
    save(kept, tmp_path / "kept")
    after = load(tmp_path / "kept").network.state_dict()
    assert after[name][0, 0, 0, :3].tolist() == [0, 0, tiny]
    before[name][0, 0, 0, :2] = 0
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def test_a_residual_is_decided_by_the_original_widths(tmp_path):
    """Where pruning makes the widths around a block equal by accident, no residual may appear that training never saw."""
    kept = pruned("mobilenet_v3_small")
    residuals = [block.residual for block in kept.network.backbone.blocks]
    save(kept, tmp_path)
    assert [block.residual for block in load(tmp_path).network.backbone.blocks] == residuals
    assert residuals == [block.residual for block in model().network.backbone.blocks]


def test_a_loaded_pruned_model_trains(tmp_path):
    save(pruned("resnet18"), tmp_path)
    again = load(tmp_path)
    again.network.train()
    outputs = again.network(example_input(again))
    sum(value.sum() for value in outputs.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.shape == parameter.shape for parameter in again.network.parameters())


def test_a_truncated_file_is_refused_by_name(tmp_path):
    save(model(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CompressError, match=r"model\.safetensors is damaged"):
        load(tmp_path)


def test_another_architecture_is_refused(tmp_path):
    save(model("resnet18"), tmp_path / "a")
    save(model(), tmp_path / "b")
    (tmp_path / "a" / "model.yml").write_bytes((tmp_path / "b" / "model.yml").read_bytes())
    with pytest.raises(CompressError, match="another architecture"):
        load(tmp_path / "a")


def test_wider_weights_than_the_architecture_are_refused(tmp_path):
    save(model(channels=64), tmp_path / "a")
    save(model(channels=32), tmp_path / "b")
    (tmp_path / "a" / "model.yml").write_bytes((tmp_path / "b" / "model.yml").read_bytes())
    with pytest.raises(CompressError, match="another architecture"):
        load(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "{", "model: {name: db}\n", "format: 99\nmodel: {name: db}\nevaluate: {}\n"])
def test_a_damaged_description_is_refused(tmp_path, text):
    save(model(), tmp_path)
    (tmp_path / "model.yml").write_text(text)
    with pytest.raises(CompressError, match=r"model\.yml"):
        load(tmp_path)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 3e38])
def test_weights_of_which_no_finite_map_comes_are_refused_by_name(tmp_path, number):
    kept = model()
    with torch.no_grad():
        next(kept.network.parameters()).fill_(number)
    save(kept, tmp_path)
    with pytest.raises(CompressError, match=rf"{tmp_path}.*finite"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[]",
        '{"settings": 3, "shown": {"short_side": 64}, "val_score": 0.5}',
        '{"settings": {}, "shown": {}}',
        '{"settings": {}, "shown": {"short_side": 64}, "val_score": "x"}',
        '{"settings": {"bin_threshold": "x"}, "shown": {"short_side": 64}, "val_score": 0.5}',
        '{"settings": {"bin_threshold": 7}, "shown": {"short_side": 64}, "val_score": 0.5}',
        '{"settings": {"unknown": 0.3}, "shown": {"short_side": 64}, "val_score": 0.5}',
        '{"settings": {"bin_threshold": 1e999}, "shown": {"short_side": 64}, "val_score": 0.5}',
        "[" * 100_000 + "]" * 100_000,
    ],
)
def test_damaged_tuned_settings_are_refused_by_name(tmp_path, text):
    save(model(), tmp_path)
    load(tmp_path)
    (tmp_path / "tuned.json").write_text(text)
    with pytest.raises(CompressError, match=r"tuned\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    "keys", [{"channels": "3 2"}, {"channels": None}, {"channels": [3]}, {"chanels": 32}, {"channels": 10**9}, {"channels": 1e999}]
)
def test_a_neck_that_cannot_be_built_is_refused_by_the_description(tmp_path, keys):
    save(model(), tmp_path)
    description = yaml.safe_load((tmp_path / "model.yml").read_text())
    description["model"]["neck"] = {"name": "fpn", **keys}
    (tmp_path / "model.yml").write_text(yaml.safe_dump(description))
    with pytest.raises(CompressError, match=r"model\.yml"):
        load(tmp_path)


def test_a_description_of_repeated_lists_is_refused_within_a_second(tmp_path):
    save(model(), tmp_path)
    lists = "".join(f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 9)}]\n" for level in range(1, 31))
    (tmp_path / "model.yml").write_text(f"x0: &x0 [1]\n{lists}{(tmp_path / 'model.yml').read_text()}")
    began = time.monotonic()
    with pytest.raises(CompressError, match=r"model\.yml, line \d+: there are more than"):
        load(tmp_path)
    assert time.monotonic() - began < 1


def test_a_description_that_names_an_unknown_model_is_refused(tmp_path):
    save(model(), tmp_path)
    path = tmp_path / "model.yml"
    path.write_text(path.read_text().replace("name: db", "name: os"))
    with pytest.raises(CompressError, match=r"model\.yml"):
        load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CompressError, match="not a checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("neck", ["db_fpn", "rse_fpn", "lkpan"])
def test_every_neck_comes_back_pruned(tmp_path, neck):
    torch.manual_seed(0)
    kept = fresh({"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": neck, "channels": 32}}, Evaluate(short_side=64))
    before = sum(parameter.numel() for parameter in kept.network.neck.parameters())
    prune(kept, 0.4)
    assert sum(parameter.numel() for parameter in kept.network.neck.parameters()) < before
    save(kept, tmp_path)
    expected, found = maps_of(kept), maps_of(load(tmp_path))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
