"""`compress sweep` on the cores of this machine: shared stages, a trial that fails, a killed driver, and the recommended recipe again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import compress
from compress.checkpoint import fresh, save
from compress.files import read_lines
from compress.report.sweep import write_sweep
from compress.tasks.detection import EvaluateDetection
from compress.tasks.recognition import EvaluateRecognition

pytest.importorskip("ray", reason="Ray is not installed: pip install 'compress-ocr[sweep]'")
pytestmark = pytest.mark.slow

RECIPE = """
model: {name: db, backbone: {name: mobilenet_v3_small, width: 0.5}, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 16, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}
stages:
  - train: {name: baseline, epochs: 2, batch: 4, crop: 64}
  - prune: {name: pruned, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64, round_to: 4}
  - train: {name: finetuned, epochs: 40, batch: 4, crop: 64, evaluate_every: 40}
"""
SWEEP = """
recipe: small.yml
space:
  stages.pruned.ratio: [0.3, 0.6, 2]
objectives: [bytes, latency_ms]
parallel: 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("sweep")
    (place / "small.yml").write_text(RECIPE)
    (place / "sweep.yml").write_text(SWEEP)
    return place


def start(folder: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "compress", "sweep", "sweep.yml", "--out", "out"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=folder, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def at_work(folder: Path) -> list[str]:
    """Processes of trials whose working folder is the sweep's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, where = (process / "cmdline").read_bytes(), (process / "cwd").readlink()
        except OSError:
            continue
        if b"compress.sweeps.process" in words and where == folder:
            found.append(process.name)
    return found


@pytest.fixture(scope="module")
def done(folder) -> str:
    """The sweep, whose driver is killed once while trials train; what the second command printed."""
    first = start(folder)
    deadline = time.monotonic() + 200
    while not list(folder.glob("out/trials/*/run/finetuned.partial/training.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    while at_work(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not at_work(folder), "a trial works on though nobody is there to hear of it"
    second = start(folder)
    printed, _ = second.communicate(timeout=600)
    assert second.returncode == 0, printed[-3000:]
    return printed


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("out/trials/*/log.txt")))


@pytest.mark.usefixtures("done")
def test_every_trial_ends_and_the_failed_one_says_why(folder):
    trials = read_lines(folder / "out" / "sweep.jsonl")
    assert sorted((trial["values"]["stages.pruned.ratio"], trial["state"]) for trial in trials) == [
        (0.3, "finished"), (0.6, "finished"), (2, "failed"),
    ]  # fmt: skip
    assert [trial["why"] for trial in trials if trial["state"] == "failed"] == [
        "-o stages.pruned.ratio=2: stages.pruned.ratio: input should be less than 1, not 2."
    ]


@pytest.mark.usefixtures("done")
def test_the_baseline_is_trained_once_and_what_was_cut_off_goes_on(folder):
    printed = logs(folder)
    assert printed.count("baseline: train") == 1
    assert printed.count("pruned: prune") == 2
    for run in folder.glob("out/trials/*/run"):
        if (run / "finetuned").exists():
            assert [line["epoch"] for line in read_lines(run / "finetuned" / "metrics.jsonl")] == list(range(1, 41))


@pytest.mark.usefixtures("done")
def test_only_what_counts_is_timed_after_all_and_its_scatter_is_told(folder):
    for trial in read_lines(folder / "out" / "sweep.jsonl"):
        for row in trial["rows"]:
            for values in row["latency_ms"].values():
                assert 0 < values["low"] <= values["median"] <= values["high"]
        assert not trial["rows"] or trial["rows"][-1]["latency_ms"] or trial["rows"][-2]["latency_ms"]


def test_the_recommended_recipe_gives_its_row_again(folder, done, monkeypatch):
    monkeypatch.chdir(folder)
    finished = [trial for trial in read_lines(folder / "out" / "sweep.jsonl") if trial["rows"]]
    picked = min(finished, key=lambda trial: trial["rows"][-1]["bytes"])
    assert f"| {picked['trial']} | 0.6 |" in done
    rows = compress.run("out/recommended.yml", out=folder / "again", quiet=True, timing="never")
    own = {"latency_ms", "seconds", "experiment"}
    again = [row.model_dump(mode="json", exclude=own) for row in rows]
    assert again == [{name: value for name, value in row.items() if name not in own} for row in picked["rows"]]


def test_the_page_is_written(folder, done):
    assert "Recommended: " in done
    (page,) = write_sweep([folder / "out"], folder / "page.html")
    assert page.read_text().count("<script") == 2


def test_the_third_time_nothing_is_run(folder, done):
    before = (folder / "out" / "sweep.jsonl").read_bytes()
    third = start(folder)
    printed, _ = third.communicate(timeout=300)
    assert "3 trial(s) done, 0 to run" in printed
    assert done.splitlines()[-1] == printed.splitlines()[-1]
    assert (folder / "out" / "sweep.jsonl").read_bytes() == before


READS = """
model: {name: reader}
data: {format: synthetic, train: 2, val: 2, test: 2, size: 96}
evaluate: {drop_score: 0.0, detector: {box_threshold: 0.0, bin_threshold: 0.4, min_size: 1}}
latency: {threads: 1, rounds: 3}
stages:
  - assemble: {name: files, detector: detector.yml, recogniser: narrow, check_images: 1}
"""
DETECTOR = """
model: {name: db, backbone: {name: mobilenet_v3_small, width: 0.25}, neck: {name: fpn, channels: 8}}
data: {format: synthetic, train: 2, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages:
  - load: {name: loaded, checkpoint: detector}
"""
PARTS = """
recipe: small.yml
space:
  stages.files.recogniser: [narrow, wide]
objectives: [bytes]
"""


def test_a_pipeline_s_parts_are_varied_by_naming_others(tmp_path):
    detector = {"name": "db", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "neck": {"name": "fpn", "channels": 8}}
    save(fresh(detector, EvaluateDetection(short_side=64)), tmp_path / "detector")
    for name, width in {"narrow": 0.25, "wide": 0.5}.items():
        backbone = {"name": "mobilenet_v3_small", "width": width}
        reader = {"name": "crnn", "alphabet": "digits", "backbone": backbone, "sequence": "none"}
        save(fresh(reader, EvaluateRecognition(height=32, width="buckets")), tmp_path / name)
    (tmp_path / "detector.yml").write_text(DETECTOR)
    (tmp_path / "small.yml").write_text(READS)
    (tmp_path / "sweep.yml").write_text(PARTS)
    process = start(tmp_path)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-3000:]
    trials = {trial["values"]["stages.files.recogniser"]: trial for trial in read_lines(tmp_path / "out" / "sweep.jsonl")}
    assert {name: (trial["state"], trial["why"]) for name, trial in trials.items()} == dict.fromkeys(("narrow", "wide"), ("finished", ""))
    assert trials["narrow"]["rows"][-1]["bytes"] < trials["wide"]["rows"][-1]["bytes"]
    assert logs(tmp_path).count("loaded: load") == 1
    assert "recogniser: narrow" in (tmp_path / "out" / "recommended.yml").read_text()


LINES = """
model: {name: angle, width: 0.35}
data:
  format: turned
  of: {format: synthetic_lines, train: 96, val: 16, test: 16, characters: {characters: AFGJLPRTVY347}, words: 1, longest: 4}
evaluate: {size: [48, 96]}
latency: {input: [1, 3, 48, 96], threads: 1, runtimes: [torch], rounds: 3}
stages:
  - train:  {name: baseline, epochs: 1, batch: 32, crop: [48, 96], precision: fp32}
  - prune:  {name: pruned, ratio: 0.5, criterion: l1, round_to: 4, batches: 1, batch: 32, crop: [48, 96]}
  - train:  {name: finetuned, epochs: 4, batch: 32, crop: [48, 96], precision: fp32}
  - export: {name: files, formats: [onnx], check_images: 2}
"""
SAMPLED = """
recipe: small.yml
space:
  stages.pruned.ratio: {from: 0.2, to: 0.8, step: 0.1}
  stages.finetuned.lr: {from: 1.0e-4, to: 1.0e-1, log: true}
search: tpe
trials: 4
objectives: [latency_ms, score]
stop: {asha: {stage: finetuned, grace: 1, factor: 2}}
parallel: 2
"""


def test_a_sampler_learns_from_latencies_and_trials_are_stopped_early(tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "small.yml").write_text(LINES)
    (tmp_path / "sweep.yml").write_text(SAMPLED)
    process = start(tmp_path)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-3000:]
    trials = read_lines(tmp_path / "out" / "sweep.jsonl")
    assert len(trials) == 4
    for trial in trials:
        assert trial["state"] in ("finished", "stopped"), trial["why"]
        if trial["state"] == "finished":
            assert trial["rows"][-1]["latency_ms"]
        else:
            assert "others were better" in trial["why"]
            assert not (tmp_path / "out" / "trials" / trial["trial"] / "run" / "files").exists()
    assert "turn 1 of 3" in printed
    assert not (tmp_path / "out" / ".ray").exists()
