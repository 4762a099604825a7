"""What a recipe expects, held against rows."""

from __future__ import annotations

from compress.gates import gates
from compress.ledger import Row


def row(latency: float | None) -> Row:
    timed = {"openvino fp32": {"median": latency, "p90": latency, "threads": 1, "input": [1, 3, 64, 64], "rounds": 3}}
    return Row.model_validate(
        {
            "experiment": "r", "stage": "files/openvino", "kind": "export", "parent": None, "key": "a", "seed": 0, "task": "detection",
            "params": 1, "macs": 10, "bytes": 100, "scores": {"precision": 0.5, "recall": 0.5, "hmean": 0.5}, "main": "hmean", "delta": 0.0,
            "split": "test", "images": 2, "settings": {}, "runtime": "openvino", "latency_ms": timed if latency else {},
            "artefact": "files", "seconds": 1.0,
        }
    )  # fmt: skip


def test_a_latency_is_held_against_its_limit_where_there_is_one():
    limits = {"max_latency_ms": 5.0, "max_bytes": 100}
    assert [(gate.name, gate.met) for gate in gates("files", limits, [row(6.0)], row(6.0))] == [
        ("max_latency_ms", False),
        ("max_bytes", True),
    ]
    assert [(gate.name, gate.met) for gate in gates("files", limits, [row(None)], row(None))] == [("max_bytes", True)]
