"""Models of others, damaged ones and hostile ones: whatever a runtime says of them is one sentence that names the file."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.converters.onnx_graph import read_onnx
from compress.description import understood
from compress.errors import CompressError
from compress.exporters.inspect import inspect
from compress.exporters.onnx import export_onnx
from compress.exporters.openvino import export_openvino
from compress.predictor import Predictor
from compress.runtimes import open_file

DESCRIPTION = {"format": 1, "model": {"name": "db"}, "evaluate": {"short_side": 64}, "tuned": {}, "precision": "fp32"}


def value(name: str, kind: int = TensorProto.FLOAT, sizes: tuple = ("b", 3, "h", "w")):
    return helper.make_tensor_value_info(name, kind, list(sizes))


def foreign(path: Path, nodes: list, inputs: list, outputs: list, constants: tuple = ()) -> Path:
    """A file that is a sound ONNX model and says that it is one of ours."""
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, list(constants)), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    helper.set_model_props(model, {"compress": json.dumps(DESCRIPTION)})
    onnx.save(model, path)
    return path


def two_inputs(path: Path) -> Path:
    return foreign(path, [helper.make_node("Add", ["a", "b"], ["y"])], [value("a"), value("b")], [value("y")])


def of_integers(path: Path) -> Path:
    return foreign(path, [helper.make_node("Neg", ["x"], ["y"])], [value("x", TensorProto.INT64)], [value("y", TensorProto.INT64)])


def of_vectors(path: Path) -> Path:
    return foreign(path, [helper.make_node("Neg", ["x"], ["y"])], [value("x", sizes=("b", 10))], [value("y", sizes=("b", 10))])


def of_another_size(path: Path) -> Path:
    weight = numpy_helper.from_array(np.ones((7, 7), np.float32), "w")
    return foreign(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x")], [value("y")], (weight,))


def of_text(path: Path) -> Path:
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
    return foreign(path, [cast], [value("x")], [value("y", TensorProto.STRING)])


def answer(path: Path, runtime: str) -> None:
    """Open a file and ask it about an image."""
    found = open_file(path, threads=1, runtime=runtime)
    described = understood(found.description, path)
    predictor = Predictor(found.run, described.algorithm, described.evaluate, {}, found.name, found.precision)
    predictor.predict(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("made", [two_inputs, of_integers, of_vectors, of_another_size, of_text])
def test_a_model_of_something_else_is_refused_by_name_when_it_is_opened_or_run(tmp_path, made, runtime):
    """Some run what they should not, integers as if they were floats; then it is their outputs that are refused."""
    path = made(tmp_path / "model.onnx")
    with pytest.raises(CompressError) as refused:
        answer(path, runtime)
    assert re.search(rf"{path}|The model in {runtime} gives other outputs", str(refused.value))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.fixture(scope="module")
def files(tmp_path_factory, detector, batches) -> Path:
    folder = tmp_path_factory.mktemp("files")
    export_onnx(detector, folder / "model.onnx", batches[0], DESCRIPTION)
    export_openvino(detector, folder / "model.xml", batches[0], DESCRIPTION)
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.bin"])
@pytest.mark.parametrize("harm", ["cut", "empty", "text"])
def test_damaged_files_are_refused_by_name_wherever_they_are_opened(files, tmp_path, name, harm):
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = (files / name).read_bytes()
    (tmp_path / name).write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"words\n" * 99}[harm])
    path = tmp_path / name.replace(".bin", ".xml")
    for opened in (open_file, inspect, lambda place: open_file(place, runtime="openvino"), lambda place: inspect(place, "openvino")):
        with pytest.raises(CompressError, match=re.escape(str(path))):
            opened(path)


# What would read other files, or grow


def with_outside(files: Path, folder: Path, place: str) -> Path:
    """The exported model, of which one constant is said to lie in the file at `place`."""
    model = onnx.load(files / "model.onnx")
    constant = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    (folder.parent / "secret.bin").write_bytes(constant.raw_data)
    constant.ClearField("raw_data")
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value=place)
    folder.mkdir()
    (folder / "link.bin").symlink_to("../secret.bin")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("place", ["../secret.bin", "{above}/secret.bin", "link.bin", "../model/../secret.bin", "/dev/zero", "/etc/passwd"])
def test_constants_outside_of_the_folder_of_an_onnx_file_are_not_read(files, tmp_path, place):
    path = with_outside(files, tmp_path / "model", place.format(above=tmp_path))
    for opened in (
        open_file,
        inspect,
        read_onnx,
        lambda file: open_file(file, runtime="openvino"),
        lambda file: inspect(file, "openvino"),
    ):
        with pytest.raises(CompressError, match=re.escape(str(path))):
            opened(path)


def test_entities_in_an_openvino_file_are_neither_read_from_files_nor_multiplied(files, tmp_path):
    (tmp_path / "secret").write_text("the-secret")
    (tmp_path / "model.bin").write_bytes((files / "model.bin").read_bytes())
    bomb = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 20}">' for level in range(1, 12))
    head = f'<!DOCTYPE net [<!ENTITY file SYSTEM "file://{tmp_path}/secret"><!ENTITY e0 "0123456789">{bomb}]>'
    for entity in ("&file;", "&e11;"):
        text = (files / "model.xml").read_text().replace("?>", f"?>{head}", 1).replace("fp32", entity)
        (tmp_path / "model.xml").write_text(text)
        began = time.monotonic()
        try:
            told = open_file(tmp_path / "model.xml", threads=1).precision
        except CompressError as refused:
            told = str(refused)
        assert "the-secret" not in told
        assert len(told) < 1000
        assert time.monotonic() - began < 5
