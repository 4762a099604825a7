"""PP-OCR's recognisers and version 6's detectors, with random weights, exported here in the form that their files have, and converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compress.checkpoint import fresh, load
from compress.convert import convert, convert_file
from compress.data.lines.alphabets import from_file
from compress.errors import CompressError
from compress.models.necks.fpn import joined, top_down
from compress.quantization.folding import fold_pair
from compress.stages.alphabet import KeepCharacters
from compress.tasks.detection import EvaluateDetection
from compress.tasks.recognition import EvaluateRecognition

V3 = {
    "name": "svtr_lcnet",
    "backbone": {"name": "mobilenet_v1_enhance", "width": 0.125},
    "sequence": {"name": "svtr", "dims": 120, "outputs": 8},
}
V4 = {
    "name": "svtr_lcnet",
    "backbone": {"name": "lcnet_v3_lines", "width": 0.25},
    "sequence": {"name": "svtr", "dims": 120, "outputs": 24, "tall": False},
}
V6_SMALL = {"name": "svtr_lcnet", "backbone": "lcnet_v4_lines_small", "sequence": {"name": "light_svtr", "dims": 120}}
V6_TINY = {"name": "svtr_lcnet", "backbone": "lcnet_v4_lines_tiny", "sequence": {"name": "separable", "dims": 8}}
V6_DETECTOR = {"name": "db", "backbone": {"name": "lcnet_v4_tiny", "width": 0.25}, "neck": {"name": "separable_rse_fpn", "channels": 16}}


def network(config: dict[str, Any], merged: str | tuple[str, ...], characters: str = "") -> nn.Module:
    """A network with random weights and statistics. merged: the part whose batch norms are merged, as in the file; some stems
    keep their own."""
    torch.manual_seed(0)
    written = {"alphabet": {"characters": characters}} if characters else {}
    built = fresh({**config, **written}, EvaluateRecognition() if characters else EvaluateDetection()).network
    names = dict(built.named_modules())
    for name, module in names.items():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            parent, _, place = name.rpartition(".")
            plain_stem = ".stem." in name and config in (V4, V6_TINY)
            if merged and name.startswith(merged) and not plain_stem:
                fold_pair(names[f"{parent}.{int(place) - 1}"], module)
                built.set_submodule(name, nn.Identity())
    return built.eval()


class CoarsestFirst(nn.Module):
    """A detector that computes the coarsest level before the others, as PaddleOCR does."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features, neck = self.detector.backbone(images), self.detector.neck
        levels = top_down([neck.laterals[level](features[level]) for level in (3, 2, 1, 0)][::-1])
        smooth = [neck.smooths[level](levels[level]) for level in (3, 2, 1, 0)]
        return {"probability": self.detector.probability(joined(smooth[::-1])).sigmoid()}


