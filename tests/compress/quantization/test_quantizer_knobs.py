"""Each knob changes what it says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compress.errors import CompressError
from compress.quantization.nncf_torch import layer_quantizers, plain_state, quantize, quantizers
from compress.quantization.settings import Quantizers
from compress.stages.quantize import Quantize

pytestmark = pytest.mark.slow

LAYER = "blocks.0.project.0"


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        return self.conv(images)


@pytest.fixture(scope="module")
def singles(batches):
    """Images one at a time, of unlike contrast, as calibration gives them."""
    return [batch[:1] * contrast for batch, contrast in zip(batches, (0.5, 1.0, 1.5, 3.0), strict=True)]


@pytest.fixture(scope="module")
def made(detector, singles):
    """Settings -> the quantized detector, each made once."""
    known = {}

    def make(**settings):
        settings = {"bias_correction": False, "without_vnni": False, **settings}
        key = str(settings)
        if key not in known:
            known[key] = quantize(detector, singles, singles[0], ["last"], Quantizers(**settings))
        return known[key]

    return make


@pytest.fixture(scope="module")
def weights_of(singles):
    """A network -> its weights' quantizers by layer."""
    return lambda network: {name: found[0] for name, found in layer_quantizers(network, singles[0]).items()}


def changed(first: nn.Module, second: nn.Module) -> set[str]:
    """Names in the state of either that the other has not, or has with other values."""
    one, other = plain_state(first), plain_state(second)
    return {name for name in one.keys() | other.keys() if name not in one or name not in other or not torch.equal(one[name], other[name])}


def read_by(network: nn.Module, layer: str, images: list[torch.Tensor]) -> list[np.ndarray]:
    """What a float layer reads on each image."""
    seen = []
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].numpy().copy()))
    with torch.no_grad():
        for image in images:
            network(image)
    handle.remove()
    return seen


def test_batch_norms_are_folded_before(made):
    assert not [module for module in made().modules() if isinstance(module, nn.BatchNorm2d)]


def test_one_scale_for_a_whole_weight(made, weights_of):
    plain, whole = made(), made(per_channel=False)
    assert changed(plain, whole) == {
        f"__nncf_hooks.{name}.scale" for name, module in quantizers(plain).items() if module in weights_of(plain).values()
    }
    channels = weights_of(plain)
    for name, quantizer in weights_of(whole).items():
        assert quantizer.scale.shape == (1,)
        # Told of processors with VNNI, NNCF gives the first layer 7 bits all the same.
        half = 2 if name == "stem.0" else 1
        assert float(quantizer.scale.detach()) == pytest.approx(half * float(whole.get_submodule(name).weight.detach().abs().max()))
        assert channels[name].scale.numel() > 1
        assert float(channels[name].scale.detach().max()) == pytest.approx(float(quantizer.scale.detach()))


def test_asymmetric_activations_have_zero_points(made, weights_of, singles):
    plain, moved = made(activations="symmetric"), made()
    weights = {name for name, module in quantizers(moved).items() if module in weights_of(moved).values()}
    assert not {name for name in changed(plain, moved) if name.removeprefix("__nncf_hooks.").rpartition(".")[0] in weights}
    images = quantizers(moved)["post_hooks.images__0.0"]
    low, high = (float(value.detach()) for value in images.get_input_low_input_high())
    expected = [np.mean([getattr(np, side)(image.numpy()) for image in singles]) for side in ("min", "max")]
    # The range is widened, by less than a step, until zero lies on the grid.
    step = (high - low) / 255
    assert expected[0] - step <= low <= expected[0] + 1e-5
    assert expected[1] - 1e-5 <= high <= expected[1] + step
    assert -low / step == pytest.approx(round(-low / step), abs=1e-3)
    low, high = (float(value.detach()) for value in quantizers(plain)["post_hooks.images__0.0"].get_input_low_input_high())
    assert -low / high == pytest.approx(128 / 127)


