"""The process of one trial: `compress run` into the trial's folder, with latencies left out. It ends with whoever started it.

`python -m compress.sweeps.process` reads one line of JSON, :class:`Order`, from its standard input, which stays open for as long as its
starter lives, and writes how it ended. A process of its own, for what takes too much memory is killed by the system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout

from compress.errors import CompressError
from compress.files import read_lines, remembered, write_json
from compress.last_resort import RAISE, sentence_for
from compress.processes import LOCK
from compress.records import Epoch, SweepEnd
from compress.remote_store import Remote, is_url
from compress.stage_folder import METRICS, partial_folder
from compress.sweeps.leases import lent
from compress.sweeps.trials import END, LOG, RUN

WAIT = 0.2  # seconds between two looks at a trial
PATIENCE = 180.0  # seconds for the locks of a lost machine to be given up, as NFS does after 90


class Order(TypedDict):
    """What a trial is to do. folder: the trial's. store: a folder, or a URL."""

    recipe: str
    overrides: list[str]
    folder: str
    store: str
    device: str


def main() -> None:
    """Do what is ordered, and write down how it ended."""
    order: Order = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_starter, daemon=True).start()
    end = obey(order)
    write_json(Path(order["folder"]) / END, end)


def end_with_starter() -> None:
    """End this process when its standard input closes: the starter, killed, can tell nobody."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def obey(order: Order) -> SweepEnd:
    """Run the trial. Whatever goes wrong is its reason."""
    from compress import experiment

    try:
        folder, store = Path(order["folder"]), order["store"]
        wait_for_predecessor(folder / RUN)
        shared = Remote(store, partial(lent, folder)) if is_url(store) else store
        rows = experiment.run(order["recipe"], order["overrides"], out=folder / RUN, store=shared, timing="never", device=order["device"])
    except CompressError as error:
        return SweepEnd(state="failed", why=str(error), rows=[])
    except Exception as error:
        return SweepEnd(state="failed", why=sentence_for(error), rows=[])
    return SweepEnd(state="finished", why="", rows=[row.model_dump(mode="json") for row in rows])


def wait_for_predecessor(run: Path) -> None:
    """Let a process of the same trial, whose worker or machine was lost, come to its end: another machine notices that late."""
    run.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(run / LOCK, timeout=PATIENCE):
        pass


def run_alone(order: Order, threads: int, cwd: Path, watch: Callable[[], None]) -> SweepEnd:
    """Start the process, call `watch` until it ends, and say how it did. It is killed where `watch` raises."""
    folder = Path(order["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / END).unlink(missing_ok=True)
    surroundings = {name: value for name, value in os.environ.items() if name != RAISE} | {"OMP_NUM_THREADS": str(threads)}
    with (folder / LOG).open("a") as log:
        words = [sys.executable, "-m", "compress.sweeps.process"]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, cwd=cwd, env=surroundings)
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(order) + "\n")
            child.stdin.flush()
            while child.poll() is None:
                watch()
                time.sleep(WAIT)
            watch()
        finally:
            child.kill()
            child.wait()
    return remembered(folder / END, SweepEnd) or SweepEnd(state="failed", why=died(child.returncode, folder / LOG), rows=[])


def died(status: int, log: Path) -> str:
    """Why a process left no word of its end."""
    if status < 0:
        return f"Its process was killed (signal {-status}), often for lack of memory; what it printed is in {log}."
    return f"Its process ended with status {status}; what it printed is in {log}."


def validations(run: Path, stage: str, name: str, after: int) -> list[tuple[int, float]]:
    """Epoch and score, called `name`, of the evaluated epochs after `after` that a stage of the experiment has done so far."""
    found: list[dict[str, Any]] = []
    for folder in (partial_folder(run, stage), run / stage):
        try:
            found += read_lines(folder / METRICS, Epoch)
        except (CompressError, OSError):
            continue  # moved just now; it is looked for again
    scores = {entry["epoch"]: entry[name] for entry in found if name in entry and entry["epoch"] > after}
    return sorted(scores.items())


if __name__ == "__main__":
    main()
