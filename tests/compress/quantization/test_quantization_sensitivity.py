"""Each layer quantized alone: against a computation by hand, on a model whose culprit is known, and cut off in the middle."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import CompressError
from compress.files import read_json
from compress.quantization import sensitivity
from compress.quantization.folding import fold_batch_norms
from compress.quantization.nncf_torch import enable_only, layer_quantizers, quantize, quantizers
from compress.quantization.sensitivity import quantization_sensitivity
from compress.quantization.settings import Quantizers

UNCORRECTED = Quantizers(bias_correction=False, without_vnni=False)


def probability(network, images):
    with torch.no_grad():
        return network(images)["probability"]


def test_one_layer_quantized_is_what_a_hand_computes(brightness):
    model, _ = brightness({2})
    torch.manual_seed(0)
    for layer in model.network.layers:
        nn.init.normal_(layer.weight, 0.2, 0.5)
    batches = [torch.randn(1, 3, 16, 24) + index for index in range(3)]
    network = quantize(model.network, batches, batches[0], ["last"], UNCORRECTED)
    enable_only(network, layer_quantizers(network, batches[0])["layers.2"])

    layers = model.network.layers
    with torch.no_grad():
        before = [layers[1](layers[0](batch).relu()).relu() for batch in batches]
        high = torch.stack([x.max() for x in before]).mean()
        x = (before[1] / (high / 255)).round().clamp(0, 255) * (high / 255)
        step = layers[2].weight.abs().amax((1, 2, 3), keepdim=True) / 127
        weight = (layers[2].weight / step).round() * step
        x = nn.functional.conv2d(x, weight, layers[2].bias).relu()
        for layer in layers[3:]:
            x = layer(x).relu()
        expected = model.network.last(x).sigmoid()
    given = probability(network, batches[1])
    assert (given - probability(model.network, batches[1])).abs().max() > 1e-4
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)


def test_with_no_quantizer_on_the_network_is_the_folded_float_one(detector, batches):
    network = quantize(detector, batches[:1], batches[0], ["last"], UNCORRECTED)
    enable_only(network, ())
    folded = copy.deepcopy(detector)
    fold_batch_norms(folded, batches[0])
    assert torch.equal(probability(network, batches[1]), probability(folded, batches[1]))


def test_every_layer_has_its_weight_and_the_activations_that_it_reads(quantized_detector, batches):
    layers = layer_quantizers(quantized_detector, batches[0])
    names = ["stem.0", *(f"blocks.{i}.{part}.0" for i in (0, 1) for part in ("expand", "depthwise", "project")), "head.0", "up.0"]
    assert list(layers) == names
    widths = {name: quantized_detector.get_submodule(name).weight.shape[1 if name == "up.0" else 0] for name in names}
    for name, (weight, *inputs) in layers.items():
        assert weight.scale.numel() == widths[name]
        assert [quantizer.get_input_low_input_high()[1].numel() for quantizer in inputs] == [1]
    assert layers["blocks.0.expand.0"][1] is quantizers(quantized_detector)["post_hooks.stem/2/hardswish/0__0.0"]


def test_the_culprit_is_the_most_sensitive_layer(brightness):
    model, lab = brightness({3})
    report = quantization_sensitivity(model, lab, artefact="there", top=3, calibration=6, images=3)
    assert read_json(lab.folder / "sensitivity_quantize.json") == report
    fixed = {key: report[key] for key in ("kind", "artefact", "task", "main", "split", "images", "seed")}
    assert fixed == {"kind": "quantize", "artefact": "there", "task": "detection", "main": "hmean", "split": "val", "images": 3, "seed": 0}
    assert report["settings"] == lab.recipe.evaluate.reported(model.algorithm)
    assert report["baseline"] == {"loss": 0.0, "scores": {"precision": 1.0, "recall": 1.0, "hmean": 1.0}}
    points = {point["layer"]: point for point in report["points"]}
    assert list(points) == [f"layers.{index}" for index in range(7)]
    culprit = points.pop("layers.3")
    assert culprit["scores"]["hmean"] == 0
    assert culprit["loss"] > 10 * max(point["loss"] for point in points.values())
    assert sum(point["scores"] is not None for point in points.values()) == 2
    assert report["rank_correlation"] > 0


def test_the_difference_of_maps_is_the_mean_over_images_and_maps():
    zero, one = np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 1, 4, 4), np.float32)
    given, expected = [{"a": zero, "b": one}, {"a": one, "b": one}], [{"a": zero, "b": -one}, {"a": one, "b": 0 * one}]
    assert sensitivity.difference(given, expected) == pytest.approx((0 + 2 + 0 + 1) / 4)


def test_a_sweep_that_was_cut_off_measures_nothing_twice(brightness, monkeypatch):
    model, lab = brightness({3})
    whole = quantization_sensitivity(model, lab, top=2, calibration=2, images=2, folder=lab.folder / "..")
    calls = []
    real = sensitivity.difference

    def cut_off(given, expected):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(given, expected)

    with monkeypatch.context() as patched:
        patched.setattr(sensitivity, "difference", cut_off)
        with pytest.raises(KeyboardInterrupt):
            quantization_sensitivity(model, lab, top=2, calibration=2, images=2)
    assert [point["layer"] for point in read_json(lab.folder / sensitivity.FILE)["points"]] == ["layers.0", "layers.1", "layers.2"]
    monkeypatch.setattr(sensitivity, "difference", lambda *pair: calls.append(pair) or real(*pair))
    assert quantization_sensitivity(model, lab, top=2, calibration=2, images=2) == whole
    assert len(calls) == 4 + 4
    # Another model's points are of no use.
    with torch.no_grad():
        model.network.layers[0].bias += 0.1
    quantization_sensitivity(model, lab, top=2, calibration=2, images=2)
    assert len(calls) == 4 + 4 + 7


def test_what_cannot_be_measured_is_said(brightness):
    model, lab = brightness({3})
    with pytest.raises(CompressError, match=r"'layer\.3'"):
        quantization_sensitivity(model, lab, calibration=1, keep_float=["layer.3"])
    model.quantization = "{}"
    with pytest.raises(CompressError, match="runs/int8 is quantized already"):
        quantization_sensitivity(model, lab, artefact="runs/int8")
    model.quantization = None
    lab.splits["val"] = type(lab.split("val"))("val", [], None, "")
    with pytest.raises(CompressError, match="val split holds no images"):
        quantization_sensitivity(model, lab)