class One(nn.Module):
    """The network's one exported output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)["probability"]


def exported(built: nn.Module, path: Path, metadata: dict[str, str] | None = None, size: tuple[int, int] = (48, 320)) -> Path:
    """The file of a network, batch norms and all; any size of input may be given where it is a detector's."""
    torch.onnx.export(
        One(built),
        (torch.zeros(1, 3, *size),),
        str(path),
        input_names=["x"],
        opset_version=14,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=True,
        dynamic_axes={"x": {2: "h", 3: "w"}} if size != (48, 320) else None,
        dynamo=False,
    )
    model = onnx.load(path)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def lines(count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 60 + 200 * index, 3), np.uint8) for index in range(count)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "merged", "title"),
    [
        (V3, "", "PP-OCRv3 recogniser"),
        (V4, "backbone", "PP-OCRv4 or v5 mobile recogniser"),
        (V6_TINY, "backbone", "PP-OCRv6 tiny recogniser"),
        pytest.param(V6_SMALL, "backbone", "PP-OCRv6 small recogniser", marks=pytest.mark.slow),
    ],
)
def test_a_recogniser_comes_in_with_its_characters(tmp_path, config, merged, title):
    theirs = network(config, merged, "abc")
    path = exported(theirs, tmp_path / "model.onnx", {"character": "a\nb\nc"})
    told = list(convert_file(path, tmp_path / "checkpoint", [], None, None))
    assert told[0].startswith(f"{path}: {title}, ")
    ours = load(tmp_path / "checkpoint")
    assert ours.algorithm.alphabet.characters == "abc"
    assert ours.evaluate.width == 320
    image = torch.randn(1, 3, 48, 160)
    expected = theirs(image.flip(1))["probability"]  # their input is BGR
    torch.testing.assert_close(ours.network(image)["probability"], expected, atol=1e-5, rtol=1e-4)
    assert expected.std(2).min() > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_a_detector_of_version_6_comes_in(tmp_path):
    theirs = network(V6_DETECTOR, ("backbone", "probability"))
    path = exported(CoarsestFirst(theirs), tmp_path / "model.onnx", size=(64, 64))
    converted = convert(path, [np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)])
    assert converted.family.title == "PP-OCRv6 tiny detector"
    assert all(name.startswith("threshold.") for name in converted.fresh)
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(converted.model.network(image)["probability"], theirs(image.flip(1))["probability"], atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A recogniser of five classes without a dictionary."""
    return exported(network(V3, "", "ab  "), tmp_path_factory.mktemp("export") / "model.onnx")


@pytest.mark.filterwarnings("ignore")
def test_dictionaries_from_files_and_settings(file, tmp_path):
    (tmp_path / "dictionary.txt").write_text("a\nb\n", encoding="utf-8")
    given = convert(file, lines(), None, tmp_path / "dictionary.txt")
    assert given.model.algorithm.alphabet.characters == "ab  "  # PaddleOCR adds a space, and the classes say that there is one more
    (tmp_path / "model.onnx").write_bytes(file.read_bytes())
    (tmp_path / "model.yml").write_text("PostProcess: {character_dict: [a, '🇩🇪', c]}", encoding="utf-8")
    beside = convert(tmp_path / "model.onnx", lines())
    assert beside.model.algorithm.alphabet.characters == "a\ue000c "
    assert beside.private == {"🇩🇪": "\ue000"}
    torch.testing.assert_close(beside.model.network.head.weight, given.model.network.head.weight)


@pytest.mark.filterwarnings("ignore")
def test_a_recipe_takes_the_dictionary_that_a_file_carries(file, tmp_path):
    settings = tmp_path / "rec.yml"
    settings.write_text("PostProcess: {character_dict: ['1', '🇩🇪', é]}", encoding="utf-8")
    assert from_file(str(settings)) == {"characters": "1\ue000é "}
    carrying = onnx.load(file)
    carrying.metadata_props.add(key="character", value="x\ny\n ")
    onnx.save(carrying, tmp_path / "rec.onnx")
    assert from_file(str(tmp_path / "rec.onnx")) == {"characters": "xy "}
    assert KeepCharacters(name="a", characters={"file": str(settings)}).characters == {"characters": "1\ue000é "}
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CompressError, match=r"model.alphabet.file: .*cut.onnx cannot be read as an ONNX model"):
        from_file(str(tmp_path / "cut.onnx"))


@pytest.mark.filterwarnings("ignore")
def test_what_is_wrong_with_a_dictionary_is_said(file, tmp_path):
    with pytest.raises(
        CompressError, match=r"does not say which characters it reads, and there is no model.yml beside it; give --dictionary"
    ):
        convert(file, lines())
    (tmp_path / "long.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    with pytest.raises(CompressError, match=r"long.txt holds 5 characters, but .* gives 5 classes, the blank among them"):
        convert(file, lines(), None, tmp_path / "long.txt")
    (tmp_path / "twice.txt").write_text("a\na\nb\nc\n", encoding="utf-8")
    with pytest.raises(CompressError, match=r"twice.txt: the character 'a' is in the alphabet twice"):
        convert(file, lines(), None, tmp_path / "twice.txt")
    (tmp_path / "model.onnx").write_bytes(file.read_bytes())
    (tmp_path / "model.yml").write_text("PostProcess: {name: DBPostProcess}")
    with pytest.raises(CompressError, match=r"model.yml has no list of characters at PostProcess.character_dict"):
        convert(tmp_path / "model.onnx", lines())


@pytest.mark.slow
def test_released_files(shared):
    """The recognisers and detectors that lie in a folder of one's own, on real crops; what they differ by is in docs/convert.md."""
    from compress.data.images import read_image

    folder, words = shared / "data" / "ppocr", shared / "data" / "icdar2015_words"
    if not (folder / "PP-OCRv6_tiny_rec.onnx").exists() or not words.exists():
        pytest.skip("no released recognisers beside the real data")
    crops = [read_image(words / line.split("\t")[0]) for line in (words / "val.txt").read_text(encoding="utf-8").splitlines()[:4]]
    for name, dictionary in (
        ("en_PP-OCRv3_rec_infer", "en_PP-OCRv3_rec_dict.txt"),
        ("PP-OCRv6_tiny_rec", None),
        ("PP-OCRv6_rec_small", None),
    ):
        found = convert(folder / f"{name}.onnx", crops, None, folder / dictionary if dictionary else None)
        assert not found.unused
        assert found.differences["probability"][0] < 1e-4
