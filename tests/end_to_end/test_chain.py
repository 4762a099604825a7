"""The whole chain on the tiny recipe, as its user meets it: files, rows, the cache, and wrong input on the command line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import compress
from compress import experiment, rows
from compress.cli import app, main
from compress.errors import CompressError
from compress.files import read_json, read_lines
from compress.processes import only_run_in

TINY = Path(__file__).parent / "tiny.yml"
REQUIRED = {
    "experiment", "stage", "kind", "parent", "key", "params", "macs", "bytes", "task", "scores", "main", "delta", "split", "settings",
    "latency_ms", "artefact", "seconds",
}  # fmt: skip


def rows_of(folder: Path) -> dict[str, dict]:
    return {row["stage"]: row for row in read_lines(folder / "ledger.jsonl")}


@pytest.fixture
def command(monkeypatch, capfd) -> Callable[..., subprocess.CompletedProcess]:
    """`compress WORDS` in this process, where torch is loaded already."""

    def run(*words: str | Path) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", ["compress", *map(str, words)])
        before = signal.getsignal(signal.SIGINT)
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        signal.signal(signal.SIGINT, before)
        return subprocess.CompletedProcess(words, end.value.code or 0, *capfd.readouterr())

    return run


def test_every_stage_leaves_its_rows(tiny_run):
    rows = rows_of(tiny_run)
    assert list(rows) == [
        "baseline", "baseline/last", "pruned/raw", "pruned", "finetuned", "finetuned/last", "teacher", "distilled", "distilled/last",
        "files/onnx", "files/openvino", "int8/ptq", "int8/control", "int8/control/last", "int8", "int8/last",
        "files_int8/onnx", "files_int8/openvino",
    ]  # fmt: skip
    for row in rows.values():
        assert row.keys() >= REQUIRED
        assert (tiny_run / row["artefact"]).exists()
        assert row["split"] == "test"
        for timed in row["latency_ms"].values():
            assert 0 < timed["median"] <= timed["p90"]
            assert (timed["threads"], timed["input"]) == (1, [1, 3, 128, 128])


def test_rows_are_of_the_artefacts_that_they_name(tiny_run):
    rows = rows_of(tiny_run)
    for stage in ("baseline", "pruned", "int8"):
        assert rows[stage]["bytes"] == (tiny_run / stage / "model.safetensors").stat().st_size
    assert rows["files_int8/onnx"]["bytes"] == (tiny_run / rows["files_int8/onnx"]["artefact"]).stat().st_size
    assert rows["files/openvino"]["bytes"] == (tiny_run / rows["files/openvino"]["artefact"]).with_suffix(".bin").stat().st_size
    assert rows["pruned"]["params"] < rows["baseline"]["params"]
    assert rows["pruned"]["macs"] < rows["baseline"]["macs"]
    assert rows["files/onnx"]["params"] < rows["distilled"]["params"], "an exported file has no threshold branch"
    assert rows["files/onnx"]["macs"] == rows["distilled"]["macs"]
    assert rows["distilled"]["parent"] == "pruned"


def test_int8_files_are_smaller_than_their_float_ones(tiny_run):
    rows = rows_of(tiny_run)
    assert rows["files_int8/openvino"]["bytes"] < 0.5 * rows["files/openvino"]["bytes"]
    assert rows["files_int8/onnx"]["bytes"] < rows["files/onnx"]["bytes"]


def test_the_folder_holds_what_it_should(tiny_run):
    for name in ("recipe.yml", "ledger.jsonl", "table.md", "table.csv"):
        assert (tiny_run / name).stat().st_size
    for stage in ("baseline", "finetuned", "distilled", "int8"):
        manifest = read_json(tiny_run / stage / "manifest.json")
        assert manifest.keys() >= {"parent", "config", "data", "versions", "seed", "seconds", "cpu", "key"}
        assert len(read_lines(tiny_run / stage / "metrics.jsonl")) == (manifest["config"].get("train") or manifest["config"])["epochs"]
    assert not [path for path in tiny_run.rglob("*") if path.suffix in (".tmp", ".pt", ".pkl", ".pth")]


def test_the_second_time_every_stage_is_in_the_cache_and_the_ledger_the_same(tiny_run, monkeypatch):
    before = (tiny_run / "ledger.jsonl").read_bytes()
    monkeypatch.setattr(experiment, "work", lambda *_: pytest.fail("a stage was done again"))
    monkeypatch.setattr(rows, "measure_artefact", lambda *_, **__: pytest.fail("an artefact was measured again"))
    compress.run(TINY, out=tiny_run, quiet=True)
    assert (tiny_run / "ledger.jsonl").read_bytes() == before


def test_a_changed_stage_is_done_again_with_what_follows_and_the_old_one_comes_back(tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_run, folder)
    shutil.copytree(tiny_run.parent / "tiny_teacher", tmp_path / "tiny_teacher")
    before, done, work = rows_of(folder), [], experiment.work

    def noted(what, stage, key):
        done.append(stage.name)
        work(what, stage, key)

    monkeypatch.setattr(experiment, "work", noted)
    compress.run(TINY, ["stages.int8.train.epochs=1", "stages.int8.control=false"], out=folder, quiet=True)
    assert done == ["int8", "files_int8"]
    compress.run(TINY, out=folder, quiet=True)
    assert done == ["int8", "files_int8"], "what was set aside is taken back"
    assert rows_of(folder) == before


def test_dry_run_tells_what_is_cached_and_writes_nothing(tiny_run, tmp_path):
    lines = experiment.dry_run(TINY, ["stages.finetuned.epochs=1"], out=tiny_run)
    assert lines[0] == "baseline: train: in the cache"
    assert lines[2] == "finetuned: train from pruned: to do"
    assert experiment.dry_run(TINY, out=tmp_path / "new")[0] == "baseline: train: to do"
    assert not (tmp_path / "new").exists()


def test_expectations_stop_the_run_with_the_row_written(tmp_path):
    recipe = tmp_path / "small.yml"
    recipe.write_text(
        "model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 32}}\n"
        "data: {format: synthetic, train: 8, val: 2, test: 2, size: 128}\n"
        "evaluate: {short_side: 128}\n"
        "latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}\n"
        "stages:\n"
        "  - train: {name: baseline, epochs: 1, batch: 8, crop: 96, expect: {min_score: 0.9}}\n"
        "  - prune: {name: pruned, ratio: 0.5, batches: 1, batch: 2, crop: 96}\n"
    )
    result = CliRunner().invoke(app, ["run", str(recipe), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, CompressError)
    assert str(result.exception).startswith("'baseline' was expected to keep min_score 0.9")
    assert "baseline/last" in result.output  # the table, then the failure
    assert "of training on this machine" in result.output
    assert list(rows_of(tmp_path / "out")) == ["baseline", "baseline/last"]
    assert not (tmp_path / "out" / "pruned").exists()


def test_eval_gives_the_figures_of_the_ledger_for_a_checkpoint_and_for_files(tiny_run, command):
    rows = rows_of(tiny_run)
    for stage in ("baseline", "int8", "files/onnx", "files_int8/openvino"):
        result = command("eval", tiny_run / rows[stage]["artefact"], "--json")
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout)
        assert found["scores"] == rows[stage]["scores"]
        assert (found["images"], found["split"]) == (6, "test")
        assert found["settings"]["bin_threshold"] == 0.3


def test_tuned_thresholds_are_stored_and_reported_beside_the_fixed_ones(tiny_run, tmp_path, command):
    shutil.copytree(tiny_run / "baseline", tmp_path / "baseline")
    words = ("eval", tmp_path / "baseline", "--recipe", TINY, "--json")
    tuned = json.loads(command(*words, "--split", "val", "--tune").stdout)
    assert tuned["tuned"]["scores"]["hmean"] >= tuned["scores"]["hmean"]
    assert tuned["tuned"]["scores"]["hmean"] == pytest.approx(tuned["tuned"]["val_score"])
    assert Path(tuned["stored"]) == tmp_path / "baseline" / "tuned.json"
    assert json.loads(command(*words, "--split", "val").stdout) == {**tuned, "stored": None}


def test_predict_draws_and_writes_polygons_in_the_images_own_pixels(tiny_run, tmp_path, command):
    photo = np.full((90, 150, 3), 200, np.uint8)
    cv2.putText(photo, "word", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 3)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    for model in (tiny_run / "baseline", tiny_run / "files_int8" / "onnx" / "model.onnx"):
        result = command("predict", tmp_path / "photo.png", "--model", model, "--out", tmp_path / "found")
        assert result.returncode == 0, result.stderr
        found = json.loads((tmp_path / "found" / "photo.json").read_text())
        assert (found["height"], found["width"]) == (90, 150)
        assert cv2.imread(str(tmp_path / "found" / "photo.png")).shape == photo.shape


def test_export_writes_files_that_eval_reads(tiny_run, tmp_path, command):
    result = command("export", tiny_run / "pruned", "--format", "onnx", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(command("eval", tmp_path / "onnx" / "model.onnx", "--recipe", TINY, "--json").stdout)
    assert found["scores"]["hmean"] == pytest.approx(rows_of(tiny_run)["pruned"]["scores"]["hmean"], abs=0.05)


def test_table_prints_several_experiments_side_by_side(tiny_run, command):
    result = command("table", tiny_run, tiny_run.parent / "tiny_teacher")
    assert result.returncode == 0
    assert all(word in result.stdout for word in ("files_int8/openvino", "tiny_teacher", "Hmean %", "6 test images"))


def test_the_names_of_the_package_do_what_they_say(tiny_run):
    detector = compress.load(tiny_run / "distilled")
    found = detector.predict(np.zeros((64, 100, 3), np.uint8))
    assert len(found.polygons) == len(found.scores)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "nowhere.yml"), "nowhere.yml; `compress recipes`"),
        (("run", TINY, "-o", "stages.baseline.epoch=1"), "did you mean 'epochs'"),
        (("run", TINY, "--from", "basline"), "did you mean 'baseline'"),
        (("run", TINY, "-o", "data.format=icdar2015", "-o", "data.root=nowhere"), "nowhere"),
        (("run", TINY, "-o", "stages.copies.teacher=nowhere"), "nowhere"),
        (("run", TINY, "-o", "stages.pruned.protect=[nek.*]"), "'nek.*' matches no layer"),
        (("eval", "nowhere"), "nothing at nowhere"),
        (("eval", TINY), "tiny.yml"),
        (("predict", "nowhere.jpg", "--model", "x"), "no image at nowhere.jpg"),
        (("predict", TINY, "--model", "x"), "does not decode"),
        (("table", "nowhere"), "no ledger.jsonl"),
        (("export", "nowhere"), "not a checkpoint"),
        (("data", "check", "nowhere", "--format", "totaltxt"), "did you mean 'totaltext'"),
    ],
)
def test_wrong_input_is_one_sentence_and_a_non_zero_exit(words, told, tmp_path, command):
    extra = ("--out", tmp_path / "out") if words[0] == "run" else ()
    result = command(*words, *extra)
    assert result.returncode == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_is_said_and_the_run_carries_on_after_it(tmp_path):
    words = [sys.executable, "-m", "compress", "run", str(TINY), "--out", str(tmp_path / "out"), "-o", "stages.baseline.epochs=40"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "baseline.partial" / "training.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "carries on" in told
    assert "Traceback" not in told
    assert (tmp_path / "out" / "baseline.partial" / "training.pt").exists()


def test_a_second_run_in_the_same_folder_is_refused(tiny_run):
    with only_run_in(tiny_run), pytest.raises(CompressError, match="Another run is at work"):
        compress.run(TINY, out=tiny_run, quiet=True)


def test_a_folder_that_was_moved_is_found_whole(tiny_run, tmp_path):
    for name in (tiny_run.name, "tiny_teacher"):
        shutil.copytree(tiny_run.parent / name, tmp_path / "elsewhere" / name)
    moved = tmp_path / "elsewhere" / tiny_run.name
    assert compress.run(TINY, out=moved, quiet=True) == compress.run(TINY, out=tiny_run, quiet=True)
    made = [[path.stat().st_mtime_ns for path in sorted(folder.glob("*/manifest.json"))] for folder in (tiny_run, moved)]
    assert made[0] == made[1], "no stage was done again"


def test_a_full_disk_is_one_sentence(tmp_path):
    """Every write beyond a megabyte fails, as on a full disk; the command then carries on where there is room again."""
    import resource

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    words = [sys.executable, "-m", "compress", "run", str(TINY), "--out", str(tmp_path / "out")]
    result = subprocess.run(words, capture_output=True, text=True, timeout=300, preexec_fn=limited)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "cannot be written" in result.stderr
    assert experiment.dry_run(TINY, out=tmp_path / "out")