RANGES = {
    "mean_min_max": lambda values: np.mean([value.max() for value in values]),
    "min_max": lambda values: np.max(values),
    "percentile": lambda values: np.mean([np.quantile(value, 0.9) for value in values]),
}


@pytest.mark.parametrize("ranges", RANGES)
def test_ranges_are_what_they_say(made, detector, singles, ranges):
    percentile = {"percentile": 90} if ranges == "percentile" else {}
    network = made(ranges=ranges, **percentile)
    values = read_by(detector, LAYER, singles)
    (given,) = layer_quantizers(network, singles[0])[LAYER][1:]
    low, high = (float(value.detach()) for value in given.get_input_low_input_high())
    assert low == 0
    assert high == pytest.approx(RANGES[ranges](values), rel=1e-4)


def test_a_histogram_cuts_an_outlier_off_where_that_lowers_the_squared_error():
    images = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, 0] = 12
    errors, highs = {}, {}
    for ranges in ("min_max", "histogram"):
        network = quantize(One(), [images], images, (), Quantizers(ranges=ranges, activations="symmetric"))
        low, high = (float(value.detach()) for value in quantizers(network)["post_hooks.images__0.0"].get_input_low_input_high())
        step = (high - low) / 255
        highs[ranges] = high
        errors[ranges] = float((((images / step).round().clamp(-128, 127) * step - images) ** 2).mean())
    assert highs["min_max"] == pytest.approx(12)
    assert highs["histogram"] < 9
    assert errors["histogram"] < 0.8 * errors["min_max"]


@pytest.mark.parametrize("ranges", ["min_max", "percentile", "histogram"])
def test_ranges_change_activations_alone(made, weights_of, ranges):
    plain, other = made(), made(ranges=ranges)
    weights = {name for name, module in quantizers(plain).items() if module in weights_of(plain).values()}
    names = {name.removeprefix("__nncf_hooks.") for name in changed(plain, other)}
    assert names
    assert all(name.rpartition(".")[2] in ("input_low", "input_range") and name.rpartition(".")[0] not in weights for name in names)


def test_bias_correction_changes_biases_alone(made):
    moved = changed(made(), made(bias_correction=True))
    assert moved
    assert all(name.endswith(".bias") for name in moved)


def test_bias_correction_restores_the_mean_that_rounded_weights_lose():
    network = One()
    with torch.no_grad():
        network.conv.weight.fill_(0.1)
        network.conv.bias.fill_(1)  # NNCF leaves biases alone that would be shifted by more than twice themselves
        network.conv.weight[0] = 30  # with one scale for all, the others are rounded to zero
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    shifts = []
    for corrected in (False, True):
        quantized = quantize(network, [images], images, (), Quantizers(per_channel=False, bias_correction=corrected))
        with torch.no_grad():
            shifts.append((quantized(images) - network(images)).mean((0, 2, 3))[1:].abs())
    assert (shifts[0] > 0.1).all()
    assert (shifts[1] < 0.02).all()


def test_more_images_change_ranges_alone(detector, singles, made):
    fewer = quantize(detector, singles[:2], singles[0], ["last"], Quantizers(bias_correction=False, without_vnni=False))
    assert {name.rpartition(".")[2] for name in changed(made(), fewer)} <= {"input_low", "input_range"}


def test_a_percentile_that_nothing_reads_is_refused():
    Quantize(name="a", mode="ptq", ranges="percentile", percentile=99).check_quantizers()
    with pytest.raises(CompressError, match=r"percentile: 99\.0 has no effect with ranges: histogram; set ranges: percentile"):
        Quantize(name="a", mode="ptq", ranges="histogram", percentile=99).check_quantizers()


@pytest.mark.parametrize(
    "keys", [{"percentile": 100}, {"ranges": "entropy"}, {"activations": "signed"}, {"freeze_ranges": 1.5}, {"max_drop": -1}]
)
def test_values_out_of_range_are_refused(keys):
    with pytest.raises(ValidationError, match=next(iter(keys))):
        Quantize(name="a", train={"epochs": 1}, **keys)
