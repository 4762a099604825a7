from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from compress import ledger
from compress.errors import CompressError
from compress.ledger import Row
from compress.report import table as printing
from compress.tasks import TASKS
from compress.tasks.classification import CLASSIFICATION
from compress.tasks.task import Metric


def row(stage: str, **values) -> Row:
    facts = {
        "experiment": "x", "stage": stage, "kind": "train", "parent": None, "key": "k", "seed": 0, "params": 579550, "macs": 10**9,
        "bytes": 2400000, "task": "detection", "scores": {"precision": 0.857, "recall": 0.7477, "hmean": 0.7986}, "main": "hmean",
        "delta": 0.0, "split": "test", "images": 500, "settings": {"short_side": 736, "bin_threshold": 0.5}, "runtime": "torch fp32",
        "artefact": stage, "seconds": 3.5,
        "latency_ms": {"openvino int8": {"median": 4.25, "p90": 5.0, "threads": 1, "input": [1, 3, 320, 320], "rounds": 20}},
    }  # fmt: skip
    return Row(**{**facts, **values})


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [row("baseline"), row("pruned", scores={"precision": 1 / 3, "recall": 0.1, "hmean": 1 / 7}, latency_ms={})]
    ledger.write(tmp_path, rows)
    assert ledger.read(tmp_path) == rows


def test_the_tables_name_every_row_and_what_it_was_measured_by(tmp_path):
    ledger.write(tmp_path, [row("baseline"), row("pruned", delta=-0.0134)])
    text = (tmp_path / "table.md").read_text()
    assert "| pruned | 0.580 M | 1.000 G | 2.400 | 85.70 | 74.77 | 79.86 | -1.34 | 4.2 (int8) |" in text
    for part in ("Hmean on 500 test images", "short_side 736", "bin_threshold 0.5", "seed 0", "1x3x320x320", "1 thread", "20 rounds"):
        assert part in text
    table = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [line["stage"] for line in table] == ["baseline", "pruned"]
    assert [float(table[0][f"score {name}"]) for name in ("precision", "recall", "hmean")] == [0.857, 0.7477, 0.7986]
    assert json.loads(table[0]["settings"]) == {"short_side": 736, "bin_threshold": 0.5}
    assert float(table[1]["delta"]) == -0.0134
    assert float(table[0]["openvino int8 median ms"]) == 4.25


def test_a_gain_is_told_with_its_standard_error_where_both_rows_have_blocks_of_the_same_images(tmp_path):
    blocks = [0.79 + 0.001 * (place % 5) for place in range(20)]
    first = row("baseline", left_out=blocks)
    worse = row("pruned", left_out=[value - 0.02 + 0.0005 * (place % 3) for place, value in enumerate(blocks)])
    worse.scores["hmean"] = 0.78
    found = [
        ledger.against(first, one)
        for one in (
            first,
            worse,
            row("short"),
            row("other", left_out=blocks, images=150),
            row("else", left_out=worse.facts["left_out"], data="b"),
        )
    ]
    error = (0.95 * sum((0.0005 * (place % 3 - 0.95)) ** 2 for place in range(20))) ** 0.5
    assert found[1].facts["delta_error"] == pytest.approx(error)
    assert [ledger.delta_text(one) for one in found] == ["+0.00", f"-1.86 ± {100 * error:.2f}", "+0.00", "+0.00", "+0.00"]
    ledger.write(tmp_path, found)
    assert ledger.read(tmp_path) == found
    assert "| -1.86 ± 0.18 |" in (tmp_path / "table.md").read_text()
    assert "±: standard error of delta" in (tmp_path / "table.md").read_text()
    table = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [line["delta error"] for line in table] == ["0.0", str(found[1].facts["delta_error"]), "", "", ""]
    assert "±" not in ledger.caption([row("baseline")])


def test_several_experiments_are_told_apart():
    head, body = ledger.table([row("a"), row("a", experiment="y")])
    assert head[0] == "experiment"
    assert [line[0] for line in body] == ["x", "y"]


def test_rows_are_chosen_by_patterns_and_a_pattern_without_a_row_is_refused():
    rows = [row(name) for name in ("baseline", "baseline/last", "files/onnx", "files/openvino")]
    assert [one.stage for one in ledger.chosen(rows, ["files/*", "baseline"])] == ["baseline", "files/onnx", "files/openvino"]
    assert ledger.chosen(rows, ["*"]) == rows
    assert ledger.chosen([], ["*"]) == []
    with pytest.raises(CompressError, match="no such row; did you mean 'baseline'"):
        ledger.chosen(rows, ["*openvino", "basline"])


