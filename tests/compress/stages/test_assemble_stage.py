"""Recipes that put a detector and a recogniser together: the folder that is left, its row, and what is refused before any work."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import compress
from compress import ledger, pipeline
from compress.assess import assess
from compress.benchmark import benchmark
from compress.checkpoint import fresh, save
from compress.errors import CompressError
from compress.experiment import dry_run
from compress.exporters.write import write_files
from compress.models.registry import build
from compress.plan import plan
from compress.predictor import open_predictor
from compress.report.page import write_report
from compress.session import prepare
from compress.ship import ship
from compress.shipped import copy as copy_recipes
from compress.tasks.classification import EvaluateClassification
from compress.tasks.detection import EvaluateDetection
from compress.tasks.recognition import EvaluateRecognition

pytestmark = pytest.mark.slow

DETECTOR = {"name": "db", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "neck": {"name": "fpn", "channels": 8}}
RECOGNISER = {"name": "crnn", "alphabet": "digits", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "sequence": "none"}
RECIPE = """
model: {name: reader}
data: {format: synthetic, train: 2, val: 2, test: 2, size: 96}
evaluate: {drop_score: 0.0, detector: {box_threshold: 0.0, bin_threshold: 0.4, min_size: 1}}
latency: {threads: 1, rounds: 3}
stages:
  - assemble: {name: plain, detector: "detector.yml:first", recogniser: recogniser, classifier: classifier, check_images: 1}
  - assemble: {name: of_files, detector: detector.yml, recogniser: files/onnx/model.onnx, format: onnx, check_images: 1}
