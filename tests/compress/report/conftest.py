"""An experiment's folder with everything a report can show, written by hand: no network runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from compress.ledger import Row
from compress.tasks import TASKS
from compress.tasks.classification import CLASSIFICATION
from compress.tasks.task import Metric, Task

WEIGHTS = 64 * "a"  # digest of the baseline's


def timed(**medians: float) -> dict:
    """`onnxruntime_int8=3.0` -> latencies as a row has them."""
    facts = {"threads": 1, "input": [1, 3, 64, 64], "rounds": 5}
    return {name.replace("_", " "): {"median": ms, "p90": 1.2 * ms, **facts} for name, ms in medians.items()}


def key_of(stage: str) -> str:
    """The cache key of a stage, or of the stage of an artefact of that name."""
    return hashlib.sha256(stage.partition("/")[0].encode()).hexdigest()


def make_row(stage: str, hmean: float = 0.85, **values) -> Row:
    """A row of a detector; another task's has its own `task`, `scores` and `main`."""
    facts = {
        "experiment": "x", "stage": stage, "kind": "train", "parent": None, "key": key_of(stage), "seed": 3, "params": 579550,
        "macs": 10**9, "bytes": 2_400_000, "task": "detection", "scores": {"precision": 0.9, "recall": 0.8, "hmean": hmean},
        "main": "hmean", "delta": hmean - 0.85, "split": "test", "images": 500, "settings": {"short_side": 64}, "runtime": "torch fp32",
        "artefact": stage, "seconds": 3.5,
        "latency_ms": {}, "cpu": "Some CPU",
    }  # fmt: skip
    return Row(**{**facts, **values})


def chain() -> list[Row]:
    """A baseline, a pruned network, and its files: int8 does not pay in ONNX Runtime."""
    small = {"macs": 2 * 10**8, "params": 95000}
    return [
        make_row("baseline", latency_ms=timed(onnxruntime_fp32=40.0, openvino_fp32=50.0)),
        make_row("baseline/last", latency_ms=timed(onnxruntime_fp32=40.0, openvino_fp32=50.0)),
        make_row("pruned/raw", kind="prune", parent="baseline", hmean=0.0, bytes=440_000, **small),
        make_row("pruned", kind="prune", parent="baseline", hmean=0.6, bytes=440_000, latency_ms=timed(onnxruntime_fp32=12.0), **small),
        make_row("files/onnx", kind="export", parent="pruned", hmean=0.79, bytes=380_000, runtime="onnxruntime fp32",
                 latency_ms=timed(onnxruntime_fp32=9.0), artefact="files/onnx/model.onnx", **small),
        make_row("files_int8/onnx", kind="export", parent="pruned", hmean=0.805, bytes=150_000, runtime="onnxruntime int8",
                 latency_ms=timed(onnxruntime_int8=22.0), artefact="files_int8/onnx/model.onnx", **small),
        make_row("files_int8/openvino", kind="export", parent="pruned", hmean=0.8, bytes=120_000, runtime="openvino int8",
                 latency_ms=timed(openvino_int8=11.0), artefact="files_int8/openvino/model.xml", **small),
    ]  # fmt: skip


def all_alike(value: float) -> dict[str, float]:
    return dict.fromkeys(("precision", "recall", "hmean"), value)


def prune_sensitivity(groups: int, scored: bool = True) -> dict:
    """A `sensitivity.json`: each group twice as sensitive as the one before it."""
    names = [f"backbone.blocks.{index}.expand.0" for index in range(groups)]
    ratios = [0.1, 0.5, 0.9]
    points = [
        {"group": name, "ratio": ratio, "channels_left": 5, "loss": 1.0 + 0.01 * (index + 1) * ratio, "params": 9, "macs": 9,
         "scores": all_alike(0.9 - 0.9 * ratio * (index + 1) / groups) if scored else None}
        for index, name in enumerate(names) for ratio in ratios
    ]  # fmt: skip
    return {
        "kind": "prune", "weights": WEIGHTS, "task": "detection", "main": "hmean", "artefact": "baseline", "split": "val", "images": 9,
        "settings": {"short_side": 64}, "criterion": "taylor", "seed": 0,
        "baseline": {"loss": 1.0, "scores": all_alike(0.9) if scored else None, "params": 10, "macs": 10},
        "groups": [{"name": name, "members": [name], "channels": 10} for name in names], "ratios": ratios, "points": points,
        "rank_correlation": 0.87,
    }  # fmt: skip


