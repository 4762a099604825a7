"""What is simplified away: kernels' unseen rows, constant channels, norms that do nothing; and that outputs stay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.checkpoint import Model, fresh, load, save
from compress.errors import CompressError
from compress.pruning.simplify import in_double, largest_difference, simplify, unseen_rows
from compress.tasks.detection import EvaluateDetection
from compress.tasks.recognition import EvaluateRecognition

RECOGNISER = {"name": "svtr_lcnet", "backbone": {"name": "mobilenet_v1_enhance", "width": 0.125}, "sequence": {"name": "svtr", "dims": 16}}
DETECTOR = {"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 16}}


def recogniser() -> Model:
    torch.manual_seed(0)
    return fresh({**RECOGNISER, "alphabet": "digits"}, EvaluateRecognition())


def detector() -> Model:
    torch.manual_seed(0)
    return fresh(DETECTOR, EvaluateDetection(short_side=64))


def images(seed: int, size: tuple[int, int] = (48, 64), count: int = 2):
    generator = torch.Generator().manual_seed(seed)
    return lambda: iter([torch.randn(1, 3, *size, generator=generator) for _ in range(count)])


def norms(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


@torch.no_grad()
def deaden(network: nn.Module) -> int:
    """Take every third channel's weight from every norm, and leave it a shift of its own; returns how many."""
    dead = 0
    for norm in norms(network).values():
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        norm.weight[::3] = 1e-30
        dead += len(norm.weight[::3])
    return dead


def test_rows_of_kernels_that_see_padding_alone_go_and_outputs_stay(tmp_path):
    model = recogniser()
    before = copy.deepcopy(model.network).eval()
    facts = simplify(model, images(0), images(1), 1e-12)
    assert facts["kernels"] == {"sequence.reduce.0.0": [3, 1], "sequence.join.0.0": [3, 1]}
    assert facts["parameters"][0] - facts["parameters"][1] == 2 * 3 * (128 * 16 + 256 * 16)
    for width in (32, 160):
        (line,) = images(2, (48, width), 1)()
        torch.testing.assert_close(model.network.eval()(line)["probability"], before(line)["probability"], atol=1e-6, rtol=1e-5)
    save(model, tmp_path / "simple")
    loaded = load(tmp_path / "simple").network
    assert loaded.get_submodule("sequence.join.0.0").weight.shape == (16, 256, 1, 3)
    torch.testing.assert_close(loaded(line)["probability"], model.network(line)["probability"], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("height", "stride", "rows", "unseen"), [(1, 1, 3, 1), (2, 1, 3, 0), (2, 1, 5, 1), (3, 1, 7, 1), (1, 2, 5, 2), (9, 1, 5, 0)]
)
def test_unseen_rows_are_those_whose_weights_do_not_matter(height, stride, rows, unseen):
    layer = nn.Conv2d(1, 1, (rows, 3), stride=(stride, 1), padding=(rows // 2, 1))
    assert unseen_rows(layer, height) == unseen
    x = torch.rand(1, 1, height, 8) + 0.5
    expected = layer(x)
    with torch.no_grad():
        layer.weight[:, :, :unseen] = 100
        layer.weight[:, :, rows - unseen :] = 100
        torch.testing.assert_close(layer(x), expected)
        layer.weight[:, :, unseen] = 100
        assert not torch.allclose(layer(x), expected)


@pytest.mark.parametrize(("make", "size"), [(recogniser, (48, 64)), (detector, (64, 96))])
def test_constant_channels_go_and_their_constants_stay(make, size, tmp_path):
    model = make()
    deaden(model.network)
    before = in_double(model.network)
    facts = simplify(model, images(0, size), images(1, size), 1e-6)
    assert sum(facts["channels"].values()) > 20
    assert facts["difference"] <= facts["rounding"] < 1e-5
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}
    assert facts["parameters"][1] < 0.95 * facts["parameters"][0]
    difference, _ = largest_difference(before, in_double(model.network), images(2, size, 3)())
    assert difference < 10 * facts["rounding"]
    save(model, tmp_path / "simple")
    loaded = load(tmp_path / "simple")
    assert sum(parameter.numel() for parameter in loaded.network.parameters()) == facts["parameters"][1]


def test_the_rounding_of_new_biases_is_told_and_is_no_change():
    model = detector()
    deaden(model.network)
    with torch.no_grad():
        model.network.probability.up2.weight *= 1000
    tolerance = 1e-10
    facts = simplify(model, images(0, (64, 96)), images(1, (64, 96)), tolerance)
    assert facts["difference"] < tolerance < facts["rounding"] / 100


def test_channels_that_were_only_silent_stay():
    model = detector()
    with torch.no_grad():
        for norm in norms(model.network).values():
            norm.bias[::3] = -1e3  # nothing passes the ReLU behind it, but weights are as they were
    assert simplify(model, images(0, (64, 64)), images(1, (64, 64)), 1e-6)["channels"] == {}


def test_a_norm_that_does_nothing_goes(tmp_path):
    model = detector()
    name, norm = next(iter(norms(model.network).items()))
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean)
    others = {other: layer for other, layer in norms(model.network).items() if other != name}
    with torch.no_grad():
        for layer in others.values():
            layer.weight.fill_(0.9)
    assert simplify(model, images(0, (64, 64)), images(1, (64, 64)), 1e-6)["identities"] == [name]
    save(model, tmp_path / "simple")
    assert norms(load(tmp_path / "simple").network).keys() == others.keys()


def test_a_change_above_the_tolerance_is_an_error():
    model = recogniser()
    deaden(model.network)
    with pytest.raises(CompressError, match=r"map '(logits|probability)' has changed by .* of its largest value, and 1e-30 is allowed"):
        simplify(model, images(0), images(1), 1e-30)
