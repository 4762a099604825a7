from __future__ import annotations

import json
import re
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from compress.errors import CompressError
from compress.report import gallery
from compress.report.collect import collect
from compress.report.page import write_report

pytestmark = pytest.mark.slow

VOID = {"meta", "br", "wbr", "image", "use", "polygon", "line"}


class Outline(HTMLParser):
    """Tags that are left open, ids, images' texts, and everything that would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.fetched += [values[key] for key in ("src", "href", "xlink:href", "data", "action") if key in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(written, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("report") / "out" / "r.html"
    write_report([written()], out, images=0)
    return out.read_text()


def plain(html: str) -> str:
    """What is read, with simple spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html)).replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def test_the_headline_says_what_went_in_what_came_out_and_where_int8_does_not_pay(page):
    text = plain(page)
    for part in (
        "baseline went in: 2.40 MB, 0.58 M parameters, 1.000 G multiply-accumulates, Hmean 85.00 % on 500 test images.",
        "the smallest is files_int8/openvino with 0.120 MB",
        "the fastest files/onnx with 9.0 ms in onnxruntime fp32",
        "Recommended: files_int8/openvino (files_int8/openvino/model.xml)",
        "20.0 times smaller, 4.5 times the speed of baseline in openvino int8; it keeps 94.1 % of the Hmean.",
        "In onnxruntime the int8 files_int8/onnx is slower than the fp32 files/onnx: 22.0 ms against 9.0 ms. There, take the float one",
    ):
        assert part in text


def test_what_the_recommended_file_loses_has_its_standard_error(written, rows, tmp_path):
    known = [row.model_copy(update={"delta_error": 0.0062}) if row.stage == "files_int8/openvino" else row for row in rows]
    write_report([written(rows=known)], tmp_path / "r.html", images=0)
    assert "was 85.00 %, -5.00 points ± 0.62" in plain((tmp_path / "r.html").read_text())


def test_the_table_has_scopes_units_and_changes_in_points_and_per_cent(page):
    body = page[page.index("<tbody>") :]
    row = plain(
        re.search(r'<tr class="?pick.*?</tr>', body, re.DOTALL)[0].replace("</td>", " ").replace("<small>", " ").replace("</th>", " ")
    )
    assert row.split() == [
        "files_int8/openvino", "80.00", "-5.00", "pt", "-5.9", "%", "11.0", "openvino", "int8", "-72.5", "%", "0.120", "-95.0", "%",
        "0.095", "M", "-83.6", "%", "0.200", "G", "-80.0", "%", "90.00", "+0.00", "pt", "+0.0", "%", "80.00", "+0.00", "pt", "+0.0", "%",
        "&ndash;", "11.0", "int8", "-78.0", "%",
    ]  # fmt: skip
    assert page.count('<th scope="row">baseline<') == 1, "a last epoch that was the best has no line of its own"
    assert "the same: baseline/last" in page
    heads = re.findall(r'<th scope="col">(.*?)</th>', page)
    assert heads == ["stage", "Hmean %", "fastest ms", "MB", "params", "MACs", "P %", "R %", "onnxruntime ms", "openvino ms"]


