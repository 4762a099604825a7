"""Reading compared in one run on one machine: pipelines of this workbench and RapidOCR's PP-OCR, each in an environment of its own.

    python3 -m venv /tmp/rapid3 && /tmp/rapid3/bin/pip install rapidocr==3.10.0 onnxruntime        # PP-OCRv6 small
    python3 -m venv /tmp/rapid1 && /tmp/rapid1/bin/pip install rapidocr_onnxruntime==1.4.4         # PP-OCRv4 mobile
    python experiments/published/ocr/compare.py --data icdar2015 --root data/icdar2015 --split val --ours packaged \
        --ours experiments/ocr_small/int8 --peer rapidocr=/tmp/rapid3/bin/python \
        --peer rapidocr_onnxruntime=/tmp/rapid1/bin/python --limit 10 --out icdar2015.json

Every reader is a process that takes the path of an image on a line and answers with JSON on a line: its words, and the seconds from
pixels to text. All readers take turns on each image, so that they meet the same load; the first image is read once before. Words of all
readers are judged by the same scorer. Peak memory is the process's largest resident set, its libraries included. Bytes are those of the
models that a reader opens.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from compress.data.formats import from_options
from compress.models.contract import Reading, Word
from compress.runtimes.processor import processor
from compress.tasks.ocr import OCR, EvaluateOcr

# What all readers do around their own call.
LOOP = """
import json, sys, time
from pathlib import Path
import cv2
{setup}
for line in sys.stdin:
    image = cv2.imread(line.strip())
    start = time.perf_counter()
    words = read(image)
    seconds = time.perf_counter() - start
    (memory,) = [int(row.split()[1]) for row in open("/proc/self/status") if row.startswith("VmHWM")]
    print("ANSWER " + json.dumps({{"words": words, "seconds": seconds, "memory": memory, "bytes": size}}), flush=True)
"""
OURS = """
import compress
from compress.packaged import default_model
from compress.pipeline import folder_bytes
folder = Path({model!r}) if {model!r} != "packaged" else default_model()
reader, size = compress.load(folder, threads={threads}), folder_bytes(folder)
reader = reader.shown_as(reader.evaluate.with_settings({settings!r}))

def read(image):
    return [(word.polygon.tolist(), word.text, word.confidence) for word in reader.predict(image, color="bgr").words]
"""
RAPID3 = """
import rapidocr
models, characters = {models!r}, {characters!r}
settings = {{f"EngineConfig.onnxruntime.{{key}}_op_num_threads": count for key, count in (("intra", {threads}), ("inter", 1))}}
settings |= {{f"{{part}}.model_path": path for part, path in models.items()}}
if models:
    settings |= {{"Det.thresh": 0.2, "Det.box_thresh": 0.4, "Det.unclip_ratio": 1.4, "Rec.rec_keys_path": characters}}
reader = rapidocr.RapidOCR(params=settings)
own = [path for path in Path(rapidocr.__file__).parent.rglob("*.onnx") if not models or "cls" in path.name]
size = sum(path.stat().st_size for path in [*own, *map(Path, models.values())])

def read(image):
    found = reader(image)
    if found.boxes is None:
        return []
    return [(box.tolist(), text, float(score)) for box, text, score in zip(found.boxes, found.txts, found.scores)]
"""
RAPID1 = """
import rapidocr_onnxruntime
reader = rapidocr_onnxruntime.RapidOCR(intra_op_num_threads={threads}, inter_op_num_threads=1)
size = sum(path.stat().st_size for path in Path(rapidocr_onnxruntime.__file__).parent.rglob("*.onnx"))

def read(image):
    found, _ = reader(image)
    return [([[float(x), float(y)] for x, y in box], text, float(score)) for box, text, score in found or []]
"""
# `tiny` is PP-OCRv6 tiny by its own settings, opened by rapidocr.
PEERS = {"rapidocr": RAPID3, "tiny": RAPID3, "rapidocr_onnxruntime": RAPID1}

OWN = "a pipeline's folder, or `packaged`; and what its `evaluate` is to have instead, such as 'packaged={\"join_gap\": 1}' for receipts"


def main() -> None:
    """Parse, read, judge, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="icdar2015")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--ours", action="append", default=[], metavar="PIPELINE[=JSON]", help=OWN)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--tiny", type=Path, help="folder with PP-OCRv6_tiny_det.onnx and PP-OCRv6_tiny_rec.onnx, for the peer `tiny`")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    split = from_options(given.data, given.root).open(given.split, 0)
    places = range(min(given.limit or len(split), len(split)))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        images = [Path(folder) / f"{place}.png" for place in places]
        for place, path in zip(places, images, strict=True):
            Image.fromarray(split.image(place)).save(path, compress_level=1)
        truths = [split.annotations[place].truth for place in places]
        for threads in map(int, given.threads.split(",")):
            results += compared(commands(given, threads, Path(folder)), images, truths, threads)
    found = {"cpu": processor(), "data": given.data, "split": given.split, "images": len(images), "results": results}
    print(table(found))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


