"""The detector that comes with the package: found from anywhere, small, in the wheel, and it finds words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import compress
from compress import packaged
from compress.data.images import read_image
from compress.errors import CompressError
from compress.predictor import open_predictor

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "compress" / "default_model"


def test_a_word_is_found_from_another_folder_without_a_word_about_models(tmp_path):
    image = np.full((240, 480, 3), 235, np.uint8)
    cv2.putText(image, "COFFEE", (100, 140), cv2.FONT_HERSHEY_DUPLEX, 2.0, (30, 30, 30), 5, cv2.LINE_AA)
    left, top, width, height = cv2.boundingRect(cv2.findNonZero((image[..., 0] < 200).astype(np.uint8)))
    cv2.imwrite(str(tmp_path / "photo.jpg"), image)
    # The checkout under test, whatever else is installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "compress", "predict", "photo.jpg"]
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "predictions" / "photo.png").exists()
    (found,) = json.loads((tmp_path / "predictions" / "photo.json").read_text())["words"]
    truth = np.array([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], np.float32)
    polygon = np.array(found["polygon"], np.float32)
    shared, _ = cv2.intersectConvexConvex(truth, polygon)
    assert shared / (cv2.contourArea(truth) + cv2.contourArea(polygon) - shared) > 0.5


def test_words_of_a_line_in_a_strip_are_found_one_by_one():
    """A line of text 24 pixels high: enlarged to 736, words are too high to be found, and take gigabytes."""
    strip = np.full((24, 2400, 3), 255, np.uint8)
    places = range(20, 2400, 300)
    for left in places:
        cv2.putText(strip, "total", (left, 17), cv2.FONT_HERSHEY_DUPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    found = sorted(polygon.mean(0).tolist() for polygon in open_predictor(threads=1).predict(strip).polygons)
    assert [round((x - 45) / 300) for x, _ in found] == list(range(len(places)))
    assert all(abs(x - 43 - 300 * place) < 15 and 4 < y < 20 for place, (x, y) in enumerate(found))


def test_it_is_one_small_file_that_says_how_to_use_it():
    path = packaged.default_model()
    assert path.parent == FOLDER
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 1_500_000
    detector = open_predictor(path)
    assert detector.algorithm.task == "detection"
    assert detector.evaluate.settings(detector.algorithm) != detector.algorithm.settings()


def test_it_is_in_the_wheel_with_its_notice(monkeypatch):
    """The list of files that setuptools would pack, from the settings alone."""
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.chdir(ROOT)
    distribution = setuptools.Distribution()
    distribution.parse_config_files(["setup.cfg"])
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    packed = {Path(source) / name for _, source, _, names in build.data_files for name in names}
    assert packed >= {path.relative_to(ROOT) for path in FOLDER.iterdir()}
    assert {"LICENSE", "NOTICE"} <= set(distribution.metadata.license_files)
    assert "PaddleOCR" in (ROOT / "NOTICE").read_text()


@pytest.mark.parametrize(("names", "told"), [([], "not 0"), (["a.onnx", "b.xml"], "not 2")])
def test_a_broken_installation_is_one_sentence(tmp_path, monkeypatch, names, told):
    (tmp_path / "default_model").mkdir()
    for name in (*names, "README.md", "b.bin"):
        (tmp_path / "default_model" / name).touch()
    monkeypatch.setattr(packaged, "files", lambda _: tmp_path)
    with pytest.raises(CompressError, match=told):
        packaged.default_model()


def test_another_file_takes_its_place_by_lying_there(tmp_path, monkeypatch):
    (tmp_path / "default_model").mkdir()
    (tmp_path / "default_model" / "better.onnx").touch()
    monkeypatch.setattr(packaged, "files", lambda _: tmp_path)
    assert packaged.default_model().name == "better.onnx"


def test_it_is_what_load_opens_without_a_path_and_reads_a_file_by_its_name():
    sample = ROOT / "docs" / "sample.jpg"
    detector = compress.load()
    found = detector.predict(str(sample))
    assert len(found.polygons) >= 8
    same = detector.predict(read_image(sample))
    assert all(np.array_equal(one, other) for one, other in zip(found.polygons, same.polygons, strict=True))
    with pytest.raises(CompressError, match=r"nowhere\.jpg"):
        detector.predict("nowhere.jpg")
