"""`compress sweep` on a Ray cluster of two machines, here two nodes on loopback with nothing in common but a URL; one of them is lost."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.files import read_lines

pytest.importorskip("ray", reason="Ray is not installed: pip install 'compress-ocr[sweep]'")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")]

RECIPE = """
model: {name: db, backbone: {name: mobilenet_v3_small, width: 0.5}, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 16, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}
stages:
  - train: {name: baseline, epochs: 4, batch: 4, crop: 64}
  - prune: {name: pruned, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64, round_to: 4}
  - train: {name: finetuned, epochs: 8, batch: 4, crop: 64, evaluate_every: 8}
"""
SWEEP = """
recipe: small.yml
space:
  stages.pruned.ratio: [0.3, 0.5, 0.7]
objectives: [bytes]
storage: file://STORAGE
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def children(process: int) -> list[int]:
    """A process and all that it has started."""
    below: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        below.setdefault(parent, []).append(int(status.parent.name))
    found = [process]
    for one in found:
        found += below.get(one, [])
    return found


def kill(process: subprocess.Popen) -> None:
    """End a node at once, with all that works on it, as a loss of power does."""
    for one in reversed(children(process.pid)):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def wait_until(done: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s"
        time.sleep(0.2)


def without_latencies(trial: dict) -> dict:
    return {**trial, "rows": [{**row, "latency_ms": {}} for row in trial["rows"]]}


class Cluster:
    """Nodes of one core, each with a folder of its own for what it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        # Ray notices a lost machine after half a minute unless told to look more often.
        often = {
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "4",
            "RAY_health_check_initial_delay_ms": "1000",
        }
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        quiet = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        self.surroundings = {**os.environ, **often, **token, **quiet}
        self.nodes: dict[str, subprocess.Popen] = {}

    def start(self, name: str) -> None:
        first = not self.nodes
        where = ["--head", "--port", self.address.rpartition(":")[2], "--include-dashboard=false"] if first else ["--address", self.address]
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--object-store-memory=80000000", *where]
        own = {**self.surroundings, "COMPRESS_CACHE": str(self.folder / name)}
        with (self.folder / f"{name}.log").open("w") as log:
            self.nodes[name] = subprocess.Popen(words, stdout=log, stderr=log, env=own, start_new_session=True, cwd=self.folder)
        wait_until(lambda: "Ray runtime started" in (self.folder / f"{name}.log").read_text(), 60, f"node {name}")

    def sweep(self, machine: str, *words: str) -> subprocess.Popen:
        words = (sys.executable, "-m", "compress", "sweep", "sweep.yml", *words)
        own = {**self.surroundings, "COMPRESS_CACHE": str(self.folder / machine)}
        return subprocess.Popen(words, cwd=self.folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "small.yml").write_text(RECIPE)
    (tmp_path / "sweep.yml").write_text(SWEEP.replace("STORAGE", f"{tmp_path}/bucket"))
    found = Cluster(tmp_path)
    try:
        for name in "ab":
            found.start(name)
        yield found
    finally:
        for node in found.nodes.values():
            kill(node)


def test_trials_run_on_both_nodes_and_all_finish_though_one_is_lost(cluster):
    folder = cluster.folder
    process = cluster.sweep("a", "--out", "out", "--address", cluster.address)
    try:
        wait_until(lambda: list(folder.glob("b/shared/*/trials/*/run/finetuned.partial/training.pt")), 200, "a trial on the second node")
        kill(cluster.nodes["b"])
        printed, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, printed[-3000:]
    trials = read_lines(folder / "out" / "sweep.jsonl")
    assert sorted((trial["values"]["stages.pruned.ratio"], trial["state"], trial["why"]) for trial in trials) == [
        (ratio, "finished", "") for ratio in (0.3, 0.5, 0.7)
    ]
    begun = {name: {path.name for path in folder.glob(f"{name}/shared/*/trials/*")} for name in "ab"}
    assert begun["a"] == {trial["trial"] for trial in trials}
    assert begun["b"], "the second node had trials before it was lost"
    logs = "".join(path.read_text() for path in folder.glob("[ab]/shared/*/trials/*/log.txt"))
    assert logs.count("baseline: train") == 1, "two nodes needed the baseline at once"
    assert "a trial on another machine does this stage" in logs
    stages = sorted(path.name.partition("-")[0] for path in (folder / "bucket" / "store").iterdir())
    assert stages == ["baseline", *["finetuned"] * 3, *["pruned"] * 3]
    copy = folder / "bucket" / "out"
    assert [json.loads(line) for line in (copy / "sweep.jsonl").read_text().splitlines()] == trials
    assert (copy / "recommended.yml").read_bytes() == (folder / "out" / "recommended.yml").read_bytes()

    timed_elsewhere = cluster.sweep("c", "--out", "elsewhere/out", "--time-again")
    printed, _ = timed_elsewhere.communicate(timeout=600)
    assert timed_elsewhere.returncode == 0, printed[-3000:]
    assert "3 trial(s) done, 0 to run" in printed
    again = read_lines(folder / "elsewhere" / "out" / "sweep.jsonl")
    assert [without_latencies(trial) for trial in again] == [without_latencies(trial) for trial in trials]
    assert all(trial["rows"][-1]["latency_ms"] for trial in again)
    assert not list(folder.glob("c/shared/*/trials/*/log.txt")), "nothing was trained there"
