"""Ranges and norms that stop learning late, and a training with them that is cut off."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.checkpoint import example_input, fresh, load
from compress.errors import CompressError
from compress.files import read_tensors
from compress.lab import Lab
from compress.quantization.folding import fold_batch_norms
from compress.quantization.freezing import hold_ranges
from compress.quantization.nncf_torch import HOOKS, config_json, quantize, quantizers
from compress.quantization.settings import Quantizers
from compress.recipe import load as load_recipe
from compress.stages.quantize import QatSchedule, Quantize
from compress.training import loop
from compress.training.modes import hold_norms

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[2] / "end_to_end" / "tiny.yml"


class ReadTwice(nn.Module):
    """A batch norm that cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images):
        x = self.conv(images)
        return {"map": (self.norm(x) + x).sigmoid()}


def test_held_norms_keep_their_statistics_and_learn_their_scales(batches):
    with pytest.raises(CompressError, match="bias_correction: false"):
        quantize(ReadTwice(), batches[:1], batches[0])
    network = quantize(ReadTwice(), batches[:1], batches[0], (), Quantizers(bias_correction=False)).train()
    network(batches[0])
    before = copy.deepcopy(network.norm.state_dict())
    hold_norms(network)
    network(batches[1])["map"].sum().backward()
    after = network.norm.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert network.norm.weight.grad.abs().sum() > 0
    assert network.training
    assert network.conv.training
    network.train()(batches[1])
    assert not torch.equal(network.norm.running_mean, before["running_mean"])


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9)])
def test_held_ranges_stay_whatever_momentum_they_had(quantized_detector, batches, optimizer):
    network = copy.deepcopy(quantized_detector).train()
    optimizer = optimizer(network.parameters(), lr=1e-2)

    def step(held: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
        optimizer.zero_grad()
        network(batches[0])["probability"].square().sum().backward()
        if held:
            hold_ranges(network)
        optimizer.step()
        moving = [value.detach().clone() for quantizer in quantizers(network).values() for value in quantizer.parameters()]
        return moving, network.stem[0].weight.detach().clone()

    (first, _), (second, weight), (third, moved) = step(False), step(False), step(True)
    assert not all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(second, third, strict=True))
    assert not torch.equal(weight, moved)


@pytest.fixture(scope="module")
def calibrated():
    """A small DB, folded and quantized, to be trained on."""
    recipe = load_recipe(TINY)
    torch.manual_seed(0)
    model = fresh(recipe.model, recipe.evaluate)
    example = example_input(model)
    fold_batch_norms(model.network.eval(), example)
    network = quantize(model.network, [example], example, model.algorithm.kept_layers)
    return recipe, model, model.with_network(network, config_json(network))


def train(calibrated, folder: Path, **settings) -> dict[str, bytes]:
    recipe, folded, model = calibrated
    schedule = QatSchedule(epochs=4, batch=8, crop=32, lr=1e-2, ema=0.5, evaluate_every=4, **settings)
    stage = Quantize(name="int8", train=schedule, freeze_ranges=0.5)
    lab = Lab(recipe, folder, torch.device("cpu"), lambda _: None, quiet=True)
    stage.trained(folded, model.with_network(copy.deepcopy(model.network), model.quantization), lab, schedule, {})
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "elapsed.json"
    }


def ranges(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What quantizers learn: the scale of a symmetric one, the ends of an asymmetric one."""
    found = {name: tensor for name, tensor in state.items() if name.startswith(HOOKS) and tensor.is_floating_point()}
    assert {name.rpartition(".")[2] for name in found} == {"scale", "input_low", "input_range"}
    return found


def test_frozen_at_half_of_the_steps_and_resumed_to_the_same_bytes(calibrated, tmp_path, monkeypatch):
    real, seen = loop.train_epoch, []

    def watched(run, *rest):
        losses = real(run, *rest)
        seen.append({name: tensor.clone() for name, tensor in run.modules[0].state_dict().items()})
        return losses

    monkeypatch.setattr(loop, "train_epoch", watched)
    whole = train(calibrated, tmp_path / "whole")
    start = ranges(calibrated[2].network.state_dict())
    one, two, three, four = (ranges(state) for state in seen)
    assert not all(torch.equal(start[name], one[name]) for name in start)
    assert not all(torch.equal(one[name], two[name]) for name in start)
    assert all(torch.equal(two[name], three[name]) and torch.equal(two[name], four[name]) for name in start)
    weight = "probability.conv.0.weight"
    assert not torch.equal(seen[2][weight], seen[3][weight])

    def cut_off(run, *rest):
        if run.epoch == 3:
            raise KeyboardInterrupt
        return real(run, *rest)

    monkeypatch.setattr(loop, "train_epoch", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(calibrated, tmp_path / "cut")
    monkeypatch.setattr(loop, "train_epoch", real)
    assert train(calibrated, tmp_path / "cut") == whole
    saved = read_tensors(tmp_path / "whole" / "last" / "model.safetensors")
    back = load(tmp_path / "whole" / "last").network.state_dict()
    assert saved.keys() == back.keys()
    assert all(torch.equal(saved[name], back[name]) for name in saved)


def test_ranges_frozen_from_the_start_are_those_of_the_calibration(calibrated, tmp_path):
    recipe, folded, model = calibrated
    schedule = QatSchedule(epochs=1, batch=8, crop=32, lr=1e-2)
    stage = Quantize(name="int8", train=schedule, freeze_ranges=0)
    lab = Lab(recipe, tmp_path, torch.device("cpu"), lambda _: None, quiet=True)
    result = stage.trained(folded, model.with_network(copy.deepcopy(model.network), model.quantization), lab, schedule, {"fact": 1})
    before, after = model.network.state_dict(), result.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in ranges(before).items())
    assert not torch.equal(before["probability.conv.0.weight"], after["probability.conv.0.weight"])
    assert [artefact["fact"] for artefact in lab.artefacts] == [1, 1]