def test_the_page_is_whole_well_formed_and_fetches_nothing(page):
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(target.startswith(("#", "data:")) for target in outline.fetched)
    assert {target[1:] for target in outline.fetched if target.startswith("#")} <= set(outline.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(outline.ids)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "script" not in {tag for tag, _ in outline.tags}
    drawings = [values for tag, values in outline.tags if tag == "svg"]
    assert len(drawings) == 7, "two fronts, a training, three sensitivities, channels"
    assert all(values["aria-label"] and values["role"] == "img" for values in drawings)
    assert [tag for tag, _ in outline.tags if tag in ("h1", "h2")] == ["h1", *["h2"] * 7]


def test_figures_take_the_colours_of_the_page(page):
    assert "currentColor" in page
    assert "#1d2127" not in page.split("</style>", 1)[1]
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_text_from_files_is_escaped(written, row, tmp_path):
    evil = '<img src=x onerror="alert(1)">&$x$'
    timed = {"median": 1.0, "p90": 1.0, "threads": 1, "input": [1, 3, 32, 32], "rounds": 1}
    rows = [row(evil, artefact=evil, cpu=evil), row("b", kind=evil, parent=evil, split=evil, latency_ms={f"{evil} fp32": timed})]
    write_report([written("x", rows)], tmp_path / "r.html", images=0)
    outline = Outline((tmp_path / "r.html").read_text())
    assert not {"img", "script"} & {tag for tag, _ in outline.tags}
    assert not any(key.startswith("on") for _, values in outline.tags for key in values)


def test_provenance_is_enough_to_make_the_figures_again(page):
    text = plain(page)
    for part in (
        "Seed3",
        "Some CPU",
        "torch 9.9",
        "val fingerprint-of-val",
        "cpu, 2 threads",
        f"key {sha256(b'files').hexdigest()[:16]}",
        "seed: 3",
        "short_side 64",
    ):
        assert part in text
    tree = page[page.index('<ul class="tree"' if '<ul class="tree"' in page else "<ul class=tree") :]
    assert re.search(r"<b>baseline</b>.*?<ul><li><b>pruned</b>.*?<ul><li><b>files</b>", tree, re.DOTALL)


def test_several_experiments_share_one_front_and_have_names_of_their_own(written, rows, row, tmp_path):
    best = row("baseline", bytes=1000, hmean=0.99)
    folders = [written("a/run", rows), written("b/run", [best])]
    files = write_report(folders, tmp_path / "r.html", images=0, plot_folder=tmp_path / "plots")
    text = (tmp_path / "r.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert [experiment.name for experiment in collect(folders)] == ["a/run", "b/run"]
    assert "On the Pareto front, from the least cost on: b/run: baseline (torch fp32) 0.001, Hmean 99.00 %." in text
    names = {file.name for file in files[1:]}
    assert {"detection_hmean_size.svg", "detection_hmean_latency.png", "a-run_channels_pruned.svg", "b-run_training_baseline.png"} <= names
    assert all(file.stat().st_size for file in files)
    assert len(names) == 2 * (2 + 5 + 4), "the second has no row of a pruned stage"


def test_another_task_is_reported_in_its_own_metrics(written, counted, tmp_path):
    """Pixels of error, the less the better: nothing of it is a percentage or a point."""
    latency = {"onnxruntime fp32": {"median": 9.0, "p90": 9.0, "threads": 1, "input": [1, 3, 48, 192], "rounds": 3}}
    rows = [
        counted("baseline", 2.0, latency_ms=latency),
        counted("files/onnx", 2.5, kind="export", bytes=400_000, latency_ms=latency),
        counted("files_int8/onnx", 3.0, kind="export", bytes=100_000, latency_ms=latency),
    ]
    folder = written("x", rows)
    for path in folder.rglob("sensitivity*.json"):
        path.unlink()
    entry = {"epoch": 1, "lr": 0.1, "loss": 3.0, "val_error": 2.25, "val_found": 0.5}
    (folder / "baseline" / "metrics.jsonl").write_text(json.dumps(entry))
    (out, *files) = write_report([folder], tmp_path / "r.html", images=0, plot_folder=tmp_path / "plots")
    text = plain(out.read_text())
    assert "error px 2.00 on 500 test images" in text
    assert "the best files/onnx with error px 2.50" in text
    assert "the fastest of those within 1 % of the best error px" in text
    assert "it has error px 2.50" in text
    assert "found %" in re.findall(r'<th scope="col">(.*?)</th>', out.read_text())
    assert "error px on validation: best 2.25 in epoch 1" in out.read_text()
    assert {"counting_error_size.png", "counting_error_latency.png"} <= {file.name for file in files}
    assert "Hmean" not in out.read_text()


def test_experiments_of_two_tasks_have_fronts_of_their_own(written, counted, row, tmp_path):
    folders = [written("a", [row("baseline")]), written("b", [counted("baseline", 2.0)])]
    for path in (path for folder in folders for path in (*folder.rglob("sensitivity*.json"), *folder.rglob("metrics.jsonl"))):
        path.unlink()
    files = write_report(folders, tmp_path / "r.html", images=0, plot_folder=tmp_path / "plots")
    assert {file.stem for file in files[1:]} == {"detection_hmean_size", "counting_error_size"}
    text = plain((tmp_path / "r.html").read_text())
    for told in ("Hmean 85.00 %Hmean on", "error px 2.00error px on"):
        assert re.search(rf"baseline{told} 500 test images, short_side 64not timed2.40 MB", text), told


def test_only_what_was_measured_alike_shares_a_plot(written, row):
    def timed(**other):
        return {"openvino fp32": {"median": 5.0, "p90": 6.0, "threads": 1, "input": [1, 3, 64, 64], "rounds": 5} | other}

    facts = {
        "a": {"latency_ms": timed()},
        "alike": {"latency_ms": timed(rounds=9)},
        "other_size": {"settings": {"short_side": 96}, "latency_ms": timed()},
        "other_threshold": {"settings": {"short_side": 64, "threshold": 0.5}, "latency_ms": timed()},
        "other_images": {"images": 400, "latency_ms": timed()},
        "other_split": {"split": "val", "latency_ms": timed()},
        "other_input": {"latency_ms": timed(input=[1, 3, 96, 96])},
        "other_threads": {"latency_ms": timed(threads=2)},
        "other_machine": {"latency_ms": timed(), "cpu": "Another CPU"},
        "other_data": {"latency_ms": timed()},
        "other_pixels": {"latency_ms": timed(), "data": 64 * "f"},
    }
    folders = [written(name, [row("one", 0.8, **its), row("two", 0.9, **its)]) for name, its in facts.items()]
    for folder in folders:
        text = "data: {format: synthetic, size: 64, train: 9}" if folder.name != "other_data" else "data: {format: icdar2015, root: x}"
        (folder / "recipe.yml").write_text(text)
    fronts = {plot.name: plot for plot in gallery.front_plots(collect(folders))}
    for cost, together in (("size", ["a", "alike", "other_input", "other_threads", "other_machine"]), ("latency", ["a", "alike"])):
        plots = {name: plot for name, plot in fronts.items() if f"_{cost}" in name}
        first = next(iter(plots.values()))
        assert {tip.partition(":")[0] for tip in first.tips} == set(together)
        assert len(plots) == len(facts) - len(together) + 1
        assert sum(len(plot.tips) for plot in plots.values()) == 2 * len(facts)
        assert first.caption.split(". ")[2] == f"{', '.join(together)}"
        assert "Hmean on 500 test images, short_side 64; format synthetic, size 64" in first.caption
    assert "1x3x64x64 input, 1 thread, Some CPU" in first.caption


@pytest.mark.parametrize("names", [("счета", "фото"), ("run 1", "run-1")])
def test_experiments_whose_names_are_no_file_names_have_ids_and_files_of_their_own(written, tmp_path, names):
    folders = [written(name) for name in names]
    write_report(folders, tmp_path / "r.html", images=0, plot_folder=tmp_path / "plots")
    ids = Outline((tmp_path / "r.html").read_text()).ids
    assert len(ids) == len(set(ids))
    assert len(list((tmp_path / "plots").glob("*_training_baseline.png"))) == 2


def test_a_file_of_somebody_among_the_plots_is_refused_before_the_page_is_written(written, tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "x_training_baseline.png").write_text("mine")
    with pytest.raises(CompressError, match="compress has not made it"):
        write_report([written()], tmp_path / "r.html", images=0, plot_folder=tmp_path / "plots")
    assert not (tmp_path / "r.html").exists()


def test_what_compares_with_nothing_is_named_beside_the_others(written, row):
    rows = [row("one", 0.8), row("two", 0.9), row("teacher", kind="teacher", hmean=0.95, settings={"short_side": 128})]
    (plot,) = gallery.front_plots(collect([written("x", rows)]))
    assert [tip.split()[0] for tip in plot.tips] == ["one", "two"]
    assert "Measured on something else, and alone: x: teacher." in plot.caption


GATED = """
stages:
  - train: {name: baseline, expect: {max_drop: null, min_score: 0.8, max_latency_ms: 45, max_bytes: null}}
  - export: {name: files_int8, expect: {max_drop: 0.047}}
"""


def test_gates_are_rows_and_what_fails_one_is_not_recommended(written, tmp_path):
    folder = written()
    (folder / "recipe.yml").write_text(GATED)
    write_report([folder], tmp_path / "r.html", images=0)
    text = (tmp_path / "r.html").read_text()
    table = text[text.index('aria-label="Gates of x"') :]
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line) for line in re.findall(r"<tr.*?</tr>", table[: table.index("</table>")])]
    assert [[plain(cell) for cell in line] for line in cells[1:]] == [
        ["baseline", "Hmean at least", "80.00 %", "85.00 %", "met"],
        ["baseline", "latency at most", "45.0 ms", "50.0 ms", "not met"],
        ["files_int8/onnx", "loss of Hmean at most", "4.70 points", "4.50 points", "met"],
        ["files_int8/openvino", "loss of Hmean at most", "4.70 points", "5.00 points", "not met"],
    ]
    assert "Recommended: <b>files_int8/onnx</b>" in text, "the faster file of OpenVINO fails"
    assert text.count("fails a gate</small>") == 2


