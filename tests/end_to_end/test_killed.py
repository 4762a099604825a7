"""kill -9 at random moments, and the command again: what an uninterrupted one leaves, but for what was timed.

`COMPRESS_KILLS` says how many of each run; they are spread over all stages, for a killed run goes on where it was.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress.checkpoint import load
from compress.cli import app
from compress.files import read_json, read_lines

pytestmark = pytest.mark.slow

TINY = Path(__file__).parent / "tiny.yml"
PADDLE = Path(__file__).parents[1] / "compress" / "paddle_style.py"
TIMED = ("latency_ms", "seconds")
KILLS = int(os.environ.get("COMPRESS_KILLS", "2"))
FEW = max(1, KILLS // 5)  # of what takes longer to begin


def start(*words: object) -> subprocess.Popen:
    """`compress WORDS` in a process group of its own."""
    command = [sys.executable, "-m", "compress", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def kill_after(seconds: float, *words: object) -> bool:
    """Start a command and kill it, it alone, after so many seconds; whether it was still at work. No process that it started stays."""
    process = start(*words)
    time.sleep(seconds)
    at_work = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return at_work
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail(f"processes of `compress {' '.join(map(str, words))}` live on after it was killed")


def finish(*words: object) -> None:
    """A command to its end."""
    process = start(*words)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed


def untimed(folder: Path) -> list[dict]:
    rows = read_lines(folder / "ledger.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def weights(folder: Path) -> dict[str, bytes]:
    """Every file of weights below the experiment, but for what was set aside."""
    kept = [path for path in sorted(folder.rglob("*")) if path.suffix in (".safetensors", ".bin", ".onnx")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept if ".cache" not in path.parts}


def loadable(folder: Path) -> None:
    """Whatever is not marked as partial must be whole."""
    for description in folder.glob("*/model.yml"):
        if not description.parent.name.endswith(".partial"):
            load(description.parent)
    if (folder / "ledger.jsonl").exists():
        for line in (folder / "ledger.jsonl").read_text().splitlines():
            json.loads(line)


def test_kills_at_random_moments_change_nothing_but_the_times(tiny_run, tmp_path):
    out = tmp_path / "killed"
    words = ("run", TINY, "-o", "latency.runtimes=[]", "--out", out)
    # Stages are a third of a whole run, and come after its start and its plan.
    working = sum(read_json(manifest)["seconds"] for manifest in tiny_run.glob("*/manifest.json"))
    moments = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        killed += kill_after(moments.uniform(0.7 * working, 1.1 * working), *words)
        if out.exists():
            loadable(out)
    finish(*words)
    assert killed >= KILLS // 2
    assert untimed(out) == untimed(tiny_run)
    assert weights(out) == weights(tiny_run)
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (("--fast", "--ratios", "0.5", "--scope", "backbone", "--workers", "2"), "sensitivity.json"),
        (("--quantize", "--fast"), "sensitivity_quantize.json"),
    ],
    ids=["groups", "layers"],
)
def test_killed_sweeps_go_on_end_in_the_same_points_and_leave_no_process(tiny_run, tmp_path, options, file):
    shutil.copytree(tiny_run / "baseline", tmp_path / "experiment" / "baseline")
    shutil.copy(tiny_run / "recipe.yml", tmp_path / "experiment")
    words = ("sensitivity", tmp_path / "experiment" / "baseline", *options, "--out")
    began = time.monotonic()
    result = CliRunner().invoke(app, [*map(str, words), str(tmp_path / "whole")])  # torch is loaded: quicker than in a process of its own
    assert result.exit_code == 0, result.output
    seconds = time.monotonic() - began
    moments = random.Random(1)
    killed = sum(kill_after(moments.uniform(0.5 * seconds, 0.8 * seconds), *words, tmp_path / "killed") for _ in range(FEW))
    finish(*words, tmp_path / "killed")
    assert killed
    assert read_json(tmp_path / "killed" / file) == read_json(tmp_path / "whole" / file)


def test_a_killed_conversion_is_done_by_the_same_command(tmp_path):
    spec = importlib.util.spec_from_file_location("paddle_style", PADDLE)
    style = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(style)
    graph, _ = style.detector(tmp_path)
    began = time.monotonic()
    finish("convert", graph, "-o", tmp_path / "whole")
    seconds = time.monotonic() - began
    moments = random.Random(2)
    for turn in range(FEW):
        out = tmp_path / f"killed{turn}"
        kill_after(moments.uniform(0.5 * seconds, seconds), "convert", graph, "-o", out)
        if (out / "model.yml").exists():
            load(out)
        else:
            finish("convert", graph, "-o", out)
        assert weights(out) == weights(tmp_path / "whole")
        assert (out / "model.yml").read_bytes() == (tmp_path / "whole" / "model.yml").read_bytes()
