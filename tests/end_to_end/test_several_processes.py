"""`torchrun -m compress run`: two processes train one model, each on its half of the samples, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import compress
from compress.checkpoint import load
from compress.files import read_json, read_lines

pytestmark = pytest.mark.slow

IMAGES = 16
RECIPE = f"""
model: {{name: db, backbone: mobilenet_v3_small, neck: {{name: fpn, channels: 16}}}}
data: {{format: synthetic, train: {IMAGES}, val: 2, test: 2, size: 64}}
evaluate: {{short_side: 64}}
latency: {{input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}}
stages:
  - train: {{name: baseline, epochs: 2, batch: 4, crop: 64}}
  - prune: {{name: pruned, ratio: 0.5, steps: 2, criterion: l1, batches: 1, batch: 2, crop: 64, recover: {{epochs: 1, batch: 8, crop: 64}}}}
  - prune: {{name: cut, from: baseline, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64}}
"""
# Without batch norms' statistics, which each process takes from its own images, and without a step by the sign of a gradient, what
# several processes do is what one does with all their images.
EQUAL = """
model: {name: angle, width: 0.35}
data:
  format: turned
  of: {format: synthetic_lines, train: 64, val: 8, test: 8, characters: {characters: AFGJLPRTVY347}, words: 1, longest: 4}
evaluate: {size: [48, 96]}
latency: {input: [1, 3, 48, 96], threads: 1, runtimes: [], rounds: 3}
stages:
  - train: {name: baseline, epochs: 2, batch: BATCH, crop: [48, 96], precision: fp32, optimizer: sgd, lr: 0.05, freeze_norms: 0.0}
"""
# `compress run` that notes which samples each process trains on, and in which the process named by KILLED ends itself in the second epoch.
NOTING = """
import json, os, signal, sys
from pathlib import Path
from compress.training import loop

def noted(training_set, epoch, batch, workers, rank, world):
    if epoch == 1 and os.environ.get("KILLED") == os.environ["RANK"]:
        os.kill(os.getpid(), signal.SIGKILL)
    real = training_set.__class__.__getitem__
    seen = []
    def getitem(self, key):
        seen.append(key)
        return real(self, key)
    training_set.__class__.__getitem__ = getitem
    yield from batches(training_set, epoch, batch, workers, rank=rank, world=world)
    training_set.__class__.__getitem__ = real
    note = Path(os.environ["NOTES"]) / f"{os.environ['RANK']}-{epoch}.json"
    if not note.exists():  # the first stage's, which trains alone
        note.write_text(json.dumps([world, seen]))

batches, loop.batches = loop.batches, noted
from compress.cli import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("two")
    (place / "two.yml").write_text(RECIPE)
    (place / "noting.py").write_text(NOTING)
    return place


def launch(folder: Path, out: str, killed: str = "", recipe: str = "two.yml") -> subprocess.CompletedProcess[str]:
    """Two processes on the processor; torchrun itself looks for a free port."""
    notes = folder / f"{out}.notes"
    notes.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(folder / "noting.py")]
    words += ["run", str(folder / recipe), "--out", str(folder / out), "--device", "cpu"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "NOTES": str(notes), "KILLED": killed}
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=surroundings, check=False)


@pytest.fixture(scope="module")
def done(folder) -> subprocess.CompletedProcess[str]:
    return launch(folder, "whole")


def test_two_processes_train_on_half_of_the_samples_each_and_one_writes(folder, done):
    assert done.returncode == 0, done.stderr[-3000:]
    for epoch in range(2):
        halves = []
        for rank in range(2):
            world, seen = json.loads((folder / "whole.notes" / f"{rank}-{epoch}.json").read_text())
            assert world == 2
            assert len(seen) == IMAGES // 2
            halves.append({tuple(key) for key in seen})
        assert halves[0] | halves[1] == {(epoch, index) for index in range(IMAGES)}
    rows = read_lines(folder / "whole" / "ledger.jsonl")
    assert [row["stage"] for row in rows] == ["baseline", "baseline/last", "pruned/raw", "pruned", "cut/raw", "cut"]
    assert read_json(folder / "whole" / "baseline" / "manifest.json")["processes"] == 2
    assert load(folder / "whole" / "pruned").network
    assert len(read_lines(folder / "whole" / "baseline" / "metrics.jsonl")) == 2
    assert done.stdout.count("Files, table.md") == 1
    assert done.stderr.count("baseline: train") == 1


@pytest.mark.usefixtures("done")
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_run_of_which_one_process_was_killed_goes_on_and_ends_in_the_same_weights(folder, rank):
    out = f"killed{rank}"
    killed = launch(folder, out, killed=rank)
    assert killed.returncode != 0
    assert (folder / out / "baseline.partial" / "training.pt").exists()
    assert not (folder / f"{out}.notes" / "0-1.json").exists()
    again = launch(folder, out)
    assert again.returncode == 0, again.stderr[:6000]
    for stage in ("baseline", "baseline/last", "pruned", "cut"):
        weights = [(folder / place / stage / "model.safetensors").read_bytes() for place in ("whole", out)]
        assert weights[0] == weights[1]


def test_two_processes_train_to_the_weights_and_scores_of_one_with_their_images(folder):
    (folder / "one.yml").write_text(EQUAL.replace("BATCH", "32"))
    (folder / "halves.yml").write_text(EQUAL.replace("BATCH", "16"))
    rows = compress.run(folder / "one.yml", out=folder / "one", quiet=True, timing="never")
    halves = launch(folder, "halves", recipe="halves.yml")
    assert halves.returncode == 0, halves.stderr[-3000:]
    alone, together = (load(folder / out / "baseline").network.state_dict() for out in ("one", "halves"))
    for name, weights in alone.items():
        assert torch.allclose(weights, together[name], atol=1e-6), name
    (folder / "short.yml").write_text(EQUAL.replace("BATCH", "32").replace("epochs: 2", "epochs: 1"))
    compress.run(folder / "short.yml", out=folder / "short", quiet=True, timing="never")
    before = load(folder / "short" / "baseline").network.state_dict()
    assert max((weights - before[name]).abs().max() for name, weights in alone.items()) > 1e-4, "an epoch changes the weights"
    assert read_lines(folder / "halves" / "ledger.jsonl")[0]["scores"] == pytest.approx(rows[0].scores)
