"""A bare installation: what opens exported files works with the packages of the extra `train` not there; all else names the extra."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from compress.checkpoint import fresh, save
from compress.exporters.write import write_files
from compress.extras import TRAIN
from compress.packaged import default_model, default_part
from compress.tasks.detection import EvaluateDetection
from compress.tasks.recognition import EvaluateRecognition

pytestmark = pytest.mark.slow  # every test starts Python and a runtime

HIDE = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(TRAIN)}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Hidden())
"""
MAIN = f"{HIDE}\nfrom compress.cli import main\nmain()"
RECIPE = """
model: {name: db, backbone: {name: mobilenet_v3_small, width: 0.5}, neck: {name: fpn, channels: 32}}
data: {format: icdar2015, root: ROOT}
evaluate: {short_side: 64}
stages:
  - train: {name: baseline, epochs: 1}
  - export: {name: files}
"""


def python(code: str, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=300, cwd=cwd)


def compress(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """The command, with the packages of the extra hidden."""
    return python(MAIN, *words, cwd=cwd)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A folder with an image of two words, the same as an ICDAR2015 data set, a checkpoint and its files."""
    folder = tmp_path_factory.mktemp("bare")
    image = np.full((240, 480, 3), 230, np.uint8)
    lines = []
    for text, x, y in (("STATION", 40, 90), ("Exit", 220, 190)):
        cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 2, (20, 20, 20), 5, cv2.LINE_AA)
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 2, 5)
        lines.append(f"{x},{y - height},{x + width},{y - height},{x + width},{y + 6},{x},{y + 6},{text}\n")
    for split in ("train", "test"):
        (folder / "data" / f"{split}_images").mkdir(parents=True)
        (folder / "data" / f"{split}_gts").mkdir()
        for number in (1, 2):
            cv2.imwrite(str(folder / "data" / f"{split}_images" / f"img_{number}.jpg"), image)
            (folder / "data" / f"{split}_gts" / f"gt_img_{number}.txt").write_text("".join(lines))
    cv2.imwrite(str(folder / "photo.png"), image)
    torch.manual_seed(0)
    config = {"name": "db", "backbone": {"name": "mobilenet_v3_small", "width": 0.5}, "neck": {"name": "fpn", "channels": 32}}
    model = fresh(config, EvaluateDetection(short_side=64))
    save(model, folder / "checkpoint")
    list(write_files(model, ["onnx", "openvino"], folder / "experiment" / "files", []))
    (folder / "experiment" / "recipe.yml").write_text(RECIPE.replace("ROOT", str(folder / "data")))
    return folder


def test_predict(bare):
    result = compress("predict", "photo.png", "--out", "found", cwd=bare)
    assert result.returncode == 0, result.stderr
    found = json.loads((bare / "found" / "photo.json").read_text())
    assert found["text"] == "STATION\nExit"


def test_eval_on_a_data_set(bare):
    for artefact in (default_part("detector"), default_model()):
        result = compress("eval", artefact, "--data", "icdar2015", "--root", "data", "--json", cwd=bare)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["scores"]["hmean"] == 1


@pytest.mark.parametrize("file", ["files/onnx/model.onnx", "files/openvino/model.xml"])
def test_eval_by_the_recipe_of_the_experiment(bare, file):
    result = compress("eval", bare / "experiment" / file, "--json", cwd=bare)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["settings"]["short_side"] == 64


def test_benchmark(bare):
    files = [bare / "experiment" / "files" / file for file in ("onnx/model.onnx", "openvino/model.xml")]
    result = compress("benchmark", *files, "--input", "64x64", "--rounds", "3", "--json", cwd=bare)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["results"]
    assert [row["runtime"] for row in rows] == ["onnxruntime", "openvino"]
    assert all(row["integers"]["convs"] > 20 for row in rows)


def test_benchmark_and_export_of_a_pipeline(bare):
    result = compress("benchmark", default_model(), "--image", "photo.png", "--json", cwd=bare)
    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout)["results"][0]["shares"]) == {"detector", "crops", "recogniser"}
    result = compress("export", default_model(), "--out", "shipped", cwd=bare)
    assert result.returncode == 0, result.stderr
    result = compress("predict", "photo.png", "--model", "shipped", "--out", "found2", cwd=bare)
    assert json.loads((bare / "found2" / "photo.json").read_text())["text"] == "STATION\nExit"


def test_a_recogniser_s_file_is_asked_and_evaluated(bare):
    torch.manual_seed(0)
    model = fresh({"name": "crnn", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}}, EvaluateRecognition(height=32, width="own"))
    list(write_files(model, ["onnx"], bare / "reader", []))
    (bare / "words").mkdir()
    cv2.imwrite(str(bare / "words" / "a.png"), np.full((20, 60, 3), 90, np.uint8))
    (bare / "words" / "test.txt").write_text("a.png\tsome é\n", encoding="utf-8")
    file = "reader/onnx/model.onnx"
    result = compress("eval", file, "--data", "lines", "--root", "words", "--json", cwd=bare)
    assert result.returncode == 0, result.stderr
    assert "1 of 1 texts of the test split hold characters that are not in the model's alphabet (é)" in result.stderr
    assert json.loads(result.stdout)["scores"]["accuracy"] == 0
    result = compress("predict", "words/a.png", "--model", file, "--out", "read", cwd=bare)
    assert result.returncode == 0, result.stderr
    assert {"text", "confidence"} <= json.loads((bare / "read" / "a.json").read_text()).keys()


def test_load_in_python(bare):
    code = f"{HIDE}\nimport compress\nfor model in ({str(default_part('detector'))!r}, None):\n    "
    code += "print(list(compress.load(model).predict('photo.png').json()))"
    assert python(code, cwd=bare).stdout == "['words']\n['text', 'words']\n"


def test_what_looks_at_files_alone(bare):
    for words in (("recipes",), ("recipes", "pan_resnet18", "--out", "copied"), ("data", "check", "data"), ("--help",)):
        result = compress(*words, cwd=bare)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("run", "experiment/recipe.yml", "--out", "run"),
        ("plan", "experiment/recipe.yml"),
        ("predict", "photo.png", "--model", "checkpoint"),
        ("eval", "checkpoint", "--data", "icdar2015", "--root", "data"),
        ("benchmark", "checkpoint", "--input", "64x64"),
        ("export", "checkpoint"),
        ("report", "experiment"),
        ("sensitivity", "checkpoint"),
    ],
)
def test_what_needs_more_says_which_extra(bare, words):
    result = compress(*words, cwd=bare)
    assert result.returncode == 1
    assert "needs compress-ocr[train]; install it with `pip install 'compress-ocr[train]'`." in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (bare / "run").exists()


@pytest.mark.parametrize("use", ["compress.run('experiment/recipe.yml')", "compress.load('checkpoint')"])
def test_in_python_too(bare, use):
    code = f"""{HIDE}
import compress
from compress.errors import CompressError
try:
    {use}
except CompressError as error:
    print(error)
"""
    assert "needs compress-ocr[train]" in python(code, cwd=bare).stdout


def test_another_missing_package_is_not_taken_for_one_of_the_extra(bare):
    code = HIDE + "from compress.extras import told\nwith told('This'):\n    import compress.nowhere"
    result = python(code, cwd=bare)
    assert "compress.nowhere" in result.stderr
    assert "compress-ocr[train]" not in result.stderr
