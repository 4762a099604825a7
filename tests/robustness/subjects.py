"""One of every kind of file that the workbench reads, and the commands that read it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from runs import Runner

from compress.checkpoint import load
from compress.data.convert import convert
from compress.data.detection.folder import ImageFolder
from compress.data.detection.synthetic import draw
from compress.data.formats import FORMATS
from compress.tasks import TASKS

TINY = Path(__file__).parents[1] / "end_to_end" / "tiny.yml"
REPORT = Path(__file__).parents[1] / "compress" / "report" / "conftest.py"
PADDLE = Path(__file__).parents[1] / "compress" / "paddle_style.py"
PREDICT = "predict a.png --model . --device cpu"
FORMATS_OF_FOLDERS = [name for name, kind in FORMATS.items() if issubclass(kind, ImageFolder)]


@dataclass(frozen=True)
class Subject:
    """A kind of file. folder: its surroundings. pairs: a file in it, and a command that reads it, in which it is called `{file}`.

    every: in how many rounds over all kinds it has one turn; more for commands that take seconds.
    """

    kind: str
    folder: Path
    pairs: tuple[tuple[str, str], ...]
    every: int = 1

    def words(self, command: str, file: str) -> list[str]:
        """A command that reads a file; weights are read with the .xml beside them."""
        return command.format(file=file.replace(".bin", ".xml")).split()


def whole_project(folder: Path, experiment: Path, runner: Runner, *, thorough: bool) -> list[Subject]:
    """All kinds, made in `folder` from the finished experiment of the tiny recipe. thorough: those too that take half a minute to make."""
    return [
        recipe(folder / "recipe"),
        *annotations(folder),
        checkpoint(folder / "checkpoint", experiment),
        quantized(folder / "quantized", experiment),
        experiment_files(folder / "experiment", experiment),
        figures(folder / "figures", experiment),
        exported(folder / "exported", experiment),
        images(folder / "images", experiment),
        paddle(folder / "paddle"),
        *([sweeps(folder / "sweeps", experiment, runner), torchscript(folder / "torchscript", experiment, runner)] if thorough else []),
    ]


def recipe(folder: Path) -> Subject:
    shutil.copytree(TINY.parent, folder, ignore=lambda _, names: [name for name in names if not name.endswith(".yml")])
    (folder / "refined.yml").write_text(
        "extends: tiny.yml\nseed: 7\nstages:\n  baseline: {epochs: 2, lr: 1.0e-3}\n  distilled: {teacher: [tiny_teacher.yml]}\n"
    )
    files = ("tiny.yml", "tiny_teacher.yml", "refined.yml")
    return Subject("recipe", folder, tuple(product(files, ["run refined.yml --out out --dry-run --device cpu"])))


def annotations(folder: Path) -> list[Subject]:
    """Two images a part in every format of detection, and lists of lines and labels."""
    source = folder / "icdar2015"
    for part in ("train", "test"):
        for index in range(2):
            annotation, image = draw(index, part, index, 96)
            words = annotation.truth
            write_image(source / f"{part}_images" / f"img_{index}.png", image)
            boxes = [(*polygon.min(0), *polygon.max(0)) for polygon in words.polygons]  # which every format holds
            lines = [
                f"{left:.0f},{up:.0f},{right:.0f},{up:.0f},{right:.0f},{low:.0f},{left:.0f},{low:.0f}" for left, up, right, low in boxes
            ]
            truth = source / f"{part}_gts" / f"gt_img_{index}.txt"
            truth.parent.mkdir(parents=True, exist_ok=True)
            truth.write_text("".join(f"{line},{text}\n" for line, text in zip(lines, words.texts, strict=True)))
    (source / "val.txt").write_text("img_1\n")
    found = []
    for name in FORMATS_OF_FOLDERS:
        place = folder / name
        if place != source:
            convert(source, "icdar2015", place, name)
        files = tuple(str(path.relative_to(place)) for path in sorted(place.rglob("*")) if path.is_file() and path.suffix != ".png")
        other = "paddleocr" if name != "paddleocr" else "totaltext"
        commands = (f"data check . --format {name}", f"data convert . --from {name} --to {other} -o ../converted_{name} --damaged skip")
        found.append(Subject(f"annotations {name}", place, tuple(product(files, commands))))
    lists = {"labels": ("0", "180"), "lines": ("Street 7", "left")}
    for name, truths in ((name, truths) for name, truths in lists.items() if FORMATS[name].task in TASKS):
        place = folder / name
        for index in range(3):
            write_image(place / "words" / f"{index}.png", np.full((32, 96, 3), 80 * index, np.uint8))
        for split in ("train", "test"):
            (place / f"{split}.txt").write_text("".join(f"words/{index}.png\t{truths[index % 2]}\n" for index in range(3)))
        found.append(Subject(f"annotations {name}", place, tuple(product(("train.txt", "test.txt"), [f"data check . --format {name}"]))))
    return found


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())


def checkpoint(folder: Path, experiment: Path) -> Subject:
    """Without the manifest of its stage, which knows the digests of its files."""
    shutil.copytree(experiment / "pruned", folder, ignore=shutil.ignore_patterns("manifest.json", "raw", "rows.json", "channels.json"))
    tuned = {"settings": {"bin_threshold": 0.3, "box_threshold": 0.5}, "shown": load(folder).evaluate.how_shown(), "val_score": 0.75}
    (folder / "tuned.json").write_text(json.dumps(tuned, indent=1))
    write_image(folder / "a.png", draw(0, "val", 0, 96)[1])
    return Subject("checkpoint", folder, tuple(product(("model.yml", "model.safetensors", "tuned.json"), [PREDICT])))


def quantized(folder: Path, experiment: Path) -> Subject:
    shutil.copytree(experiment / "int8", folder, ignore=shutil.ignore_patterns("manifest.json", "last", "rows.json", "control"))
    write_image(folder / "a.png", draw(0, "val", 0, 96)[1])
    return Subject("checkpoint int8", folder, tuple(product(("quantization.json", "model.safetensors"), [PREDICT])))


def experiment_files(folder: Path, experiment: Path) -> Subject:
    """What tables and the report are made of."""
    kept = ("ledger.jsonl", "recipe.yml", "manifest.json", "metrics.jsonl", "channels.json", "rows.json", "key.json", "score_control.json")
    for path in experiment.rglob("*"):
        if path.name in kept and ".cache" not in path.parts:
            (folder / "out" / path.relative_to(experiment)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / "out" / path.relative_to(experiment))
    shutil.copy(TINY, folder)
    shutil.copy(TINY.with_name("tiny_teacher.yml"), folder)
    files = tuple(str(path.relative_to(folder)) for path in sorted((folder / "out").rglob("*")) if path.is_file())
    commands = ("table out", "report out --images 0 -o page.html", "run tiny.yml --out out --dry-run --device cpu")
    return Subject("experiment", folder, tuple(product(files, commands)))


def figures(folder: Path, experiment: Path) -> Subject:
    """Sensitivities beside a ledger."""
    style = imported(REPORT)
    (folder / "out").mkdir(parents=True)
    for name in ("ledger.jsonl", "recipe.yml"):
        shutil.copy(experiment / name, folder / "out")
    of_layers = {"kind": "quantize", "points": [{"layer": f"neck.{index}", "loss": 1.0 + index, "scores": None} for index in range(4)]}
    files = {"sensitivity.json": style.prune_sensitivity(5), "sensitivity_quantize.json": {**style.prune_sensitivity(1), **of_layers}}
    for name, values in files.items():
        (folder / "out" / name).write_text(json.dumps(values, indent=1))
    return Subject("sensitivity", folder, tuple((f"out/{name}", "report out --images 0 -o page.html") for name in files), every=3)


def sweeps(folder: Path, experiment: Path, runner: Runner) -> Subject:
    """What sweeps go on from."""
    shutil.copytree(experiment / "baseline", folder / "out" / "baseline", ignore=shutil.ignore_patterns("last"))
    shutil.copy(experiment / "recipe.yml", folder / "out")
    commands = {
        "points.jsonl": "sensitivity out/baseline --fast --ratios 0.5 --scope backbone --workers 1",
        "sensitivity_quantize.json": "sensitivity out/baseline --quantize --fast",
    }
    for words in commands.values():
        finished(runner, words.split(), folder)
    return Subject("sweeps", folder, tuple((f"out/sensitivity/{file}", words) for file, words in commands.items()), every=16)


def finished(runner: Runner, words: list[str], folder: Path) -> None:
    """A command that makes what is mutated."""
    done = runner.run(words, folder, 300)
    assert done.status == 0, done.err


def torchscript(folder: Path, experiment: Path, runner: Runner) -> Subject:
    folder.mkdir()
    write_image(folder / "a.png", draw(0, "val", 0, 96)[1])
    finished(runner, ["export", str(experiment / "pruned"), "--format", "torchscript", "--out", "."], folder)
    return Subject("TorchScript", folder, (("torchscript/model.torchscript", "predict a.png --model {file}"),))


def exported(folder: Path, experiment: Path) -> Subject:
    folder.mkdir()
    for kind in ("files", "files_int8"):
        shutil.copy(experiment / kind / "onnx" / "model.onnx", folder / f"{kind}.onnx")
        for suffix in ("xml", "bin"):
            shutil.copy(experiment / kind / "openvino" / f"model.{suffix}", folder / f"{kind}.{suffix}")
    write_image(folder / "a.png", draw(0, "val", 0, 96)[1])
    commands = ("predict a.png --model {file}", "benchmark {file} --input 64x64 --rounds 3")
    return Subject("exported", folder, tuple(product(sorted(path.name for path in folder.glob("files*")), commands)))


def images(folder: Path, experiment: Path) -> Subject:
    """Images in the usual encodings, one with a thumbnail of other facts in it."""
    _, image = draw(0, "val", 0, 96)
    for name in ("a.png", "b.jpg", "c.bmp", "d.webp", "e.tif"):
        write_image(folder / name, image)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    plain = (folder / "b.jpg").read_bytes()
    (folder / "f.jpg").write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    shutil.copy(experiment / "files" / "onnx" / "model.onnx", folder)
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".onnx")
    return Subject("image", folder, tuple(product(names, ["predict {file} --model model.onnx"])))


def paddle(folder: Path) -> Subject:
    """A detector as Paddle writes it: a graph, and a pickle of arrays."""
    style = imported(PADDLE)
    folder.mkdir()
    files = style.detector(folder)
    return Subject("Paddle's", folder, tuple((path.name, "convert {file} -o converted") for path in files))


def imported(path: Path) -> ModuleType:
    """A module of the tests by its file."""
    spec = importlib.util.spec_from_file_location(f"robustness_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
