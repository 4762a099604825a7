"""A recogniser through the whole chain: every row, its files, what is pruned, what is told, and the page."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import compress
from compress import ledger
from compress.assess import assess
from compress.cli import app
from compress.files import read_json
from compress.predictor import open_predictor
from compress.pruning.sensitivity import Settings
from compress.report.page import write_report
from compress.runtimes import open_file
from compress.sensitivity import of_groups

pytestmark = pytest.mark.slow
TINY = Path(__file__).parent / "tiny_crnn.yml"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of one run of the recipe."""
    folder = tmp_path_factory.mktemp("crnn") / "run"
    compress.run(TINY, out=folder, quiet=True)
    return folder


def test_every_stage_has_its_row_in_the_task_s_metrics(run):
    rows = {row.stage: row for row in ledger.read(run)}
    assert {"baseline", "pruned", "finetuned", "distilled", "int8", "files/onnx", "files_int8/openvino"} <= rows.keys()
    for row in rows.values():
        assert (row.task, row.main, list(row.scores)) == ("recognition", "accuracy", ["accuracy", "folded", "similarity"])
        assert (row.settings["height"], row.settings["width"]) == (32, 96)
    assert rows["pruned"].params < 0.5 * rows["baseline"].params
    for name in ("onnx", "openvino"):
        assert rows[f"files/{name}"].scores == pytest.approx(rows["distilled"].scores, abs=0.13), "one text of eight"
        assert rows[f"files_int8/{name}"].bytes < rows[f"files/{name}"].bytes
        assert rows[f"files_int8/{name}"].facts["integers"]["recurrent"] == 2


def test_the_table_says_the_width_and_what_stays_float(run):
    table = (run / "table.md").read_text()
    assert "height 32, width 96" in table
    assert ", 2 recurrent layers in float; weights" in table


def test_int8_files_hold_the_weights_of_the_lstm_in_8_bits_and_run_everywhere(run):
    rows = {row.stage: row for row in ledger.read(run)}
    lstm = 2 * 4 * 8 * (72 + 8)  # weights of both directions: 72 channels of the last convolution are left
    for name in ("onnx", "openvino"):
        assert rows[f"files_int8/{name}"].facts["integers"]["weight_bytes"]["int8"] > lstm
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 96), np.float32)
    files = [(run / "files_int8" / "onnx" / "model.onnx", runtime) for runtime in ("onnxruntime", "openvino")]
    found = [open_file(path, 1, runtime=runtime).run(images)["probability"] for path, runtime in files]
    np.testing.assert_allclose(*found, atol=0.02)


def test_both_directions_of_the_lstm_were_pruned(run):
    channels = read_json(run / "pruned" / "channels.json")
    assert channels["sequence.layers.0.forwards"] == channels["sequence.layers.0.backwards"] == [16, 8]
    assert channels["head"] == [11, 11]


def test_a_file_is_evaluated_and_asked_alone(run, tmp_path):
    found = assess(run / "files" / "openvino" / "model.xml", device="cpu")
    assert found["scores"] == {row.stage: row for row in ledger.read(run)}["files/openvino"].scores
    image = np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "line.png"), image[..., ::-1])
    answer = open_predictor(run / "files" / "onnx" / "model.onnx").predict(image)
    assert set(answer.text) <= set("0123456789")
    told = CliRunner().invoke(
        app, ["predict", str(tmp_path / "line.png"), "--model", str(run / "files" / "onnx" / "model.onnx"), "--out", str(tmp_path / "out")]
    )
    assert told.exit_code == 0
    assert f"'{answer.text}', confidence {answer.confidence:.4f}" in told.output
    assert read_json(tmp_path / "out" / "line.json")["text"] == answer.text


def test_its_sensitivity_and_its_page_speak_of_texts(run, tmp_path):
    sensitivity, _ = of_groups(run / "baseline", settings=Settings((0.5,), batch=8, batches=1), out=tmp_path, workers=1)
    assert {"sequence.layers.0.forwards", "sequence.layers.0.backwards"} <= {point["group"] for point in sensitivity["points"]}
    write_report([run], tmp_path / "report.html", images=3)
    page = (tmp_path / "report.html").read_text()
    truths = [annotation.truth.text for annotation in compress.recipe.load(TINY).data.open("val", 0).annotations]
    assert sum(f"Ground truth: &#x27;{text}&#x27;" in page for text in truths) == 3
    assert "1-NED" in page
