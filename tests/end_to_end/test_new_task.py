"""A task of a user's own, in one file and with no change in the workbench, goes through everything that detection does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import compress
from compress import ledger
from compress.assess import assess
from compress.data.formats import FORMATS
from compress.files import read_json, read_lines
from compress.outside import allowing
from compress.pruning.sensitivity import Settings
from compress.report.page import write_report
from compress.sensitivity import of_groups
from compress.tasks import TASKS

RECIPE = """
model: {name: "dots:build", width: 16}
data: {format: dots, train: 64, val: 8, test: 8}
latency: {input: [1, 3, 32, 32], threads: 1, runtimes: [onnxruntime], rounds: 3}
stages:
  - train:    {name: baseline, epochs: 12, batch: 8, lr: 2.0e-2, expect: {min_score: 3.0, max_drop: 0.0}}
  - prune:    {name: pruned, ratio: 0.5, batches: 2, batch: 8}
  - distill:  {name: distilled, teacher: baseline, feature: {weight: 0.1}, epochs: 2, batch: 8, lr: 1.0e-2}
  - quantize: {name: int8, mode: ptq, calibration: 8, max_drop: 3.0}
  - export:   {name: files, from: distilled, formats: [onnx]}
  - export:   {name: files_int8, from: int8, formats: [openvino]}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of one run of the recipe, the task known to this process."""
    sys.path.append(str(Path(__file__).parent))
    import dots

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "dots", dots.DOTS)
        patch.setitem(FORMATS, "dots", dots.DotImages)
        folder = tmp_path_factory.mktemp("dots")
        (folder / "recipe.yml").write_text(RECIPE)
        compress.run(folder / "recipe.yml", out=folder / "run", quiet=True)
        yield folder / "run"
    sys.path.remove(str(Path(__file__).parent))


def test_every_stage_has_a_row_in_the_task_s_own_metric(run):
    rows = {row.stage: row for row in ledger.read(run)}
    assert list(rows) == [
        "baseline", "baseline/last", "pruned/raw", "pruned", "distilled", "distilled/last", "int8", "files/onnx", "files_int8/openvino",
    ]  # fmt: skip
    for row in rows.values():
        assert (row.task, row.main, list(row.scores)) == ("dots", "error", ["error"])
        assert row.delta == pytest.approx(rows["baseline"].score - row.score), "more dots off is a loss"
    assert rows["baseline"].score < 1
    assert rows["pruned"].params < 0.5 * rows["baseline"].params
    assert rows["files/onnx"].score == pytest.approx(rows["distilled"].score, abs=1e-3)
    assert rows["files_int8/openvino"].bytes < rows["distilled"].bytes


def test_the_best_epoch_is_the_one_that_is_least_off(run):
    epochs = read_lines(run / "baseline" / "metrics.jsonl")
    manifest = read_json(run / "baseline" / "manifest.json")
    best = min(epochs, key=lambda epoch: epoch["val_error"])
    assert manifest["artefacts"][0]["epoch"] == best["epoch"]
    assert manifest["artefacts"][0]["val_score"] == best["val_error"] < epochs[0]["val_error"]


def test_the_table_and_the_report_speak_of_it(run, tmp_path):
    head, *_ = (run / "table.md").read_text().splitlines()
    assert "dots off" in head
    assert "Hmean" not in (run / "table.md").read_text()
    write_report([run], tmp_path / "report.html", images=2)
    page = (tmp_path / "report.html").read_text()
    assert "dots off" in page
    assert "Hmean" not in page


def test_it_is_evaluated_tuned_and_its_sensitivity_measured(run, tmp_path):
    with allowing("dots"):
        found = assess(run / "distilled", tune=True, device="cpu")
        sensitivity, _ = of_groups(run / "baseline", settings=Settings((0.25, 0.75), batch=8, batches=1), out=tmp_path, workers=1)
    assert found["scores"]["error"] >= 0
    assert found["tuned"]["settings"]["area"] in (6.0, 9.0, 12.0)
    best = read_json(run / "baseline" / "manifest.json")["artefacts"][0]["val_score"]
    assert sensitivity["main"] == "error"
    assert sensitivity["unpruned"]["scores"]["error"] == pytest.approx(best, abs=1e-3)
    assert all(point["scores"].keys() == {"error"} for point in sensitivity["points"])