def commands(given: argparse.Namespace, threads: int, folder: Path) -> dict[str, list[str]]:
    """Reader -> the command that is its process. folder: for the list of characters that PP-OCRv6 tiny has in its .yml alone."""
    found = {}
    for name in given.ours:
        model, _, settings = name.partition("=")
        setup = OURS.format(model=model, threads=threads, settings=json.loads(settings or "{}"))
        found[name] = [sys.executable, "-c", LOOP.format(setup=setup)]
    for name, _, python in (peer.partition("=") for peer in given.peer):
        parts = (("Det", "det"), ("Rec", "rec")) if name == "tiny" else ()
        models = {part: str((given.tiny / f"PP-OCRv6_tiny_{short}.onnx").resolve()) for part, short in parts}
        characters = folder / "characters.txt"
        if models:
            known = yaml.safe_load((given.tiny / "PP-OCRv6_tiny_rec.yml").read_text(encoding="utf-8"))["PostProcess"]["character_dict"]
            characters.write_text("\n".join(known) + "\n", encoding="utf-8")
        setup = PEERS[name].format(threads=threads, models=models, characters=str(characters))
        found[name] = [python, "-c", LOOP.format(setup=setup)]
    return found


def compared(readers: dict[str, list[str]], images: Sequence[Path], truths: Sequence[Any], threads: int) -> list[dict[str, Any]]:
    """The figures of every reader, which take turns on each image."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    running = {
        name: subprocess.Popen(
            ["taskset", "-c", cores, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for name, command in readers.items()
    }
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in readers}
    for process in running.values():
        asked(process, images[0])
    for image in images:
        for name, process in running.items():
            answers[name].append(asked(process, image))
    for process in running.values():
        process.stdin.close()
        process.wait()
    return [figures(name, answers[name], truths, threads) for name in readers]


def asked(process: subprocess.Popen, image: Path) -> dict[str, Any]:
    """A reader's answer about an image; what its libraries print is passed over."""
    process.stdin.write(f"{image}\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("ANSWER "):
            return json.loads(line.removeprefix("ANSWER "))
    raise SystemExit(f"A reader ended at {image.name}; its messages are above.")


def figures(name: str, answers: Sequence[dict[str, Any]], truths: Sequence[Any], threads: int) -> dict[str, Any]:
    """Scores, milliseconds, bytes and memory of one reader."""
    readings = [Reading([Word(np.array(box, np.float32), text, score) for box, text, score in answer["words"]]) for answer in answers]
    milliseconds = 1e3 * np.array([answer["seconds"] for answer in answers])
    return {
        "reader": name,
        "threads": threads,
        "scores": OCR.judge(list(zip(readings, truths, strict=True)), EvaluateOcr()),
        "median_ms": float(np.median(milliseconds)),
        "mean_ms": float(milliseconds.mean()),
        "peak_mb": max(answer["memory"] for answer in answers) / 1e3,
        "bytes": answers[0]["bytes"],
    }


def table(found: dict[str, Any]) -> str:
    """The figures in Markdown."""
    head = ["reader", "threads", "E2E P %", "E2E R %", "E2E Hmean %", "spotting %", "1-NED %", "median ms", "mean ms", "peak MB", "MB"]
    lines = [head, ["---"] * len(head)]
    for row in found["results"]:
        scores = [f"{100 * row['scores'][metric.name]:.2f}" for metric in OCR.metrics]
        times = [f"{row[name]:.0f}" for name in ("median_ms", "mean_ms", "peak_mb")]
        lines.append([row["reader"], str(row["threads"]), *scores, *times, f"{row['bytes'] / 1e6:.2f}"])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n{found['images']} {found['split']} images of {found['data']}, on {found['cpu']}"


if __name__ == "__main__":
    main()
