"""A report on the tiny recipe's run: detections by every artefact that it left."""

from __future__ import annotations

import re

from compress.ledger import read
from compress.report import compare as comparing
from compress.report.findings import distinct
from compress.report.page import write_report


def test_every_artefact_is_shown_and_a_second_report_runs_no_network(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    first, second = tmp_path / "first.html", tmp_path / "second.html"
    write_report([tiny_run], first, images=2)
    monkeypatch.setattr(comparing, "compared", None)
    write_report([tiny_run], second, images=2)
    assert first.read_bytes() == second.read_bytes()
    shown = re.findall(r"<figcaption><b>(.*?)</b>", first.read_text())
    assert shown == 2 * [row.stage for row in distinct(read(tiny_run))]
    for plot in ("plot-tiny_training_int8-control", "plot-tiny_channels_pruned"):
        assert f'id="{plot}-' in first.read_text()
