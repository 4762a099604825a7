"""Latency of a checkpoint in the runtimes that a recipe names."""

from __future__ import annotations

import torch

import compress.runtimes
from compress.checkpoint import fresh
from compress.measure import checkpoint_latency, integers, weight_bytes
from compress.runtimes import Runtime
from compress.runtimes.settings import Latency
from compress.tasks.detection import EvaluateDetection as Evaluate


def test_torch_compile_is_timed_when_asked_for_and_only_for_float_models(monkeypatch):
    asked = []

    def noted(_network, threads, *, compiled=False):
        asked.append(compiled)
        return Runtime("torch.compile" if compiled else "torch", "fp32", threads, {}, lambda _images: {})

    monkeypatch.setattr(compress.runtimes, "from_network", noted)
    torch.manual_seed(0)
    model = fresh({"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 32}}, Evaluate(short_side=64))
    settings = Latency(input=(1, 3, 32, 32), threads=1, rounds=3)
    assert list(checkpoint_latency(model, settings, ("torch", "torch.compile"))) == ["torch fp32", "torch.compile fp32"]
    assert asked == [False, True]
    quantized = model.with_network(model.network, "{}")
    assert list(checkpoint_latency(quantized, settings, ("torch.compile",))) == []


def test_weights_are_in_the_file_beside_a_graph(tmp_path):
    for graph, weights in (("m.xml", "m.bin"), ("n.ncnn.param", "n.ncnn.bin"), ("o.torchscript", "o.torchscript")):
        (tmp_path / graph).write_bytes(b"graph")
        (tmp_path / weights).write_bytes(b"weights")
        assert weight_bytes(tmp_path / graph) == len(b"weights")
    assert integers(tmp_path / "o.torchscript") == {}
