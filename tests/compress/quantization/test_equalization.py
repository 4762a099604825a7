"""Equalization changes no map, scales what it can by its formula, leaves what it cannot, and brings integers nearer to float."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compress.checkpoint import Model, example_input, fresh
from compress.models.registry import build
from compress.quantization.equalization import equalize
from compress.quantization.folding import fold_batch_norms
from compress.quantization.nncf_torch import quantize
from compress.run_settings import Evaluate
from compress.stages import Quantize
from compress.training.modes import show_all_maps

IMAGES = torch.randn(3, 1, 3, 32, 64, generator=torch.Generator().manual_seed(5))
DB = {"name": "db", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "neck": {"name": "fpn", "channels": 16}}


def model_of(network: nn.Module, *kept: str) -> Model:
    """A model of any network that gives `probability`; the layers `kept` give the maps."""
    algorithm = replace(build(DB), kept_layers=kept)
    return Model(DB, network.eval(), algorithm, Evaluate(short_side=32))


def maps_of(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    show_all_maps(network)
    with torch.no_grad():
        return network(images)


def uneven(network: nn.Module) -> nn.Module:
    """Norms of which some channels are a hundred times as wide as others."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = 10 ** torch.empty_like(module.weight).uniform_(-1, 1)
            module.bias.data.normal_(0, 0.3)
    return network


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"backbone": {"name": "resnet18", "width": 0.25}},
        {"backbone": {"name": "mobilenet_v3_large_ppocr", "width": 0.5}, "neck": {"name": "rse_fpn", "channels": 16}},
        {"name": "pan", "backbone": {"name": "resnet18", "width": 0.25}, "neck": {"name": "fpem_ffm", "channels": 16}},
        {"name": "psenet"},
        {"name": "sast", "backbone": {"name": "resnet18", "width": 0.25}, "neck": None},
        {"name": "craft", "width": 0.125, "backbone": None, "neck": None},
    ],
)
def test_no_map_of_any_detector_changes(changed):
    config = {name: value for name, value in {**DB, **changed}.items() if value is not None}
    model = fresh(config, Evaluate(short_side=32))
    uneven(model.network)
    fold_batch_norms(model.network, example_input(model))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    before, weights = maps_of(model.network, images), copy.deepcopy(model.network.state_dict())
    scaled = equalize(model, images.split(1))
    assert scaled
    assert not model.network.training
    assert any(not torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())
    after = maps_of(model.network, images)
    for name, values in before.items():
        apart = (after[name] - values).abs() > 1e-3 * values.abs().max()
        assert apart.float().mean() < 1e-3, name  # a score may jump where rounding turns the sign of a steep logit


class Pair(nn.Module):
    """Two layers with `between` between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.write, self.between, self.read = nn.Conv2d(3, 6, 3, padding=1), between, nn.Conv2d(6, 5, 3, padding=1)
        self.last = nn.Conv2d(5, 1, 1)
        with torch.no_grad():
            self.write.weight *= torch.logspace(-1, 2, 6)[:, None, None, None]
            self.read.weight *= torch.logspace(0, -2, 6)[:, None, None]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"probability": self.last(self.read(self.between(self.write(images))).tanh())}


@pytest.mark.parametrize("between", [nn.Identity(), nn.ReLU(), nn.AvgPool2d(2), nn.LeakyReLU(), nn.Conv2d(6, 6, 3, padding=1, groups=6)])
def test_ranges_are_those_of_the_formula_afterwards(between):
    network = Pair(between)
    torch.nn.init.ones_(network.between.weight) if isinstance(between, nn.Conv2d) else None
    reads = network.read.weight.abs().amax((2, 3))
    weights = (reads / reads.amax(1, keepdim=True)).amax(0)

    def ranges() -> Tensor:
        written = [network.write(image) for image in IMAGES]
        seen = [values for value in written for values in (value, network.between(value))]
        return torch.stack([values.abs().amax((0, 2, 3)) for values in seen]).amax(0)

    with torch.no_grad():
        before = ranges()
        assert equalize(model_of(network, "last"), IMAGES) == ["write"]
        torch.testing.assert_close(ranges(), (weights * before).sqrt(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("between", [nn.Hardswish(), nn.Sigmoid(), nn.BatchNorm2d(6), nn.PReLU(6), nn.Conv2d(6, 6, 1, groups=2)])
def test_a_group_in_which_scales_would_change_something_is_left_as_it_was(between):
    network = Pair(between)
    before = copy.deepcopy(network.state_dict())
    assert "write" not in equalize(model_of(network, "last"), IMAGES)
    for name in ("write.weight", "write.bias", "read.weight"):
        assert torch.equal(network.state_dict()[name], before[name]), name


def test_a_group_of_a_single_channel_is_scaled_like_any_other():
    network = Pair(nn.Sequential(nn.Conv2d(6, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 6, 1)))
    before = maps_of(network, IMAGES[0])["probability"]
    assert equalize(model_of(network, "last"), IMAGES) == ["write", "between.0", "between.1", "between.2"]
    torch.testing.assert_close(maps_of(network, IMAGES[0])["probability"], before, rtol=1e-4, atol=1e-6)


class Gated(nn.Module):
    """A squeeze and excitation between two layers, with a residual as in PP-OCR's necks, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.write, self.squeeze, self.excite = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.aside, self.up, self.last = nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(12, 4, 2, 2), nn.Conv2d(4, 1, 1)
        with torch.no_grad():
            self.write.weight *= torch.logspace(-1, 1, 8)[:, None, None, None]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.write(images)
        x = x + x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return {"probability": self.last(self.up(torch.cat([self.aside(images), x], 1)))}


def test_a_gate_keeps_its_values_while_what_it_multiplies_is_scaled():
    network = Gated()
    before, maps = copy.deepcopy(network.state_dict()), maps_of(network, IMAGES[0])
    assert {"write", "aside", "squeeze", "up"} <= set(equalize(model_of(network, "last"), IMAGES))
    after = network.state_dict()
    assert not torch.equal(after["write.weight"], before["write.weight"])
    assert torch.equal(after["excite.bias"], before["excite.bias"])
    torch.testing.assert_close(maps_of(network, IMAGES[0])["probability"], maps["probability"], rtol=1e-4, atol=1e-5)


def test_a_channel_that_nothing_reads_no_longer_decides_the_scale(brightness):
    model, lab = brightness([2, 5])
    images = [torch.from_numpy(model.shown(lab.split("train")[index].image)) for index in range(4)]
    wanted = maps_of(model.network, images[0])["probability"]

    def error(network: nn.Module) -> float:
        rounded = quantize(network, images, images[0], model.algorithm.kept)
        return (maps_of(rounded, images[0])["probability"] - wanted).abs().mean().item()

    before = error(model.network)
    assert equalize(model, images)
    assert error(model.network) < before / 5


def test_the_stage_says_which_groups_it_scaled_and_finds_the_words_again(brightness):
    model, lab = brightness([2, 5])
    plain = Quantize(name="int8", mode="ptq", calibration=4)
    scores = {}
    for stage in (plain, plain.model_copy(update={"equalize": True})):
        lab.artefacts.clear()
        scores[stage.equalize] = lab.evaluate(stage.apply(model, lab), "val")["hmean"]
        assert bool(lab.artefacts[0].get("equalized")) == stage.equalize
    assert scores[True] == 1
    assert scores[False] < 0.5
