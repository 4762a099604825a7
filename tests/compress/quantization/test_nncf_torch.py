"""Quantized networks: what stays float, training, copies, and the way to disk and back."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from compress.errors import CompressError
from compress.quantization.folding import fold_like
from compress.quantization.nncf_torch import config_json, is_quantized, plain_state, quantize, quantizers, restore
from compress.quantization.settings import Quantizers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
KNOBS = [
    {},
    {"per_channel": False},
    {"without_vnni": False},
    {"activations": "symmetric"},
    {"ranges": "min_max"},
    {"ranges": "percentile", "percentile": 95.0},
    {"ranges": "histogram"},
    {"bias_correction": False},
]


@torch.no_grad()
def probability(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return network(images)["probability"]


def weight_quantizers(network: nn.Module) -> set[int]:
    """Output widths are told by scales; a weight's quantizer has a scale of four axes."""
    return [tuple(module.scale_shape) for module in quantizers(network).values() if len(module.scale_shape) == 4]


def test_a_quantized_network_is_near_and_the_original_untouched(detector, quantized_detector, batches):
    assert is_quantized(quantized_detector)
    assert not is_quantized(detector)
    assert any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    difference = (probability(detector, batches[1]) - probability(quantized_detector, batches[1])).abs()
    assert 1e-4 < difference.mean() < 0.06
    assert probability(detector, batches[1]).std() > 0.1


def test_weights_are_on_255_levels_a_channel_and_activations_on_one_scale(quantized_detector):
    scales = weight_quantizers(quantized_detector)
    # Stem, three convolutions a block, head, up; `last` is kept float and `aside` runs in training alone.
    assert len(scales) == 1 + 3 + 3 + 1 + 1
    for module in quantizers(quantized_detector).values():
        if len(module.scale_shape) == 4:
            assert (module.level_low, module.level_high) in [(-127, 127), (-63, 63)]
        else:
            assert tuple(module.scale_shape) == (1,)


def test_keep_float_finds_layers_in_lists(detector, batches):
    network = quantize(detector, batches[:1], batches[0], ["blocks.1.*", "last"])
    images = batches[0]
    expected = set()
    handles = [
        module.register_forward_hook(lambda _module, inputs, _output, name=name: expected.add((name, len(inputs[0].unique()) > 256)))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    probability(network, images)
    for handle in handles:
        handle.remove()
    scales = weight_quantizers(network)
    assert len(scales) == 1 + 3 + 1 + 1
    # The first block reads values of at most 256 levels; inside the second, nothing is rounded.
    assert ("blocks.0.depthwise.0", False) in expected
    assert ("blocks.1.depthwise.0", True) in expected


def test_a_pattern_that_matches_nothing_is_refused(detector, batches):
    with pytest.raises(CompressError, match=r"'block\.1'"):
        quantize(detector, batches[:1], batches[0], ["block.1"])


def test_no_calibration_data_is_refused(detector, batches):
    with pytest.raises(CompressError, match="calibration"):
        quantize(detector, iter(()), batches[0])


def test_the_same_batches_give_the_same_quantizers(detector, quantized_detector, batches):
    again = quantize(detector, batches, batches[0], ["last"])
    first, second = plain_state(quantized_detector), plain_state(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_trains(quantized_detector, batches):
    network = copy.deepcopy(quantized_detector).train()
    outputs = network(batches[0])
    assert set(outputs) == {"probability", "aside"}
    sum(map_.square().sum() for map_ in outputs.values()).backward()
    for name, parameter in network.named_parameters():
        if name.endswith(("weight", "_scale_param_storage")):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    before = probability(network.eval(), batches[0])
    torch.optim.SGD(network.parameters(), 0.05).step()
    assert not torch.equal(probability(network, batches[0]), before)


def test_a_copy_is_independent(quantized_detector, batches):
    twin = copy.deepcopy(quantized_detector)
    expected = probability(quantized_detector, batches[0])
    assert torch.equal(probability(twin, batches[0]), expected)
    for parameter in twin.parameters():
        if parameter.is_floating_point():
            parameter.data.mul_(1.3)
    assert not torch.equal(probability(twin, batches[0]), expected)
    assert torch.equal(probability(quantized_detector, batches[0]), expected)


@pytest.mark.parametrize("settings", KNOBS, ids=str)
def test_it_comes_back_bit_for_bit(detector, fresh_detector, batches, settings):
    network = quantize(detector, batches[:2], batches[0], ["last"], Quantizers(**settings))
    data, config = save(plain_state(network)), config_json(network)
    state = load(data)
    back = fresh_detector()
    fold_like(back, state.keys())
    back = restore(back, config, batches[0])
    back.load_state_dict(state, strict=True)
    for images in batches:
        assert torch.equal(probability(back.eval(), images), probability(network, images))
    assert config_json(back) == config


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"compression_state": [{}]}', '{"compression_state": [{"module_path": "os"}]}'])
def test_damaged_configurations_are_refused(fresh_detector, batches, config):
    with pytest.raises(CompressError, match="The description of the quantizers is"):
        restore(fresh_detector(), config, batches[0])


def test_quantizers_of_another_architecture_are_refused(quantized_detector, batches):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)

        def forward(self, images):
            return {"probability": self.conv(images)}

    with pytest.raises(CompressError, match="another architecture"):
        restore(Other(), config_json(quantized_detector), batches[0])


def test_nncf_says_nothing(detector, batches, capfd):
    network = quantize(detector, batches[:1], batches[0])
    probability(network, batches[0])
    config_json(network)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


SILENT = """
import sys, threading
events = []
watched = ("socket.", "urllib.", "os.fork", "os.posix_spawn", "subprocess.")
sys.addaudithook(lambda event, _: events.append(event) if event.startswith(watched) else None)
import torch
from torch import nn
from compress.quantization.nncf_torch import quantize
from compress.exporters.openvino import export_openvino
from compress.runtimes import open_file

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, images):
        return {"map": self.conv(images).sigmoid()}

images = torch.randn(1, 3, 16, 16)
network = quantize(Net(), [images], images)
open_file(export_openvino(network, sys.argv[1] + "/net.xml", images, {})).run(images.numpy())
assert "nncf" in sys.modules and "openvino" in sys.modules
assert "pytest" not in sys.modules, "NNCF sends nothing under pytest in any case"
sent = [event for event in events if event not in ("socket.__new__", "socket.gethostname")]
assert not sent, sent
others = [thread for thread in threading.enumerate() if "elemetry" in type(thread).__module__ + thread.name]
assert not others, others
assert not sys.modules.get("openvino_telemetry")
"""


def test_nothing_is_sent(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SILENT, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # The client identifier and the consent would be files in the home folder.
    assert not [path for path in home.rglob("*") if "telemetry" in path.name.lower() or "intel" in path.name.lower()]
