"""Runtimes beside ONNX Runtime and OpenVINO: torch.compile, TorchScript, ncnn, TensorRT, and one file in another runtime."""

from __future__ import annotations

import json
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from compress.errors import CompressError
from compress.exporters.ncnn import export_ncnn
from compress.exporters.onnx import export_onnx, onnx_model
from compress.exporters.torchscript import export_torchscript
from compress.models.layers import conv_bn
from compress.quantization.nncf_torch import quantize
from compress.runtimes import from_network, open_file
from compress.runtimes.tensorrt import use_half, use_signed

pytestmark = pytest.mark.slow

DESCRIPTION = {"model": {"name": "small"}}


def ncnn_installed() -> bool:
    try:
        import ncnn  # noqa: F401
        import pnnx  # noqa: F401
    except ImportError:
        return False
    return True


needs_ncnn = pytest.mark.skipif(not ncnn_installed(), reason="ncnn and pnnx are not installed (pip install ncnn pnnx)")
EXPORTS = {"model.torchscript": export_torchscript, "model.ncnn.param": export_ncnn, "model.onnx": export_onnx}
FILES = ["model.torchscript", pytest.param("model.ncnn.param", marks=needs_ncnn)]


@pytest.fixture(scope="module")
def written(tmp_path_factory, detector):
    folder = tmp_path_factory.mktemp("files")
    example = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def write(name: str):
        path = folder / name
        return path if path.exists() else EXPORTS[name](detector, path, example, DESCRIPTION)

    return write


def expected_maps(network, images):
    with torch.no_grad():
        return network(images)["probability"].numpy()


@pytest.mark.parametrize("name", FILES)
def test_any_batch_height_and_width(written, detector, name):
    runtime = open_file(written(name), threads=1)
    for shape in [(1, 3, 32, 32), (3, 3, 64, 32), (1, 3, 96, 160)]:
        images = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
        given = runtime.run(images.numpy())
        assert list(given) == ["probability"]
        # ncnn's 3x3 convolutions are Winograd's, which round more.
        np.testing.assert_allclose(given["probability"], expected_maps(detector, images), atol=1e-4 if "ncnn" in name else 2e-5)


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is(written, name):
    runtime = open_file(written(name), threads=1)
    assert (runtime.name, runtime.precision, runtime.threads) == (name.split(".")[1], "fp32", 1)
    assert runtime.description.items() >= {**DESCRIPTION, "precision": "fp32"}.items()
    with pytest.raises(CompressError, match="bf16"):
        open_file(written(name), precision="bf16")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5])
def test_truncated_files_are_refused(written, tmp_path, name, share):
    data = written(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CompressError, match=r"cannot be read|does not say which model"):
        open_file(path)


@needs_ncnn
@pytest.mark.parametrize("share", [None, 0.5])
def test_ncnn_weights_that_are_missing_or_truncated_are_refused(written, tmp_path, share):
    source = written("model.ncnn.param")
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    if share is not None:
        weights = source.with_suffix(".bin").read_bytes()
        path.with_suffix(".bin").write_bytes(weights[: int(len(weights) * share)])
    with pytest.raises(CompressError, match=r"model\.ncnn\.param cannot be read"):
        open_file(path)


def test_ncnn_is_named_where_it_is_missing(tmp_path, detector, batches, monkeypatch):
    path = tmp_path / "m.param"
    path.write_text("7767517\n")
    monkeypatch.setitem(sys.modules, "ncnn", None)
    monkeypatch.setitem(sys.modules, "pnnx", None)
    with pytest.raises(CompressError, match="pip install ncnn"):
        open_file(path)
    with pytest.raises(CompressError, match="pip install pnnx ncnn"):
        export_ncnn(detector, path, batches[0], {})


class WritesFile(nn.Module):
    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, x: torch.Tensor):
        torch.save(x, self.target)
        return {"probability": x}


class WorksAtLoading(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.training = False

    @torch.jit.export
    def __getstate__(self):
        return (torch.zeros(1), self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.training = state[1]

    def forward(self, x: torch.Tensor):
        return {"probability": x}


class ForeignOperator(nn.Module):
    def forward(self, x: torch.Tensor):
        return {"probability": torch.ops.quantized.relu6(x, False)}


@pytest.mark.parametrize(
    ("hostile", "what"),
    [(WritesFile, "torch.save"), (WorksAtLoading, "__setstate__"), (ForeignOperator, "ops.quantized")],
)
@pytest.mark.filterwarnings("ignore")
def test_torchscript_that_does_more_than_compute_is_refused(tmp_path, hostile, what):
    target = tmp_path / "written_by_the_model"
    module = torch.jit.script(hostile(str(target)) if hostile is WritesFile else hostile())
    path = tmp_path / "hostile.torchscript"
    torch.jit.save(module, path, _extra_files={"compress": json.dumps({"precision": "fp32"})})
    with pytest.raises(CompressError, match=rf"its code calls '.*{what}"):
        open_file(path).run(np.zeros((1, 3, 32, 32), np.float32))
    assert not target.exists()


def test_torchscript_without_a_description_is_refused(tmp_path, detector, batches):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(detector, batches[0], strict=False), tmp_path / "bare.torchscript")
    with pytest.raises(CompressError, match="does not say which model"):
        open_file(tmp_path / "bare.torchscript")


def test_programs_of_torch_export_are_never_opened(tmp_path):
    (tmp_path / "m.pt2").write_bytes(b"PK")
    with pytest.raises(CompressError, match="pickles"):
        open_file(tmp_path / "m.pt2")


def test_an_onnx_file_runs_in_openvino(written, detector, batches):
    runtime = open_file(written("model.onnx"), threads=1, runtime="openvino")
    assert (runtime.name, runtime.description["model"]) == ("openvino", {"name": "small"})
    np.testing.assert_allclose(runtime.run(batches[0].numpy())["probability"], expected_maps(detector, batches[0]), atol=2e-5)


def test_a_runtime_that_does_not_read_the_file_is_refused(written):
    with pytest.raises(CompressError, match="does not run in 'onnxruntime'"):
        open_file(written("model.torchscript"), runtime="onnxruntime")


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, images):
        return {"map": (images * self.scale).relu()}