def test_a_folder_without_a_ledger_is_refused(tmp_path):
    with pytest.raises(CompressError, match="not an experiment"):
        ledger.read(tmp_path)


def test_a_cut_off_ledger_is_refused(tmp_path):
    ledger.write(tmp_path, [row("baseline")])
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text()[:50])
    with pytest.raises(CompressError, match="damaged"):
        ledger.read(tmp_path)


def file_row(stage: str, precision: str, median: float, integers: dict | None = None, **values) -> Row:
    timed = {"median": median, "p90": median, "threads": 1, "input": [1, 3, 320, 320], "rounds": 20}
    name = f"onnxruntime {precision}"
    extra = {"integers": integers} if integers else {}
    return row(stage, **{"kind": "export", "runtime": name, "latency_ms": {name: timed}, **extra, **values})


INTEGERS = {"runtime": "onnxruntime", "integer_convs": 25, "convs": 61, "weight_bytes": {"int8": 83248, "float32": 35384}}


def test_the_caption_says_what_runs_in_integers_and_what_that_costs():
    rows = [file_row("files/onnx", "fp32", 8.9), file_row("files_int8/onnx", "int8", 22.1, INTEGERS)]
    text = ledger.caption(rows)
    assert "files_int8/onnx: 25 of 61 convolutions run as integers in onnxruntime; weights: 83.2 kB int8, 35.4 kB float32" in text
    assert "files_int8/onnx is slower in int8 than files/onnx in fp32 in onnxruntime: 22.1 ms against 8.9 ms" in text
    assert ledger.markdown(rows).count("slower") == 1


def test_the_caption_says_what_score_control_kept():
    found = {"max_drop": 0.005, "float_score": 0.81, "score": 0.8073, "kept_float": ["a", "b"], "split": "val", "tried": []}
    text = ledger.caption([row("baseline"), row("int8", kind="quantize", score_control=found)])
    assert "int8: 2 layer(s) in float, for a loss of Hmean of at most 0.50 on validation: 80.73 of 81.00" in text
    assert text.count("in float") == 1


def test_int8_is_compared_with_the_float_file_of_its_own_model():
    """Which has as many multiply-accumulates."""
    rows = [
        file_row("files/onnx", "fp32", 30.0, macs=10**9),
        file_row("files_small/onnx", "fp32", 8.9, macs=10**8),
        file_row("files_int8/onnx", "int8", 22.1, INTEGERS, macs=10**9),
    ]
    assert "slower" not in ledger.caption(rows)
    rows[2] = file_row("files_int8/onnx", "int8", 32.1, INTEGERS, macs=10**9)
    assert "slower in int8 than files/onnx" in ledger.caption(rows)


@pytest.mark.parametrize(
    "sibling",
    [
        {"median": 30.0},
        {"macs": 1},
        {"experiment": "another"},
        {"latency_ms": {"onnxruntime fp32": {"median": 1.0, "p90": 1.0, "threads": 2, "input": [1, 3, 320, 320], "rounds": 20}}},
    ],
)
def test_int8_is_called_slower_only_beside_a_faster_file_measured_alike(sibling):
    before = file_row("files/onnx", "fp32", **{"median": 8.9, **sibling})
    assert "slower" not in ledger.caption([before, file_row("files_int8/onnx", "int8", 22.1, INTEGERS)])


def test_what_is_known_of_integers_stays_in_the_ledger(tmp_path):
    ledger.write(tmp_path, [file_row("files_int8/onnx", "int8", 22.1, INTEGERS)])
    assert ledger.read(tmp_path)[0].model_extra["integers"] == INTEGERS


def test_an_exported_float_file_goes_before_a_checkpoint_that_was_timed_faster():
    checkpoint = file_row("pruned", "fp32", 5.0, kind="prune")
    slow = file_row("files_int8/onnx", "int8", 22.1, INTEGERS)
    assert "slower in int8 than pruned in fp32" in ledger.caption([checkpoint, slow])
    assert "slower" not in ledger.caption([checkpoint, file_row("files/onnx", "fp32", 30.0), slow])


def test_what_a_spreadsheet_would_run_is_text_and_figures_stay_figures(tmp_path):
    for name in ("=1+1", "+a", "-a", "@a"):
        ledger.write(tmp_path, [row(name, delta=-0.5)])
        (line,) = csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))
        assert line["stage"] == f"'{name}"
        assert float(line["delta"]) == -0.5
    assert ledger.read(tmp_path)[0].stage == "@a", "the ledger itself has the name as it is"


def test_a_bar_in_a_name_does_not_make_a_column():
    line = ledger.markdown([row("a|b")]).splitlines()[2]
    assert line.startswith(r"| a\|b | 0.580 M |")