def write_experiment(folder: Path, rows: list[Row], layers: int = 3) -> Path:
    """A folder as a run leaves it, without weights."""
    for stage in ("baseline", "pruned"):
        (folder / stage).mkdir(parents=True)
    (folder / "ledger.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    (folder / "recipe.yml").write_text("seed: 3\n# <script>alert(1)</script>\n")
    entries = [
        {"epoch": 1, "lr": 0.1, "loss": 3.0, "binary": 0.5},
        {"epoch": 2, "lr": 0.05, "loss": 2.0, "binary": 0.4, "val_precision": 0.9, "val_recall": 0.8, "val_hmean": 0.85},
        {"epoch": 3, "lr": 0.0, "loss": 1.5, "binary": 0.3, "val_precision": 0.8, "val_recall": 0.8, "val_hmean": 0.8},
    ]
    (folder / "baseline" / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    manifest = {
        "key": key_of("baseline"), "weights": WEIGHTS, "kind": "train", "parent": None, "seed": 3, "seconds": 9.0,
        "artefacts": [{"suffix": "", "path": "."}],
        "versions": {"torch": "9.9"}, "data": {"val": "fingerprint-of-val"}, "device": "cpu", "threads": 2,
    }  # fmt: skip
    (folder / "baseline" / "manifest.json").write_text(json.dumps(manifest))
    (folder / "pruned" / "manifest.json").write_text(
        json.dumps({**manifest, "key": key_of("pruned"), "kind": "prune", "weights": 64 * "b"})
    )
    channels = {f"backbone.blocks.{index}.squeeze.gate.1.0": [96, 32 if index % 2 else 96] for index in range(layers)}
    (folder / "pruned" / "channels.json").write_text(json.dumps(channels))
    (folder / "sensitivity.json").write_text(json.dumps(prune_sensitivity(5)))
    quantized = {
        **prune_sensitivity(1),
        "kind": "quantize",
        "points": [{"layer": f"neck.{i}", "loss": 1 + 0.1 * i, "scores": None} for i in range(4)],
    }
    (folder / "pruned" / "sensitivity_quantize.json").write_text(json.dumps(quantized))
    return folder


@pytest.fixture
def rows() -> list[Row]:
    return chain()


@pytest.fixture
def row():
    return make_row


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """`written(name, rows)` writes an experiment into a new folder of that name."""
    return lambda name="x", rows=None, **options: write_experiment(
        tmp_path_factory.mktemp("experiments") / name, chain() if rows is None else rows, **options
    )


@pytest.fixture
def sensitivity():
    return prune_sensitivity


@pytest.fixture
def scores():
    return all_alike


@pytest.fixture
def counting(monkeypatch) -> Task:
    """A task whose main metric is no share, and the less the better."""
    metrics = (Metric("error", "error px", percent=False, higher_is_better=False), Metric("found", "found %"))
    task = replace(CLASSIFICATION, name="counting", metrics=metrics, main="error")
    monkeypatch.setitem(TASKS, "counting", task)
    return task


@pytest.fixture
def counted(counting):
    """`counted(stage, error)`: a row of that task."""
    facts = {"task": counting.name, "main": counting.main}
    return lambda stage, error, **values: make_row(
        stage, **{**facts, "scores": {"error": error, "found": 0.5}, "delta": 2.0 - error, **values}
    )