def test_torch_compile_gives_what_torch_gives():
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("no C++ compiler for torch.compile")
    network, images = Tiny(), np.linspace(-1, 1, 96, dtype=np.float32).reshape(1, 3, 4, 8)
    runtime = from_network(network, threads=1, compiled=True)
    assert (runtime.name, runtime.precision) == ("torch.compile", "fp32")
    np.testing.assert_allclose(runtime.run(images)["map"], np.maximum(images * 0.5, 0), rtol=1e-6)


def test_torch_compile_without_a_compiler_is_one_sentence(monkeypatch):
    from torch._inductor import config

    torch._dynamo.reset()
    monkeypatch.setattr(config.cpp, "cxx", (None, "/no/such/compiler"))
    runtime = from_network(Tiny(), threads=1, compiled=True)
    with pytest.raises(CompressError, match=r"^torch\.compile cannot compile[^\n]*C\+\+ compiler[^\n]*$"):
        runtime.run(np.zeros((1, 3, 16, 8), np.float32))
    torch._dynamo.reset()


def test_torch_compile_refuses_a_quantized_network(quantized_detector):
    with pytest.raises(CompressError, match="float networks"):
        from_network(quantized_detector, compiled=True)


def test_tensorrt_is_named_where_it_is_missing(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(CompressError, match="pip install tensorrt"):
        open_file(written("model.onnx"), runtime="tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CompressError, match="NVIDIA GPU"):
        open_file(written("model.onnx"), runtime="tensorrt")


def test_tensorrt_equals_torch(written, detector, batches):
    pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    if not torch.cuda.is_available():
        pytest.skip("TensorRT needs a GPU")
    runtime = open_file(written("model.onnx"), runtime="tensorrt")
    np.testing.assert_allclose(runtime.run(batches[0].numpy())["probability"], expected_maps(detector, batches[0]), atol=1e-3)


def as_written(model, images):
    """What the graph says, without ONNX Runtime's own rewriting."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, {"images": images}
    )[0]


def test_activations_for_tensorrt_are_signed_and_symmetric(quantized_detector, batches):
    model = onnx_model(quantized_detector, batches[0], {})
    images = batches[0].numpy()
    before = as_written(model, images)
    use_signed(model)
    stored = {constant.name: constant for constant in model.graph.initializer}
    zeros = [stored[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert all(zero.data_type == TensorProto.INT8 and numpy_helper.to_array(zero) == 0 for zero in zeros)
    # Seven bits instead of eight: as far away as quantization itself costs, not further.
    after = as_written(model, images)
    assert 0 < np.abs(after - before).mean() < 0.05


def test_activations_that_share_a_zero_point_keep_steps_of_their_own(noise, lively):
    """A chain whose ReLUs all have the zero point 0, which the exporter stores once."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([conv_bn(3 if place == 0 else 16, 16, 3) for place in range(5)])
            self.last = nn.Conv2d(16, 1, 1)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return {"probability": self.last(x).sigmoid()}

    torch.manual_seed(0)
    network = Chain()
    network = lively(network, network.last)
    batches = [noise(seed, 2, 3, 64, 96) for seed in range(1, 5)]
    model = onnx_model(quantize(network, batches, batches[0], ["last"]), batches[0], {})
    before = as_written(model, batches[0].numpy())
    use_signed(model)
    with torch.no_grad():
        expected = network(batches[0])["probability"].numpy()
    stored = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    rounding = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(rounding) >= 5
    assert all(stored[node.input[2]].dtype == np.int8 for node in rounding)
    # Half of the steps: twice what integers cost, where a step that stayed as it was cuts off half of the range.
    after, cost = np.abs(as_written(model, batches[0].numpy()) - expected), np.abs(before - expected)
    assert after.mean() < 2.5 * cost.mean()
    assert after.max() < 2.5 * cost.max()


def test_a_grid_that_is_symmetric_already_stays_as_it_is():
    from onnx import helper

    values = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16) / 16 - 8
    constants = [numpy_helper.from_array(np.float32(1 / 16), "step"), numpy_helper.from_array(np.uint8(128), "zero")]
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape) for name in ("images", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", sides[:1], sides[1:], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    use_signed(model)
    np.testing.assert_array_equal(as_written(model, values), values)


def test_half_precision_for_tensorrt_halves_the_weights_and_keeps_the_maps(detector, batches):
    model = onnx_model(detector, batches[0], {})
    images = batches[0].numpy()
    expected = as_written(model, images)
    use_half(model)
    kinds = {constant.data_type for constant in model.graph.initializer if len(constant.dims) == 4}
    assert kinds == {TensorProto.FLOAT16}
    given = as_written(model, images)
    assert given.dtype == np.float32
    assert 0 < np.abs(given - expected).max() < 0.02
