"""Whether reading many images takes ever more memory: resident megabytes over synthetic images of as many sizes.

    python experiments/published/ocr/memory.py --images 500

Sides are drawn from 200 to 1600 pixels; one image is 50 times as wide as high, and one has 40 megapixels, both early. Ends with status 1
where the mean of the second half is more than 5 % above that of the second quarter.
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path

import cv2
import numpy as np

import compress

LONG, LARGE, WIDEST = (100, 5000), (5000, 8000), (200, 1600)  # (height, width)
MOST = 1.05


def main() -> None:
    """Read, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--short-side", type=int, default=736, help="of the image as the detector is shown it; less is faster")
    parser.add_argument("--model", type=Path, help="a pipeline's folder; else the packaged one")
    given = parser.parse_args()
    reader = compress.load(given.model, threads=1)
    reader = reader.shown_as(reader.evaluate.with_settings({"detector": {"short_side": given.short_side}}))
    answer = reader.asked()
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(200, 1600, (given.images, 2)).tolist()]
    sizes[1:5] = LONG, LARGE, WIDEST, WIDEST[::-1]
    used = []
    for count, size in enumerate(sizes, 1):
        answer(page(size, rng))
        used.append(resident())
        if count % max(1, given.images // 20) == 0:
            print(f"{count} images: {used[-1]:.0f} MB", flush=True)
    quarter = given.images // 4
    before, after = np.mean(used[quarter : 2 * quarter]), np.mean(used[2 * quarter :])
    print(f"second quarter: {before:.0f} MB, second half: {after:.0f} MB, {100 * (after / before - 1):+.1f} %")
    if after > MOST * before:
        raise SystemExit(1)


def page(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(height, width, 3) uint8 with up to ten words."""
    image = np.full((*size, 3), int(rng.integers(150, 255)), np.uint8)
    for _ in range(rng.integers(11)):
        word = "".join(rng.choice(list(string.ascii_letters), rng.integers(2, 14)))
        place = (int(rng.integers(size[1])), int(rng.integers(size[0])))
        cv2.putText(image, word, place, cv2.FONT_HERSHEY_SIMPLEX, min(size) / 300 * rng.uniform(0.7, 2), (10, 10, 10), 2, cv2.LINE_AA)
    return image


def resident() -> float:
    """Megabytes of this process in memory."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    main()
