"""`accelerate launch -m compress run`: two processes train one model, and one of them writes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from compress.checkpoint import load
from compress.files import read_lines

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 32}}
data: {format: synthetic, train: 16, val: 2, test: 2, size: 128}
evaluate: {short_side: 128}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}
stages:
  - train: {name: baseline, epochs: 2, batch: 4, crop: 96}
  - prune: {name: pruned, ratio: 0.5, batches: 1, batch: 2, crop: 96}
  - train: {name: finetuned, epochs: 1, batch: 4, crop: 96}
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_two_processes_train_and_one_writes(tmp_path):
    recipe = tmp_path / "two.yml"
    recipe.write_text(RECIPE)
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", str(free_port()), "--num_cpu_threads_per_process", "1"]
    words = [sys.executable, *launch, "-m", "compress", "run", str(recipe), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_lines(tmp_path / "out" / "ledger.jsonl")
    assert [row["stage"] for row in rows] == ["baseline", "baseline/last", "pruned/raw", "pruned", "finetuned", "finetuned/last"]
    assert load(tmp_path / "out" / "finetuned").network
    assert len(read_lines(tmp_path / "out" / "baseline" / "metrics.jsonl")) == 2
    assert done.stdout.count("Files, table.md") == 1
