"""A process that prepares samples and is killed, as the system does where memory is short, is told as that."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 4, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages:
  - train: {name: baseline, epochs: 2, batch: 2, crop: 64, workers: 2}
"""
# `compress run` in which one of the workers is killed: while it prepares a sample, or, with all samples there, while the state is saved.
KILLING = {
    "preparing": """
from compress.data import training
def killed(self, key):
    if key[0] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, key)
real, training.TrainingSet.__getitem__ = training.TrainingSet.__getitem__, killed
""",
    "saving": """
import multiprocessing
from compress.training import loop
def killed(*arguments):
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(1)
    return real(*arguments)
real, loop.torch.save = loop.torch.save, killed
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("when", KILLING)
def test_a_killed_worker_is_told_as_that_and_the_run_goes_on(tmp_path, when):
    (tmp_path / "small.yml").write_text(RECIPE)
    words = ["--quiet", "run", str(tmp_path / "small.yml"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    code = f"import os, signal, sys, time\n{KILLING[when]}\nfrom compress.cli import main\nmain()"
    surroundings = {name: value for name, value in os.environ.items() if name != "COMPRESS_TRACEBACK"}
    killed = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, env=surroundings, check=False
    )
    assert killed.returncode == 1
    told = re.sub(r"\s+", " ", killed.stderr)
    assert "compress: A process that prepares samples was killed, often for lack of memory; take fewer workers" in told
    assert "Traceback" not in told
    again = subprocess.run([sys.executable, "-m", "compress", *words], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
