"""kill -9 at random moments, and the command again: the ledger of an uninterrupted run, but for what was timed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from compress.checkpoint import load
from compress.files import read_lines

TINY = Path(__file__).parent / "tiny.yml"
TIMED = ("latency_ms", "seconds")
KILLS = 10


def start(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "compress", "run", str(TINY), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


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


def test_ten_kills_at_random_moments_change_nothing_but_the_times(tiny_run, tmp_path):
    out = tmp_path / "killed"
    moments = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        process = start(out)
        time.sleep(moments.uniform(2.0, 9.0))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if out.exists():
            loadable(out)
    last = start(out)
    printed, _ = last.communicate(timeout=300)
    assert last.returncode == 0, printed
    assert killed >= KILLS // 2
    assert untimed(out) == [{**row, "experiment": row["experiment"]} for row in untimed(tiny_run)]
    assert weights(out) == weights(tiny_run)
    assert not list(out.glob("*.partial"))