def test_nothing_is_recommended_where_all_files_fail(written, tmp_path):
    folder = written()
    stages = "".join(f"  - export: {{name: {name}, expect: {{min_score: 0.99}}}}\n" for name in ("files", "files_int8"))
    (folder / "recipe.yml").write_text(f"stages:\n{stages}")
    write_report([folder, written("y")], tmp_path / "r.html", images=0)
    text = (tmp_path / "r.html").read_text()
    assert "Nothing is recommended: none of the exported files is what the recipe expects" in text
    assert "<td>nothing: all files fail a gate</td>" in text
    assert text.count('class="pick"') + text.count("class=pick>") == 1, "of the other experiment"


def test_a_mouse_is_told_what_a_marker_is(page):
    latency = page[page.index('id="plot-detection_hmean_latency-tip-0"') :]
    assert plain(latency[: latency.index("</title>")].partition("<title>")[2]) == "baseline (onnxruntime fp32) 40, Hmean 85.00 %"


def test_a_bare_ledger_is_reported(tmp_path, row):
    (tmp_path / "ledger.jsonl").write_text(row("only").model_dump_json() + "\n")
    write_report([tmp_path], tmp_path / "r.html")
    text = plain((tmp_path / "r.html").read_text())
    assert "Recommended: only itself; of what meets the recipe's limits, nothing smaller comes within 1 point of its Hmean" in text
    assert "There are no answers here" in text
    assert "no recipe.yml" in text


