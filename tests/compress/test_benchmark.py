"""`compress benchmark`: what is refused before any work, turns, pinning, and what the figures are said to mean."""

from __future__ import annotations

import json
import os
import types

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from compress import benchmark as module
from compress.benchmark import benchmark, image_size, pairs, pinned, remarks, thread_counts
from compress.checkpoint import example_input, fresh, load, save
from compress.cli import app
from compress.errors import CompressError
from compress.exporters.write import write_files
from compress.image_timing import image_timings
from compress.quantization.folding import fold_batch_norms
from compress.quantization.nncf_torch import config_json, quantize
from compress.runtimes import Runtime
from compress.runtimes.openvino import CALLS_BEFORE_FIXING
from compress.runtimes.runtime import timed
from compress.tasks.detection import EvaluateDetection


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    """A checkpoint folder and its ONNX and OpenVINO files."""
    folder = tmp_path_factory.mktemp("artefacts")
    torch.manual_seed(0)
    model = fresh(
        {"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 32}}, EvaluateDetection(short_side=64)
    )
    save(model, folder / "checkpoint")
    files = {name: folder / path for name, path, _ in write_files(model, ["onnx", "openvino"], folder, [])}
    return {"checkpoint": folder / "checkpoint", **files}


def test_everything_is_timed_in_turns_and_compared_with_the_first(artefacts):
    found = benchmark(list(artefacts.values()), size="64x96", rounds=3, quiet=True)
    assert json.loads(json.dumps(found)) == found
    assert (found["input"], found["rounds"]) == ([1, 3, 64, 96], 3)
    assert [(row["artefact"], row["runtime"], row["precision"], row["threads"]) for row in found["results"]] == [
        (str(path), runtime, "fp32", 1) for path, runtime in zip(artefacts.values(), ("torch", "onnxruntime", "openvino"), strict=True)
    ]
    assert found["results"][0]["ratio"] == 1
    for row in found["results"]:
        assert 0 < row["median"] <= row["p90"]
        assert row["ratio_quartiles"][0] <= row["ratio"] <= row["ratio_quartiles"][1]
        assert (row["integers"] is None) == (row["runtime"] == "torch")
    assert sum(remark.startswith("Fastest with 1 thread(s)") for remark in found["remarks"]) == 1


def test_one_file_in_several_runtimes(artefacts):
    found = benchmark([artefacts["onnx"]], size="32x32", rounds=3, runtimes=["onnxruntime,openvino"], quiet=True)
    assert [row["runtime"] for row in found["results"]] == ["onnxruntime", "openvino"]
    assert [row["integers"]["runtime"] for row in found["results"]] == ["onnxruntime", "openvino"]


def test_the_command_prints_the_table_and_json(artefacts):
    arguments = ["benchmark", str(artefacts["onnx"]), "--input", "32x64", "--rounds", "3"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert "0 of 63" in printed.output
    assert "Fastest with 1 thread(s)" in printed.output
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert found["results"][0]["input"] == [1, 3, 32, 64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "736"}, "height and width"),
        ({"size": "0x32"}, "height and width"),
        ({"size": "100x64"}, "multiples of 32x32, such as 96x64"),
        ({"threads": ["0"]}, "no number of threads"),
        ({"threads": ["1,two"]}, "no number of threads"),
        ({"threads": ["100000"]}, "more than the"),
        ({"rounds": 2}, "at least 3"),
        ({"size": None, "rounds": 9, "images": ["photo.png"]}, "leave out --input, --rounds and --runtime"),
        ({"runtimes": ["onnxruntim"]}, "did you mean 'onnxruntime'"),
        ({"runtimes": ["torch"]}, "runs none of the artefacts"),
        ({"runtimes": ["onnxruntime:bf16"]}, "bf16"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(artefacts, monkeypatch, options, message):
    monkeypatch.setattr(module, "timed", lambda *_: pytest.fail("something was timed"))
    with pytest.raises(CompressError, match=message) as raised:
        benchmark([artefacts["onnx"]], **{"size": "64x64", **options}, quiet=True)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_run_is_refused(artefacts, tmp_path):
    with pytest.raises(CompressError, match="There is no file"):
        pairs([tmp_path / "absent.onnx"], [])
    with pytest.raises(CompressError, match="not a checkpoint"):
        pairs([tmp_path], [])
    with pytest.raises(CompressError, match="runs in none of the runtimes asked for; it runs in openvino"):
        pairs([artefacts["onnx"], artefacts["openvino"]], ["onnxruntime"])


def test_sizes_and_threads_are_read():
    assert image_size("736x1280") == (736, 1280)
    assert thread_counts(["1"]) == thread_counts(["1,1", "1"]) == [1]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not pin")
def test_cores_are_pinned_and_given_back():
    before = os.sched_getaffinity(0)
    with pinned(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_every_call_is_counted():
    calls, done = [], []
    runtimes = [Runtime(name, "fp32", 1, {}, lambda _images, name=name: calls.append(name) or {}) for name in "ab"]
    seconds = timed(runtimes, (1, 3, 8, 8), 3, 2, done.append)
    assert seconds.shape == (2, 3)
    assert calls == ["a", "a", "b", "b", *"ababab"]
    assert sum(done) == len(calls)


def test_no_image_is_timed_before_a_model_has_met_its_size_often_enough():
    """OpenVINO compiles a model for a size that keeps coming, in a second or so; a pipeline it does not."""
    calls = []

    def predictor(name, **more):
        def answer(images):
            calls.append((name, images[0].shape[0]))
            return [{"seconds": {"detector": 1.0}, **more}] if name == "pipeline" else [{}]

        shown = types.SimpleNamespace(outputs=answer, reader=lambda: lambda _outputs, _size: None)
        return types.SimpleNamespace(shown_as=lambda _evaluate: shown, preferred=lambda: None)

    images = [np.zeros((height, 8, 3), np.uint8) for height in (4, 4, 6, 4)]
    file, pipeline = image_timings([predictor("file"), predictor("pipeline")], images)
    assert (len(file.seconds), len(pipeline.seconds)) == (4, 4)
    assert [calls.count(("file", height)) for height in (4, 6)] == [5 + 3, 5 + 1]
    assert [calls.count(("pipeline", height)) for height in (4, 6)] == [5 + 3, 1]
    assert CALLS_BEFORE_FIXING <= 5


def test_a_checkpoint_computes_with_the_threads_that_are_said(artefacts, tmp_path, monkeypatch):
    import cv2

    seen = []
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr("compress.benchmark.available_threads", lambda _wanted: 2)
    before, forward = torch.get_num_threads(), torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: seen.append(torch.get_num_threads()) or forward(self, x))
    for threads in (1, 2):
        seen.clear()
        benchmark([artefacts["checkpoint"]], images=[tmp_path / "photo.png"], threads=[str(threads)], quiet=True)
        assert seen[-1] == threads
    assert torch.get_num_threads() == before


def test_a_network_that_imitates_int8_is_not_called_slow(artefacts, tmp_path):
    model = load(artefacts["checkpoint"])
    images = example_input(model)
    fold_batch_norms(model.network, images)
    network = quantize(model.network, [images], images)
    save(model.with_network(network, config_json(network)), tmp_path / "int8")
    found = benchmark([artefacts["checkpoint"], tmp_path / "int8"], size="32x32", rounds=3, quiet=True)
    assert [row["precision"] for row in found["results"]] == ["fp32", "fake-quantized int8"]
    assert not any("slower than" in remark for remark in found["remarks"])


def result(name: str, seconds: np.ndarray, first: np.ndarray, precision: str = "fp32") -> dict:
    low, middle, high = np.quantile(seconds / first, (0.25, 0.5, 0.75))
    return {
        "artefact": name, "runtime": "onnxruntime", "precision": precision, "threads": 1, "input": [1, 3, 64, 64],
        "median": float(np.median(seconds) * 1e3), "ratio": middle, "ratio_quartiles": [low, high],
    }  # fmt: skip


def test_int8_that_is_slower_is_said_so():
    first = np.full(9, 0.010)
    told = remarks([result("a", first, first), result("b", first * 1.5, first, "int8")])
    assert any("b in onnxruntime (int8) is slower than the fp32 a" in line and "15.0 ms against 10.0 ms" in line for line in told)
    assert told[-1].startswith("Fastest with 1 thread(s): a in onnxruntime")
    assert not any("slower" in line for line in remarks([result("a", first, first), result("b", first * 0.5, first, "int8")]))


def test_int8_belongs_to_the_float_artefact_named_before_it():
    first = np.full(9, 0.010)
    small, large = result("small", first, first), result("large", first * 4, first)
    of_small, of_large = result("small8", first * 2, first, "int8"), result("large8", first * 3, first, "int8")
    slower = [line for line in remarks([small, of_small, large, of_large]) if "slower" in line]
    assert slower == ["small8 in onnxruntime (int8) is slower than the fp32 small: 20.0 ms against 10.0 ms with 1 thread(s)."]
    assert len([line for line in remarks([of_small, small]) if "slower" in line]) == 1, "before the first float one, it belongs to that"


def test_a_machine_that_slows_down_for_all_alike_is_no_scatter_and_one_that_flutters_is():
    drift = np.linspace(0.010, 0.050, 20)
    steady = remarks([result("a", drift, drift), result("b", drift * 0.5, drift)])
    assert steady == ["Fastest with 1 thread(s): b in onnxruntime (fp32), 15.0 ms."]
    flutter = np.where(np.arange(20) % 2, 0.5, 1.5)
    assert any(line.startswith("b in onnxruntime (fp32): the rounds scatter too much") for line in
               remarks([result("a", drift, drift), result("b", drift * flutter, drift)]))  # fmt: skip


def test_what_cannot_be_told_apart_is_named():
    first = np.full(20, 0.010)
    close = first * np.where(np.arange(20) % 2, 0.99, 1.02)
    (told,) = remarks([result("a", first, first), result("b", close, first)])
    assert "too close to it to tell apart: b in" in told
