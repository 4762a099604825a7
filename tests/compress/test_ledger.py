from __future__ import annotations

import csv
import io

import pytest

from compress import ledger
from compress.errors import CompressError
from compress.ledger import Row


def row(stage: str, **values) -> Row:
    facts = {
        "experiment": "x", "stage": stage, "kind": "train", "parent": None, "key": "k", "seed": 0, "params": 579550, "macs": 10**9,
        "bytes": 2400000, "precision": 0.857, "recall": 0.7477, "hmean": 0.7986, "hmean_delta": 0.0, "split": "test", "images": 500,
        "thresholds": {"short_side": 736, "bin_threshold": 0.5}, "runtime": "torch fp32", "artefact": stage, "seconds": 3.5,
        "latency_ms": {"openvino int8": {"median": 4.25, "p90": 5.0, "threads": 1, "input": [1, 3, 320, 320], "rounds": 20}},
    }  # fmt: skip
    return Row(**{**facts, **values})


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [row("baseline"), row("pruned", hmean=1 / 3, latency_ms={})]
    ledger.write(tmp_path, rows)
    assert ledger.read(tmp_path) == rows


def test_the_tables_name_every_row_and_what_it_was_measured_by(tmp_path):
    ledger.write(tmp_path, [row("baseline"), row("pruned", hmean_delta=-0.0134)])
    text = (tmp_path / "table.md").read_text()
    assert "| pruned | 0.580 M | 1.000 G | 2.400 | 85.70 | 74.77 | 79.86 | -1.34 | 4.2 (int8) |" in text
    for part in ("500 test pictures", "short_side 736", "bin_threshold 0.5", "seed 0", "1x3x320x320", "1 thread", "20 rounds"):
        assert part in text
    table = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [line["stage"] for line in table] == ["baseline", "pruned"]
    assert float(table[0]["hmean"]) == 0.7986
    assert float(table[0]["openvino int8 median ms"]) == 4.25


def test_several_experiments_are_told_apart():
    head, body = ledger.cells([row("a"), row("a", experiment="y")])
    assert head[0] == "experiment"
    assert [line[0] for line in body] == ["x", "y"]


def test_a_folder_without_a_ledger_is_refused(tmp_path):
    with pytest.raises(CompressError, match="not an experiment"):
        ledger.read(tmp_path)


def test_a_cut_off_ledger_is_refused(tmp_path):
    ledger.write(tmp_path, [row("baseline")])
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text()[:50])
    with pytest.raises(CompressError, match="damaged"):
        ledger.read(tmp_path)