def test_a_sensitivity_that_was_cut_off_is_left_out_and_a_fast_one_says_what_it_saw(written, sensitivity, tmp_path):
    folder = written()
    fast = {**sensitivity(2, scored=False), "images": 0, "loss_images": 7}
    (folder / "sensitivity.json").write_text(json.dumps(fast))
    (folder / "pruned" / "sensitivity_quantize.json").write_text(json.dumps({**fast, "kind": "quantize", "baseline": None, "points": []}))
    write_report([folder], tmp_path / "r.html", images=0)
    text = (tmp_path / "r.html").read_text()
    assert "baseline on 7 val images" in text
    assert "Sensitivity, loss gained. The worst: backbone.blocks.1.expand.0 with 90 % removed: 0.018" in text
    assert "sensitivity_quantize" not in text


@pytest.mark.parametrize("weights", [64 * "c", None])
def test_what_is_of_other_weights_is_named_and_not_shown(written, sensitivity, weights, tmp_path):
    folder = written()
    found = {name: value for name, value in sensitivity(5).items() if name != "weights"}
    (folder / "sensitivity.json").write_text(json.dumps(found | ({"weights": weights} if weights else {})))
    manifest = json.loads((folder / "pruned" / "manifest.json").read_text())
    (folder / "pruned" / "manifest.json").write_text(json.dumps({**manifest, "key": 64 * "0"}))
    write_report([folder], tmp_path / "r.html", images=0, plot_folder=tmp_path)
    text = (tmp_path / "r.html").read_text()
    assert "therefore not shown: pruned, sensitivity.json." in text
    assert {path.stem for path in tmp_path.glob("x_*")} == {
        "x_training_baseline",
        "x_pruned-sensitivity_quantize",
    }  # the latter of the baseline


def test_plots_of_one_network_carry_the_digest_of_its_weights(written, tmp_path):
    from PIL import Image

    write_report([written()], tmp_path / "r.html", images=0, plot_folder=tmp_path)
    said = {path.stem: Image.open(path).text.get("Description") for path in tmp_path.glob("*.png")}
    of_baseline = dict.fromkeys(("x_training_baseline", "x_sensitivity_heatmap", "x_sensitivity_curves"), f"weights {64 * 'a'}")
    assert {name: text for name, text in said.items() if text} == {
        **of_baseline,
        "x_channels_pruned": f"weights {64 * 'b'}",
        "x_pruned-sensitivity_quantize": f"weights {64 * 'a'}",
    }
    assert all(f"weights {64 * 'a'}" in (tmp_path / f"{name}.svg").read_text() for name in of_baseline)


def test_no_experiment_an_empty_one_and_one_named_twice_are_refused(tmp_path, written):
    with pytest.raises(CompressError, match="is not an experiment"):
        write_report([tmp_path], tmp_path / "r.html")
    with pytest.raises(CompressError, match="no rows yet"):
        write_report([written("empty", [])], tmp_path / "r.html")
    odd = written("odd")
    with pytest.raises(CompressError, match="named twice"):
        write_report([odd, odd], tmp_path / "r.html")
    (odd / "sensitivity.json").write_text("[]")
    with pytest.raises(CompressError, match=r"sensitivity\.json is damaged"):
        write_report([odd], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_the_command_writes_the_page_and_says_where_without_torch(written, tmp_path):
    code = "import sys; from compress.cli import app; app(sys.argv[1:], standalone_mode=False); assert 'torch' not in sys.modules"
    words = ["report", str(written()), "-o", str(tmp_path / "r.html"), "--images", "0"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(tmp_path / "r.html")]