"""
DETECTOR_RECIPE = """
model: {name: db, backbone: {name: mobilenet_v3_small, width: 0.25}, neck: {name: fpn, channels: 8}}
data: {format: synthetic, train: 2, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages:
  - load: {name: first, checkpoint: detector}
  - load: {name: second, checkpoint: detector}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the recipe, its parts, and a run of it."""
    folder = tmp_path_factory.mktemp("assemble")
    torch.manual_seed(0)
    save(fresh(DETECTOR, EvaluateDetection(short_side=64)), folder / "detector")
    reader = fresh(RECOGNISER, EvaluateRecognition(height=32, width="buckets"))
    save(reader, folder / "recogniser")
    list(write_files(reader, ["onnx"], folder / "files", []))
    save(fresh({"name": "angle", "width": 0.1}, EvaluateClassification()), folder / "classifier")
    (folder / "detector.yml").write_text(DETECTOR_RECIPE)
    (folder / "recipe.yml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        compress.run("recipe.yml", out=folder / "out" / "reads", quiet=True)
    return folder


@pytest.fixture(scope="module")
def plain(folder) -> Path:
    return folder / "out" / "reads" / "plain"


def test_each_pipeline_has_a_row_of_what_was_measured_on_it(folder, plain):
    rows = {row.stage: row for row in ledger.read(folder / "out" / "reads")}
    assert list(rows) == ["plain", "of_files"]
    for name, row in rows.items():
        files = [path for path in (plain.parent / name).rglob("model.*") if path.suffix in (".bin", ".onnx")]
        assert row.bytes == sum(path.stat().st_size for path in files)
        assert (row.task, row.params, row.macs) == ("ocr", None, None)
        assert set(row.scores) == {"precision", "recall", "hmean", "spotting", "similarity"}
        assert row.settings["detector"] == {"box_threshold": 0.0, "bin_threshold": 0.4, "min_size": 1}
        (timed,) = row.latency_ms.values()
        assert (timed["rounds"], timed["threads"], sum(timed["shares"].values())) == (2, 1, pytest.approx(1))
    assert list(rows["plain"].latency_ms) == ["openvino fp32"]
    assert list(rows["of_files"].latency_ms) == ["onnxruntime fp32"]
    assert "median of 2 images, from pixels to answer, 1 thread(s)" in (plain.parent / "table.md").read_text()


def test_recipes_of_parts_are_run_first_and_nothing_is_done_twice(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [row.stage for row in ledger.read(folder / "out" / "detector")] == ["first", "second"]
    assert dry_run("recipe.yml", out=folder / "out" / "reads") == ["plain: assemble: in the cache", "of_files: assemble: in the cache"]
    states = {entry["name"]: entry["state"] for entry in plan("recipe.yml", out=folder / "elsewhere" / "reads")["stages"]}
    assert states == dict.fromkeys(["detector/first", "detector/second", "plain", "of_files"], "to do")
    # Another data set for the pipeline is none of its parts' business.
    states = dry_run("recipe.yml", ["data.size=64"], out=folder / "out" / "reads")
    assert states == ["plain: assemble: to do", "of_files: assemble: to do"]


def test_another_checkpoint_or_file_makes_the_pipeline_anew(folder, monkeypatch):
    monkeypatch.chdir(folder)
    kept = {path: path.read_bytes() for path in (folder / "files/onnx/model.onnx", folder / "recogniser/model.safetensors")}
    other = fresh(RECOGNISER, EvaluateRecognition(height=32, width="own"))
    list(write_files(other, ["onnx"], folder / "files", []))
    states = [line.rsplit(": ", 1)[1] for line in dry_run("recipe.yml", out=folder / "out" / "reads")]
    save(other, folder / "recogniser")
    both = [line.rsplit(": ", 1)[1] for line in dry_run("recipe.yml", out=folder / "out" / "reads")]
    for path, content in kept.items():
        path.write_bytes(content)
    assert (states, both) == (["in the cache", "to do"], ["to do", "to do"])


def test_a_pipeline_is_evaluated_tuned_timed_and_reported_as_any_artefact(plain, tmp_path):
    found = assess(plain)
    assert (found["task"], found["images"], found["runtime"]) == ("ocr", 2, "openvino fp32")
    assert found["scores"] == {row.stage: row.scores for row in ledger.read(plain.parent)}["plain"]
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 96, 3), 200, np.uint8))
    timed = benchmark([plain, plain.parent / "of_files"], images=[tmp_path], threads=["1"], quiet=True)
    assert [set(row["shares"]) for row in timed["results"]] == [
        {"detector", "crops", "classifier", "recogniser"},
        {"detector", "crops", "recogniser"},
    ]
    with pytest.raises(CompressError, match=r"is a pipeline.*--image"):
        benchmark([plain])
    with pytest.raises(CompressError, match="leave out --input"):
        benchmark([plain], images=[tmp_path], size="64x64")
    write_report([plain.parent], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "E2E Hmean" in text
    assert "are of no use" not in text


def test_settings_tuned_on_validation_stay_with_the_pipeline(plain):
    tuned = assess(plain, tune=True)["tuned"]
    assert 0 <= tuned["settings"]["drop_score"] <= 1
    assert open_predictor(plain).tuned["settings"] == {"drop_score": tuned["settings"]["drop_score"]}
    (plain / "tuned.json").unlink()


def test_a_pipeline_is_shipped_whole_and_replaces_nothing_of_a_users(plain, tmp_path):
    out = tmp_path / "shipped"
    told = ship(plain, out, has_options=False)
    assert "detector, classifier, recogniser" in told
    text = (out / "README.md").read_text()
    assert 8 <= len(text.splitlines()) <= 14
    assert "short_side 64" in text
    first, second = (pipeline.read(folder) for folder in (plain, out))
    assert [path.read_bytes() for path in first.files.values()] == [path.read_bytes() for path in second.files.values()]
    ship(plain, out, has_options=False)  # its own it may renew
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(CompressError, match=r"README\.md is there already"):
        ship(plain, tmp_path / "mine", has_options=False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    with pytest.raises(CompressError, match="leave out --format"):
        ship(plain, out, has_options=True)
    with pytest.raises(CompressError, match="--out"):
        ship(plain, None, has_options=False)


# Faults


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("{name: a, detector: recogniser, recogniser: recogniser}", "recogniser cannot be the detector: it is a model for recognition"),
        ("{name: a, detector: detector, recogniser: classifier}", "classifier cannot be the recogniser: it is a model for classification"),
        ("{name: a, detector: files/onnx/model.onnx, recogniser: recogniser}", "model.onnx cannot be the detector"),
        ("{name: a, detector: detector.yml:firts, recogniser: recogniser}", "no stage 'firts' that gives a model; did you mean 'first'"),
        ("{name: a, detector: nowhere, recogniser: recogniser}", "'nowhere' is neither"),
        ("{name: a, detector: detector, recogniser: nowhere.onnx}", "no file nowhere.onnx"),
        ("{name: a, detector: detector}", "recogniser: field required"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(folder, monkeypatch, tmp_path, stage, told):
    monkeypatch.chdir(folder)
    head = RECIPE[: RECIPE.index("stages:")]
    (folder / "other.yml").write_text(f"{head}stages:\n  - assemble: {stage}\n")
    with pytest.raises(CompressError, match=told.replace("(", r"\(")):
        dry_run("other.yml", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_recipe_of_another_model_assembles_nothing(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    (folder / "other.yml").write_text(f"{DETECTOR_RECIPE}  - assemble: {{name: a, detector: first, recogniser: recogniser}}\n")
    with pytest.raises(CompressError, match="in a recipe of its own"):
        dry_run("other.yml", out=tmp_path / "none")


def test_shipped_recipes_are_copied_with_those_of_their_parts(tmp_path):
    copied = {path.name for path in copy_recipes(["ocr_small"], tmp_path)}
    assert {"ocr_small.yml", "db_mv3_prune0.6_distill.yml"} <= copied


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda folder: (folder / "recogniser/openvino/model.bin").unlink(), r"model\.bin, a file of the recogniser, is missing"),
        (lambda folder: flip(folder / "detector/openvino/model.bin"), r"detector/openvino/model\.bin.* is damaged"),
        (
            lambda folder: edit(folder, "characters: 0123456789", "characters: 0123456788"),
            "has another alphabet than pipeline.yml says of the recogniser",
        ),
        (lambda folder: edit(folder, "recogniser/openvino/model", "../openvino/model"), "outside of the pipeline's folder"),
        (lambda folder: edit(folder, "  recogniser:\n    file", "  reader:\n    file"), "names no recogniser"),
        (lambda folder: edit(folder, "same_line: 0.5", "same_line: wide"), "damaged: same_line"),
        (lambda folder: edit(folder, "box_threshold: 0.0", "box_thresold: 0.0"), "evaluate.detector.box_thresold is not known"),
        (lambda folder: edit(folder, "format: 1", "format: 7"), "has format 7"),
        (lambda folder: (folder / "pipeline.yml").write_text("{"), "pipeline.yml"),
    ],
)
def test_a_damaged_pipeline_is_one_sentence(plain, tmp_path, fault, told):
    copy = tmp_path / "pipeline"
    shutil.copytree(plain, copy, ignore=shutil.ignore_patterns("manifest.json", "rows.json"))
    fault(copy)
    with pytest.raises(CompressError, match=told) as refused:
        open_predictor(copy)
    assert "\n" not in str(refused.value)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / pipeline.DESCRIPTION
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new))


def test_the_small_pipeline_s_recogniser_knows_all_characters_of_its_scenes(tmp_path):
    session = prepare(Path(__file__).parents[3] / "recipes" / "ocr_small.yml", ["data.val=30"], out=tmp_path / "none")
    recogniser = build(session.others[session.recipe.stages[0].recogniser].recipe.model)
    scenes = session.recipe.data.open("val", 1)
    texts = [text for annotation in scenes.annotations for text in annotation.truth.texts]
    assert len(texts) > 50
    assert all(texts)
    assert not recogniser.alphabet.missing("".join(texts))
