"""How long a sweep of twelve trials takes, beside the same twelve runs one after the other in a shell loop, which share no stages.

    python experiments/published/sweeps/overhead.py --out experiments/overhead

Each of the two begins without a cache. Both times are wall-clock, with the start of Ray and of every process in them; the last line
is their ratio. It means something on a quiet machine alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RATIOS = (0.2, 0.25, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
RECIPE = Path(__file__).parents[3] / "recipes" / "db_mini.yml"


def compress(out: Path, *arguments: str) -> None:
    """One command, its output kept below `out`. Raises CalledProcessError where it fails."""
    with (out / "log.txt").open("a") as log:
        command = [sys.executable, "-m", "compress", *arguments]
        subprocess.run(command, env={**os.environ, "COMPRESS_CACHE": str(out / "cache")}, stdout=log, stderr=log, check=True)


def by_sweep(out: Path) -> None:
    """All trials by one sweep."""
    sweep = out / "sweep.yml"
    sweep.write_text(f"recipe: {RECIPE}\nspace: {{stages.pruned.ratio: {list(RATIOS)}}}\nobjectives: [score, bytes]\n")
    compress(out, "sweep", str(sweep), "--out", str(out / "sweep"))


def by_loop(out: Path) -> None:
    """All trials one after the other, each in a folder of its own."""
    for ratio in RATIOS:
        chosen = ("-o", f"stages.pruned.ratio={ratio}", "-o", "latency.runtimes=[]")
        compress(out, "run", str(RECIPE), *chosen, "--out", str(out / f"run_{ratio}"))


def seconds(work: Callable[[Path], None], out: Path) -> float:
    """What `work` takes in a new folder."""
    out.mkdir(parents=True)
    begin = time.perf_counter()
    work(out)
    return time.perf_counter() - begin


def main() -> None:
    """Both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="A new folder for both.")
    out = parser.parse_args().out.resolve()
    loop, sweep = seconds(by_loop, out / "loop"), seconds(by_sweep, out / "by_sweep")
    print(f"loop {loop:.0f} s, sweep {sweep:.0f} s, ratio {sweep / loop:.2f}")


if __name__ == "__main__":
    main()
