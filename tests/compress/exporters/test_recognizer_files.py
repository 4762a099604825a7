"""A recogniser's files: equal to torch at three widths and two batch sizes, and they carry the alphabet and the width policy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress.checkpoint import fresh, load, save
from compress.cost import macs
from compress.errors import CompressError
from compress.exporters.write import write_files
from compress.predictor import equal_sizes, open_predictor
from compress.runtimes import open_file
from compress.tasks.recognition import EvaluateRecognition

pytestmark = pytest.mark.slow

CONFIG = {
    "name": "crnn",
    "backbone": {"name": "mobilenet_v3_small", "width": 0.25},
    "sequence": {"name": "bilstm", "hidden": 12},
    "alphabet": {"characters": "aé漢 "},
}


SIZES = {"height": 32, "width": [64, 160]}


def model(**changed):
    torch.manual_seed(0)
    found = fresh({**CONFIG, **changed}, EvaluateRecognition(**SIZES))
    nn.init.normal_(found.network.head.weight, std=3)  # fresh weights alone give the same classes everywhere
    return found


@pytest.mark.parametrize("name", ["onnx", "openvino", "torchscript"])
def test_a_file_gives_what_torch_gives_at_any_width_and_batch(name, tmp_path):
    ours = model()
    ((_, path, facts),) = write_files(ours, [name], tmp_path, [np.random.default_rng(0).integers(0, 256, (40, 130, 3), np.uint8)])
    assert facts["difference"]["probability"]["maximum"] < 1e-4
    runtime = open_file(tmp_path / path, threads=1)
    for batch in (1, 3):
        for width in (32, 100, 324):
            images = torch.randn(batch, 3, 32, width, generator=torch.Generator().manual_seed(width))
            with torch.inference_mode():
                expected = ours.network.eval()(images)["probability"].numpy()
            found = runtime.run(images.numpy())["probability"]
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert expected.std() > 0.1
    predictor = open_predictor(tmp_path / path, threads=1)
    assert predictor.algorithm.alphabet.characters == "aé漢 "
    assert predictor.evaluate == EvaluateRecognition(**SIZES)


def largest_difference(ours, path, sizes):
    """Between the file and torch, of the probabilities, over lines of several sizes."""
    runtime = open_file(path, threads=1)
    worst = 0.0
    for size in sizes:
        images = torch.randn(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = ours.network.eval()(images)["probability"].numpy()
        assert expected.std() > 0.1
        worst = max(worst, float(np.abs(runtime.run(images.numpy())["probability"] - expected).max()))
    return worst


@pytest.mark.parametrize("backbone", [{"name": "mobilenet_v1_enhance", "width": 0.125}, {"name": "pphgnet_small_lines", "width": 0.0625}])
def test_an_lstm_behind_features_of_one_row_is_exported_too(backbone, tmp_path):
    ours = model(backbone=backbone)
    ((_, path, _),) = write_files(ours, ["onnx"], tmp_path, [])
    assert largest_difference(ours, tmp_path / path, [(2, 48, 136)]) < 1e-5


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_lines_are_straightened_in_files_too(name, tmp_path):
    ours = model(transform="tps")
    nn.init.normal_(ours.network.transform.offsets.weight, std=0.1)
    ((_, path, _),) = write_files(ours, [name], tmp_path, [])
    assert largest_difference(ours, tmp_path / path, [(1, 32, 32), (3, 32, 100), (1, 48, 324)]) < 1e-4


DECODERS = {
    "crnn": {**CONFIG, "head": {"name": "attention", "hidden": 8, "longest": 4}},
    "sar": {"name": "sar", "backbone": {"name": "resnet31", "width": 0.125}, "hidden": 8, "keys": 8, "longest": 4, "alphabet": "digits"},
}


@pytest.mark.slow
@pytest.mark.parametrize(("config", "name"), [("crnn", "onnx"), ("crnn", "torchscript"), ("sar", "openvino")])
def test_a_file_of_a_decoder_reads_what_torch_reads_at_any_width_and_batch(config, name, tmp_path):
    torch.manual_seed(0)
    ours = fresh(DECODERS[config], EvaluateRecognition(height=32))
    for parameter in ours.network.decoder.parameters():
        nn.init.normal_(parameter)
    ((_, path, _),) = write_files(ours, [name], tmp_path, [])
    runtime = open_file(tmp_path / path, threads=1)
    for batch in (1, 3):
        for width in (32, 100, 324):
            images = torch.randn(batch, 3, 32, width, generator=torch.Generator().manual_seed(width))
            with torch.inference_mode():
                expected = ours.network.eval()(images)["probability"].numpy()
            np.testing.assert_allclose(runtime.run(images.numpy())["probability"], expected, atol=1e-4)
            assert expected.std(1).max() > 0.02  # a step gives something else than the one before
    if name == "onnx":  # so many copies of the operators of a step, and its weights once
        import onnx

        names = [constant.name for constant in onnx.load(tmp_path / path).graph.initializer if constant.name.startswith("decoder")]
        assert (
            len(names) == len(set(names)) == len([name for name, _ in ours.network.decoder.named_parameters() if "attention" not in name])
        )


@pytest.mark.slow
def test_the_steps_of_a_decoder_stay_float_in_int8_files_and_their_weights_lie_in_8_bits(tmp_path):
    import onnx
    from onnx import TensorProto

    from compress.checkpoint import example_input
    from compress.quantization.nncf_torch import config_json, quantize, quantizers

    torch.manual_seed(0)
    ours = fresh({**DECODERS["sar"], "hidden": 32}, EvaluateRecognition(height=32))
    images = torch.randn(4, 3, 32, 64)
    network = quantize(ours.network, [images], example_input(ours), ours.algorithm.kept_layers)
    places = list(quantizers(network))
    assert any("keys" in place for place in places)
    assert not [place for place in places if "decoder" in place]
    ((_, path, _),) = write_files(ours.with_network(network, config_json(network)), ["onnx"], tmp_path, [])
    with torch.inference_mode():
        expected = network.eval()(images)["probability"].numpy()
    np.testing.assert_allclose(open_file(tmp_path / path, threads=1).run(images.numpy())["probability"], expected, atol=0.01)
    kinds = {constant.name: constant.data_type for constant in onnx.load(tmp_path / path).graph.initializer}
    assert kinds["decoder.embedding.weight_int8"] == kinds["decoder.second.reveal.state.weight_int8"] == TensorProto.INT8
    assert "decoder.second.reveal.state.weight" not in kinds


@pytest.mark.parametrize("name", ["nrtr", *sorted(DECODERS)])
def test_an_int8_file_of_a_decoder_differs_from_torch_by_the_rounding_of_its_weights_alone(name, tmp_path):
    from compress.checkpoint import example_input
    from compress.exporters.integers import as_in_files
    from compress.exporters.onnx import export_onnx
    from compress.quantization.nncf_torch import quantize

    torch.manual_seed(0)
    sizes = {"height": 32, "dims": 32, "heads": 4, "hidden": 48, "encoder_layers": 1, "decoder_layers": 2, "longest": 4}
    config = {"name": "nrtr", "alphabet": "digits", **sizes} if name == "nrtr" else DECODERS[name]
    config |= {"sar": {"hidden": 48}, "crnn": {"head": {"name": "attention", "hidden": 48, "longest": 4}}}.get(name, {})
    ours = fresh(config, EvaluateRecognition(height=32))
    for parameter in ours.network.decoder.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    images = torch.randn(4, 3, 32, 64)
    example = example_input(ours)
    network = quantize(ours.network, [images], example, (*ours.algorithm.kept, "backbone.*"))  # no tie of its integers is seen
    runtime = open_file(export_onnx(network, tmp_path / "m.onnx", example, ours.description()), threads=1)
    with torch.inference_mode():
        exact, expected = (each(images)["probability"].numpy() for each in (network, as_in_files(network, example)))
    given = runtime.run(images.numpy())["probability"]
    assert np.abs(given - exact).max() > 1e-3
    assert np.abs(given - expected).max() < 0.05 * np.abs(given - exact).max()


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"name": "svtr_lcnet", "backbone": {"name": "mobilenet_v1_enhance", "width": 0.125}, "sequence": {"name": "svtr", "dims": 16}},
        {"name": "svtr_lcnet", "backbone": "lcnet_v4_lines_tiny", "sequence": "light_svtr"},
    ],
)
def test_ncnn_reads_what_torch_reads_at_any_width(changed, tmp_path):
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    ours = model(**changed)
    ((_, path, _),) = write_files(ours, ["ncnn"], tmp_path, [])
    runtime = open_file(tmp_path / path, threads=1)
    for width in (64, 104, 328):
        images = torch.randn(2, 3, 48, width, generator=torch.Generator().manual_seed(width))
        with torch.inference_mode():
            expected = ours.network.eval()(images)["probability"].numpy()
        np.testing.assert_allclose(runtime.run(images.numpy())["probability"], expected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_ncnn_says_that_it_has_no_decoders(name, tmp_path):
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    with pytest.raises(CompressError, match=r"ncnn has no operator for 'torch\.argmax' of this network; export it as onnx instead"):
        list(write_files(fresh(DECODERS[name], EvaluateRecognition(height=32)), ["ncnn"], tmp_path, []))


def test_torch_export_is_refused_as_it_would_fix_the_width(tmp_path):
    with pytest.raises(CompressError, match="torch_export cannot hold this network"):
        list(write_files(model(), ["torch_export"], tmp_path, []))


def test_a_checkpoint_says_all_of_it_too(tmp_path):
    ours = model()
    save(ours, tmp_path)
    again = load(tmp_path)
    assert again.algorithm.alphabet == ours.algorithm.alphabet
    assert again.evaluate == ours.evaluate
    assert json.loads(json.dumps(again.description()))["model"] == CONFIG
    for one, other in zip(again.network.state_dict().values(), ours.network.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_line_is_read_alone_whatever_is_in_its_batch(tmp_path):
    save(model(), tmp_path)
    predictor = open_predictor(tmp_path)
    rng = np.random.default_rng(0)
    lines = [rng.integers(0, 256, (32, width, 3), np.uint8) for width in (60, 60, 30, 155, 300, 60)]
    together = list(predictor.outputs(lines))
    assert [outputs["probability"].shape[1] for outputs in together] == [16, 16, 16, 40, 75, 16]
    for line, outputs in zip(lines, together, strict=True):
        (alone,) = predictor.outputs([line])
        np.testing.assert_allclose(outputs["probability"], alone["probability"], atol=1e-6)


def test_an_lstm_s_products_are_counted():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)

        def forward(self, images):
            return {"steps": self.lstm(images.mean(2).transpose(1, 2))[0]}

    assert macs(Steps(), (2, 3, 4, 7)) == 2 * 7 * 4 * 5 * (3 + 5)


def test_lines_of_equal_size_share_a_batch_though_others_stand_between(tmp_path):
    save(model(), tmp_path)
    predictor = open_predictor(tmp_path)
    sizes = []

    def run(images):
        sizes.append(images.shape)
        return predictor.run(images)

    lines = [np.full((32, width, 3), width % 256, np.uint8) for width in (60, 155, 30, 155, 300, 60)]
    list(replace(predictor, run=run).outputs(lines))
    assert sorted(sizes) == [(1, 3, 32, 300), (2, 3, 32, 160), (3, 3, 32, 64)]
    assert sorted(place for places in equal_sizes([(2048, 1024, 3)] * 3 + [(8, 8, 3)]) for place in places) == [0, 1, 2, 3]
    assert [len(places) for places in equal_sizes([(1024, 1024, 3)] * 5)] == [2, 2, 1]
