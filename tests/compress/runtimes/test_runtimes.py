"""The runtimes' common face: results, descriptions, faults and timing."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from openvino import Core

from compress.errors import CompressError
from compress.exporters.onnx import export_onnx
from compress.exporters.openvino import export_openvino
from compress.runtimes import Runtime, from_network, interleaved, latency, open_file, openvino

EXPORTS = {".onnx": export_onnx, ".xml": export_openvino}
DESCRIPTION = {"model": {"name": "small", "größe": [1, 2]}, "thresholds": {"bin": 0.3}}


@pytest.fixture(scope="module")
def files(tmp_path_factory, detector, batches):
    folder = tmp_path_factory.mktemp("files")
    return {suffix: write(detector, folder / f"model{suffix}", batches[0], DESCRIPTION) for suffix, write in EXPORTS.items()}


@pytest.mark.parametrize("suffix", EXPORTS)
def test_any_batch_height_and_width(files, detector, suffix):
    runtime = open_file(files[suffix], threads=1)
    for shape in [(1, 3, 32, 32), (3, 3, 64, 32), (1, 3, 96, 160), (1, 3, 32, 32)]:
        images = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
        with torch.no_grad():
            expected = detector(images)["probability"].numpy()
        given = runtime.run(images.numpy())
        assert list(given) == ["probability"]
        assert given["probability"].dtype == np.float32
        np.testing.assert_allclose(given["probability"], expected, atol=2e-5)


def test_shapes_that_keep_coming_are_fixed_and_nothing_else_changes(files, detector):
    """More shapes than are ever fixed, each often enough, in turns, and one new one after all."""
    runtime = open_file(files[".xml"], threads=1)
    shapes = [(1, 3, 32, 32 * width) for width in range(1, openvino.FIXED_SHAPES + 3)]
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        compile_model = Core.compile_model
        patch.setattr(Core, "compile_model", lambda *given: compiled.append(given[1].input(0).partial_shape) or compile_model(*given))
        for shape in [*shapes * (openvino.CALLS_BEFORE_FIXING + 1), (2, 3, 64, 32)]:
            images = torch.randn(shape, generator=torch.Generator().manual_seed(shape[3]))
            with torch.no_grad():
                expected = detector(images)["probability"].numpy()
            np.testing.assert_allclose(runtime.run(images.numpy())["probability"], expected, atol=2e-5)
    assert [tuple(shape.to_shape()) for shape in compiled] == shapes[: openvino.FIXED_SHAPES]


@pytest.mark.parametrize("suffix", EXPORTS)
def test_results_are_not_overwritten_by_the_next_call(files, suffix):
    runtime = open_file(files[suffix], threads=1)
    first = runtime.run(np.zeros((1, 3, 32, 32), np.float32))["probability"]
    kept = first.copy()
    runtime.run(np.ones((1, 3, 32, 32), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("suffix", "name"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_a_file_says_what_it_is(files, suffix, name):
    runtime = open_file(files[suffix], threads=1)
    assert (runtime.name, runtime.precision, runtime.threads) == (name, "fp32", 1)
    assert runtime.description == {**DESCRIPTION, "precision": "fp32"}


def test_torch_equals_the_network_and_leaves_it_alone(detector, batches):
    network = copy.deepcopy(detector).train()
    threads = torch.get_num_threads()
    runtime = from_network(network, threads=1)
    with torch.no_grad():
        expected = detector(batches[0])["probability"]
    np.testing.assert_array_equal(runtime.run(batches[0].numpy())["probability"], expected.numpy())
    assert network.training
    assert torch.get_num_threads() == threads
    assert (runtime.name, runtime.precision) == ("torch", "fp32")


@pytest.mark.parametrize("suffix", EXPORTS)
def test_a_file_without_a_description_is_refused(files, tmp_path, suffix):
    path = tmp_path / f"bare{suffix}"
    if suffix == ".onnx":
        import onnx

        model = onnx.load(files[suffix])
        del model.metadata_props[:]
        onnx.save(model, path)
    else:
        path.write_text(files[suffix].read_text().replace("<compress ", "<other "))
        path.with_suffix(".bin").write_bytes(files[suffix].with_suffix(".bin").read_bytes())
    with pytest.raises(CompressError, match="does not say which model"):
        open_file(path)


@pytest.mark.parametrize("suffix", EXPORTS)
@pytest.mark.parametrize("share", [0, 0.5])
def test_truncated_files_are_refused(files, tmp_path, suffix, share):
    data = files[suffix].read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    if suffix == ".xml":
        path.with_suffix(".bin").write_bytes(files[suffix].with_suffix(".bin").read_bytes())
    with pytest.raises(CompressError, match=rf"cut\{suffix} cannot be read"):
        open_file(path)


@pytest.mark.parametrize("share", [None, 0, 0.5])
def test_missing_and_truncated_weights_are_refused(files, tmp_path, share):
    path = tmp_path / "model.xml"
    path.write_bytes(files[".xml"].read_bytes())
    if share is not None:
        weights = files[".xml"].with_suffix(".bin").read_bytes()
        path.with_suffix(".bin").write_bytes(weights[: int(len(weights) * share)])
    with pytest.raises(CompressError, match=r"model\.xml cannot be read"):
        open_file(path)


@pytest.mark.parametrize("suffix", EXPORTS)
def test_text_is_no_model(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_text("not a model at all\n" * 50)
    with pytest.raises(CompressError, match="cannot be read"):
        open_file(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CompressError, match="There is no file"):
        open_file(tmp_path / "absent.onnx")
    (tmp_path / "model.pt").touch()
    with pytest.raises(CompressError, match="neither"):
        open_file(tmp_path / "model.pt")


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_a_missing_package_is_named(files, monkeypatch, suffix, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(CompressError, match=f"pip install {package}"):
        open_file(files[suffix])


def test_precision_is_named_or_refused(files):
    with pytest.raises(CompressError, match="bf16"):
        open_file(files[".onnx"], precision="bf16")
    with pytest.raises(CompressError, match="f17"):
        open_file(files[".xml"], precision="f17")
    try:
        runtime = open_file(files[".xml"], threads=1, precision="bf16")
    except CompressError as error:
        assert "processor has no 'bf16'" in str(error)  # noqa: PT017
    else:
        assert runtime.precision == "bf16"


def test_latency_is_of_the_calls_asked_for():
    calls: dict[str, list[tuple[int, ...]]] = {"a": [], "b": []}
    order = []

    def counting(name: str) -> Runtime:
        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            calls[name].append(images.shape)
            order.append(name)
            return {}

        return Runtime("torch", "fp32", 3, {}, run)

    figures = interleaved([counting("a"), counting("b")], (2, 3, 8, 16), rounds=4, warmup=2)
    assert calls == {"a": [(2, 3, 8, 16)] * 6, "b": [(2, 3, 8, 16)] * 6}
    assert order[4:] == ["a", "b"] * 4
    for measured in figures:
        assert 0 <= measured.pop("median") <= measured.pop("p90")
        assert measured == {"threads": 3, "input": [2, 3, 8, 16], "rounds": 4}


def test_latency_tells_slow_from_fast():
    import time

    runtime = Runtime("torch", "fp32", 1, {}, lambda _images: time.sleep(0.02) or {})
    assert latency(runtime, (1, 3, 8, 8), rounds=3, warmup=0)["median"] >= 20


MANY_SIZES = """
import resource, sys
import numpy as np
from compress.packaged import default_part
from compress.runtimes import open_file
runtime = open_file(default_part("detector"), threads=1, steady=0 if sys.argv[1] == "steady" else None)
rng = np.random.default_rng(0)
used = []
for count in range(45):
    height, width = 32 * rng.integers(8, 20, 2)
    runtime.run(np.zeros((1, 3, height, width), np.float32))
    used.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print((used[-1] - used[14]) / 1e3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["compiled for sizes that keep coming", "steady"])
def test_images_of_many_sizes_do_not_fill_the_memory(how):
    ran = subprocess.run([sys.executable, "-c", MANY_SIZES, how], capture_output=True, text=True, check=True, timeout=120)
    assert float(ran.stdout.split()[-1]) < 120  # megabytes; 300 where OpenVINO keeps what it compiles for each size
