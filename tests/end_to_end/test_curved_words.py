"""Words along curves from a folder in a published format to an exported file, as outlines of as many corners as they have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import shapely
import yaml

import compress
from compress.data.convert import convert
from compress.data.detection.augment import Augment
from compress.data.detection.synthetic import draw
from compress.data.formats import from_options
from compress.data.training import TrainingSet
from compress.evaluation.icdar import Scene
from compress.evaluation.protocols import PROTOCOLS
from compress.files import read_lines
from compress.models.contract import Algorithm, Sample
from compress.models.registry import build
from compress.predictor import open_predictor
from compress.tasks.detection import EvaluateDetection as Evaluate

SIZE = 320
IMAGES = {"train": 6, "test": 3}
FORMATS = ("totaltext", "ctw1500")

# What a network that has learnt its labels would give, in the shape of its exported maps.


def quarter(maps: np.ndarray) -> np.ndarray:
    """(C, H, W) at stride 4."""
    return np.stack([cv2.resize(channel.astype(np.float32), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for channel in maps])


def perfect_pan(labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    text, kernel = (labels[name].astype(np.float32) for name in ("text", "kernel"))
    apart = np.zeros((4, *text[0, ::4, ::4].shape), np.float32)
    apart[0] = 20 * text[0, 2::4, 2::4]  # further from each other than any `distance`
    return {"text": quarter(text > 0), "kernel": quarter(kernel > 0), "similarity": apart}


class Detector(NamedTuple):
    """model, evaluate: sections of a recipe. maps: labels of an image to maps."""

    model: str
    evaluate: str
    maps: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


CURVES = "short_side: 320, protocol: polygon_iou, polygons: true"
DETECTORS = {
    "db": Detector(
        "{name: db, backbone: {name: resnet18, width: 0.125}, neck: {name: fpn, channels: 16}}",
        f"{{{CURVES}, unclip_ratio: 2.0}}",
        lambda labels: {"probability": labels["shrink"].astype(np.float32)},
    ),
    "psenet": Detector(
        "{name: psenet, backbone: {name: resnet18, width: 0.125}, neck: {name: fpn, channels: 16}, stride: 1}",
        f"{{{CURVES}, min_area: 60}}",
        lambda labels: {"kernels": labels["kernels"].astype(np.float32)},
    ),
    "pan": Detector(
        "{name: pan, backbone: {name: resnet18, width: 0.125}, neck: {name: fpem_ffm, channels: 16, repeats: 1}}",
        f"{{{CURVES}, min_area: 60}}",
        perfect_pan,
    ),
    "sast": Detector(
        "{name: sast, backbone: {name: resnet18, width: 0.125}, neck: {name: cab_fpn, channels: 16, blocks: 1}}",
        f"{{{CURVES}, min_area: 60}}",
        lambda labels: {name: labels[name].astype(np.float32) for name in ("score", "border", "tvo", "tco")},
    ),
}
RECIPE = """
model: {model}
data: {{format: {data}, root: {root}}}
evaluate: {evaluate}
latency: {{input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}}
stages:
  - train:  {{name: baseline, epochs: 1, batch: 4, crop: 64}}
  - prune:  {{name: pruned, ratio: 0.5, criterion: l2, round_to: 2, batches: 1, batch: 4, crop: 64}}
  - export: {{name: files, formats: [onnx], check_images: 1}}
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Synthetic words along curves, written as PaddleOCR has them and converted into each published format."""
    root = tmp_path_factory.mktemp("curved")
    for part, count in IMAGES.items():
        (root / "synthetic" / part).mkdir(parents=True)
        lines = []
        for index in range(count):
            words, image = draw(0, part, index, SIZE, 1.0)
            cv2.imwrite(str(root / "synthetic" / part / f"{index}.png"), image[..., ::-1])
            told = [
                {"transcription": "###" if skip else text, "points": polygon.tolist()}
                for polygon, skip, text in zip(words.truth.polygons, words.truth.ignore, words.truth.texts, strict=True)
            ]
            lines.append(f"{part}/{index}.png\t{json.dumps(told)}\n")
        (root / "synthetic" / f"{part}.txt").write_text("".join(lines))
    (root / "synthetic" / "val.txt").write_text("train/5.png\n")
    for name in FORMATS:
        convert(root / "synthetic", "paddleocr", root / name, name)
    return {name: root / name for name in FORMATS}


def iou(one: np.ndarray, other: np.ndarray) -> float:
    first, second = (shapely.make_valid(shapely.Polygon(polygon)) for polygon in (one, other))
    return first.intersection(second).area / first.union(second).area


@pytest.mark.parametrize("name", FORMATS)
def test_outlines_are_those_that_were_written(folders, name):
    for part, count in IMAGES.items():
        split = from_options(name, folders[name]).open(part, 0)
        for sample, index in zip(split, range(count), strict=False):
            words, image = draw(0, part, index, SIZE, 1.0)
            np.testing.assert_array_equal(sample.image, image)
            np.testing.assert_array_equal(sample.truth.ignore, words.truth.ignore)
            for read, written in zip(sample.truth.polygons, words.truth.polygons, strict=True):
                np.testing.assert_array_equal(read, written)
            assert max(map(len, sample.truth.polygons)) > 6


@pytest.fixture(scope="module")
def views(folders) -> list:
    """Augmented training images, turned and mirrored, of both formats."""
    config = Augment(scales=(2.0,), cover=1.0)
    size = (2 * SIZE, 2 * SIZE)
    sets = [TrainingSet(from_options(name, folders[name]).open("train", 0), build("db"), config, size, 0) for name in FORMATS]
    return [one.view(epoch, index) for epoch, one in enumerate(sets) for index in range(len(one))]


def predicted(name: str, algorithm: Algorithm, settings: Evaluate, samples: Sequence[Sample]) -> list[Scene]:
    """What the labels of each sample decode to, as if they had been predicted, and its words, as protocols take them."""
    images = []
    for sample in samples:
        maps = {key: array[None] for key, array in DETECTORS[name].maps(algorithm.targets(sample)).items()}
        found = algorithm.decode(maps, [sample.image.shape[:2]], settings.settings(algorithm))[0].polygons
        images.append((found, sample.truth.polygons, sample.truth.ignore, sample.truth.texts))
    return images


@pytest.mark.parametrize("name", DETECTORS)
def test_labels_of_augmented_words_decode_to_the_words(views, name):
    algorithm, settings = build(yaml.safe_load(DETECTORS[name].model)), Evaluate(**yaml.safe_load(DETECTORS[name].evaluate))
    curved = predicted(name, algorithm, settings, views)
    counted = [(word, found) for found, words, ignore, _ in curved for word, skip in zip(words, ignore, strict=True) if not skip]
    assert len(counted) > 50
    for word, found in counted:
        nearest = max(found, key=lambda polygon: iou(word, polygon))
        assert iou(word, nearest) > 0.7
        assert len(nearest) > 4
    assert PROTOCOLS["polygon_iou"](curved).hmean == 1
    assert PROTOCOLS["deteval"](curved).hmean > 0.9
    boxes = predicted(name, algorithm, settings.with_settings({"polygons": False}), views)
    assert PROTOCOLS["polygon_iou"](boxes).hmean < 0.9


@pytest.mark.parametrize(("name", "data"), list(zip(DETECTORS, 2 * FORMATS, strict=True)))
def test_a_pruned_and_exported_detector_still_gives_outlines(folders, tmp_path, name, data):
    recipe = RECIPE.format(**DETECTORS[name]._asdict(), data=data, root=folders[data])
    (tmp_path / "chain.yml").write_text(recipe)
    compress.run(tmp_path / "chain.yml", out=tmp_path / "chain", quiet=True)
    rows = {row["stage"]: row for row in read_lines(tmp_path / "chain" / "ledger.jsonl")}
    assert rows["pruned"]["params"] < 0.5 * rows["baseline"]["params"]
    for row in rows.values():
        assert (row["settings"]["protocol"], row["settings"]["polygons"]) == ("polygon_iou", True)
    exported = open_predictor(tmp_path / "chain" / "files" / "onnx" / "model.onnx")
    split = from_options(data, folders[data]).open("test", 0)
    scenes = predicted(name, exported.algorithm, exported.evaluate, split)
    assert PROTOCOLS[exported.evaluate.protocol](scenes).hmean > 0.9
