"""The C++ program in docs/reading_cpp.md reads what `compress predict` reads. Skips without g++ and OpenCV's headers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import openvino
import pytest
import yaml

import compress
from compress.packaged import default_model

DOCS = Path(__file__).parents[2] / "docs"
HEADERS = Path("/usr/include/opencv4")


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("g++") or not (HEADERS / "opencv2/imgcodecs.hpp").is_file(), reason="needs g++ and libopencv-imgcodecs-dev"
)
def test_the_program_of_the_docs_reads_the_same(tmp_path):
    (code,) = re.findall(r"```cpp\n(.*?)```", (DOCS / "reading_cpp.md").read_text(), re.DOTALL)
    (tmp_path / "read.cpp").write_text(code)
    runtime = Path(openvino.__file__).parent
    (library,) = (runtime / "libs").glob("libopenvino.so.*")
    opencv = [f"-lopencv_{name}" for name in ("imgcodecs", "imgproc", "core")]
    command = ["g++", "-std=c++17", "read.cpp", "-o", "read", f"-I{runtime / 'include'}", f"-I{HEADERS}", str(library)]
    subprocess.run([*command, f"-Wl,-rpath,{runtime / 'libs'}", *opencv], cwd=tmp_path, check=True, timeout=300)
    characters = yaml.safe_load((default_model() / "pipeline.yml").read_text())["parts"]["recogniser"]["characters"]
    (tmp_path / "characters.txt").write_text("\n".join(characters) + "\n")
    program = [tmp_path / "read", DOCS / "sample.jpg", tmp_path / "characters.txt"]
    ran = subprocess.run(program, cwd=default_model(), capture_output=True, text=True, check=True, timeout=120)
    read = dict(line.rsplit(" ", 1) for line in ran.stdout.splitlines())
    words = compress.load().predict(DOCS / "sample.jpg").words
    assert sorted(read) == sorted(word.text for word in words)
    assert {word.text: word.confidence for word in words} == pytest.approx({text: float(score) for text, score in read.items()}, abs=0.05)