@pytest.fixture
def lines(monkeypatch):
    """`lines(stage, errors, rate)`: a row of a task with a count of errors, the less the better, and a rate."""
    metrics = (Metric("errors", "errors", percent=False, higher_is_better=False), Metric("rate", "rate %"))
    monkeypatch.setitem(TASKS, "lines", replace(CLASSIFICATION, name="lines", metrics=metrics, main="errors"))

    def made(stage: str, errors: float, rate: float, **values) -> Row:
        scores = {"errors": errors, "rate": rate, "rate Latin": 0.25}
        return row(stage, task="lines", scores=scores, main="errors", **values)

    return made


def test_each_task_has_columns_of_its_own_metrics(lines):
    rows = [row("detector"), lines("lines", 7.5, 0.5, delta=-1.25)]
    head, body = ledger.table(rows)
    assert head == ["stage", "params", "MACs", "MB", "P %", "R %", "Hmean %", "errors", "rate %", "delta", "openvino ms"]
    assert body[0][4:10] == ["85.70", "74.77", "79.86", "", "", "+0.00"]
    assert body[1][4:10] == ["", "", "", "7.50", "50.00", "-1.25"]
    caption = ledger.caption(rows)
    assert "Hmean on 500 test images" in caption
    assert "errors on 500 test images" in caption
    assert "delta: how much less errors is than in the first row" in caption
    assert "how much less" not in ledger.caption(rows[:1])


def test_what_no_row_has_is_no_column_for_people_and_stays_one_for_programs():
    pipelines = [row(name, params=None, macs=None) for name in ("float", "int8")]
    assert ledger.table(pipelines)[0] == ["stage", "MB", "P %", "R %", "Hmean %", "delta", "openvino ms"]
    assert ledger.table([*pipelines, row("detector")])[0][1:3] == ["params", "MACs"]
    assert {"params", "macs"} <= set(ledger.comma_separated(pipelines).splitlines()[0].split(","))


def test_the_csv_has_every_score_and_nothing_where_a_row_has_none(lines):
    head, first, second = csv.reader(io.StringIO(ledger.comma_separated([row("detector"), lines("lines", 7.5, 1 / 3)])))
    found = dict(zip(head, second, strict=True))
    assert [name for name in head if name.startswith("score ")] == [
        f"score {name}" for name in ("precision", "recall", "hmean", "errors", "rate", "rate Latin")
    ]
    assert (found["score hmean"], float(found["score rate"]), found["score rate Latin"], found["task"]) == ("", 1 / 3, "0.25", "lines")
    assert dict(zip(head, first, strict=True))["score rate"] == ""


@pytest.mark.parametrize(
    ("values", "told"), [({"task": "detecton"}, "did you mean 'detection'"), ({"main": "recall"}, "no hmean, the main")]
)
def test_a_row_of_an_unknown_task_or_another_main_metric_is_refused(values, told, tmp_path):
    (tmp_path / "ledger.jsonl").write_text(row("a", **values).model_dump_json() + "\n")
    with pytest.raises(CompressError, match=told):
        ledger.read(tmp_path)


def test_runs_of_one_recipe_are_told_apart_by_their_folders_and_not_compared_with_each_other(tmp_path):
    timed = {"threads": 1, "input": [1, 3, 64, 64], "rounds": 9, "p90": 20.0}

    def of(float_ms: float, int8_ms: float) -> list[Row]:
        files = {"fp32": ("files", float_ms), "int8": ("files_int8", int8_ms)}
        return [row(name, kind="export", latency_ms={f"openvino {kind}": {**timed, "median": ms}}) for kind, (name, ms) in files.items()]

    busy, quiet = of(13.3, 12.3), of(8.9, 8.2)
    rows = ledger.together([quiet, busy], [tmp_path / "a" / "seed0", tmp_path / "seed1"])
    assert [one.experiment for one in rows] == ["seed0", "seed0", "seed1", "seed1"]
    assert ledger.slower(rows) == []
    assert ledger.slower([*quiet, *busy]), "which is what names are for"
    assert [one.experiment for one in ledger.together([quiet], [tmp_path / "seed0"])] == ["x", "x"]


def test_no_figure_is_cut_off_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setattr(printing, "output", lambda least=0: Console(width=max(40, least)))
    printing.print_table([row("files_int8/onnx"), row("files_int8/openvino", delta=-0.0134)])
    printed = capsys.readouterr().out
    for text in ("files_int8/onnx ", "files_int8/openvino ", "0.580 M", "85.70", "74.77", "79.86", "-1.34", "4.2 (int8)"):
        assert text in printed
    assert "…" not in printed
