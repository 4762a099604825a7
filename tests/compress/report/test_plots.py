from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from compress.errors import CompressError
from compress.report import pareto, plots
from compress.report.pareto import Point
from compress.tasks import TASKS

pytestmark = pytest.mark.slow

DETECTION = TASKS["detection"]
CHANNELS = {f"backbone.blocks.{index}.squeeze.gate.1.0": (96, 32) for index in range(60)}


def texts(figure) -> set[str]:
    return {text.strip().replace("\N{NO-BREAK SPACE}", " ") for text in re.findall(r"<text[^>]*>([^<]*)</text>", plots.svg(figure))}


def test_labels_of_sixty_layers_do_not_touch(sensitivity, scores):
    quantized = {**sensitivity(1), "points": [{"layer": name, "loss": 1.1, "scores": scores(0.8)} for name in CHANNELS]}
    for figure in (
        plots.channel_bars("pruned", CHANNELS),
        plots.quantization_bars(quantized),
        plots.sensitivity_heatmap(sensitivity(60)),
    ):
        axis = figure.axes[0].yaxis
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        assert len(boxes) == 60
        ends = sorted((box.y0, box.y1) for box in boxes)
        assert all(below[1] <= above[0] for below, above in itertools.pairwise(ends))
        assert min(box.x0 for box in boxes) >= 0, "no name is cut off"


def test_bars_say_both_numbers_and_axes_their_unit():
    found = texts(plots.channel_bars("pruned", {"a": (96, 32), "b": (8, 8)}))
    assert {"32 of 96", "8, untouched", "output channels", "pruned: 40 of 104 channels"} <= found


def test_heatmap_cells_are_points_of_the_main_metric_and_loss_where_there_are_no_scores_yet(sensitivity):
    assert {"4.5", "81", "backbone.blocks.1.expand.0", "channels of the group removed (%)"} <= texts(
        plots.sensitivity_heatmap(sensitivity(2))
    )
    found = texts(plots.sensitivity_heatmap(sensitivity(2, scored=False)))
    assert {"0.001", "0.018", "loss gained, one group pruned at a time"} <= found


def test_curves_have_a_panel_a_group_that_starts_at_the_unpruned_network(sensitivity):
    figure = plots.sensitivity_curves(sensitivity(40))
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert len(panels) == 40
    for index, ax in enumerate(panels):
        ratios, lost = ax.lines[0].get_data()
        assert list(ratios) == [0.0, 0.1, 0.5, 0.9]
        assert lost == pytest.approx([90 * ratio * (index + 1) / 40 for ratio in ratios])


def test_one_outlier_does_not_set_the_axis_and_is_marked_with_its_figure(sensitivity, scores):
    data = sensitivity(10)
    for place, point in enumerate(data["points"]):
        point["scores"] = scores(0.9 - 0.0001 * (place + 1))
    data["points"][-1]["scores"] = scores(0.0)
    figure = plots.sensitivity_curves(data)
    panels = [ax for ax in figure.axes if ax.get_visible()]
    low, high = panels[0].get_ylim()
    assert (low, high) == pytest.approx((-0.05 * 0.29, 0.29))
    marks = [[line.get_data() for line in ax.lines if line.get_marker() == "^"] for ax in panels]
    assert marks[:-1] == [[]] * 9
    ((ratio, place),) = marks[-1]
    assert (ratio[0], place[0]) == (0.9, pytest.approx(high))
    assert {"90", "Hmean lost (points); triangles: above 0.29, the figure beside"} <= texts(figure)


def test_without_an_outlier_nothing_is_clipped(sensitivity):
    figure = plots.sensitivity_curves(sensitivity(3))
    assert "Hmean lost (points)" in texts(figure)
    assert figure.axes[0].get_ylim()[1] >= 81


def test_quantized_layers_are_ordered_by_what_they_cost(sensitivity, scores):
    points = [{"layer": name, "loss": 0.0, "scores": scores(hmean)} for name, hmean in (("good", 0.91), ("bad", 0.5), ("fair", 0.88))]
    ax = plots.quantization_bars({**sensitivity(1), "points": points}).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bad", "fair", "good"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([40, 2, -1])


@pytest.mark.parametrize("draw", [plots.sensitivity_heatmap, plots.sensitivity_curves, plots.quantization_bars])
def test_a_sensitivity_without_points_is_refused(draw, sensitivity):
    with pytest.raises(CompressError, match="no points yet"):
        draw({**sensitivity(2), "points": []})


def test_training_marks_the_best_and_the_last_evaluated_epoch():
    entries = [{"epoch": epoch, "lr": 0.1, "loss": 1.0, "dice": 0.5} for epoch in range(1, 5)]
    for epoch, hmean in ((2, 0.9), (3, 0.7)):
        entries[epoch - 1] |= {"val_hmean": hmean, "val_precision": hmean, "val_recall": hmean}
    found = texts(plots.training_curves("baseline", entries, DETECTION))
    assert {"best: epoch 2, 90.00 %", "last: epoch 3, 70.00 %", "dice", "loss", "Hmean", "P", "R", "Hmean % on validation"} <= found
    assert {"dice", "epoch"} <= texts(plots.training_curves("x", entries[:1], DETECTION)), "one epoch, none evaluated"


def test_training_of_another_task_has_its_metrics_and_its_direction(counting):
    entries = [
        {"epoch": epoch, "lr": 0.1, "loss": 1.0, "val_error": error, "val_found": 0.5} for epoch, error in ((1, 4.0), (2, 3.0), (3, 5.0))
    ]
    figure = plots.training_curves("baseline", entries, counting)
    found = texts(figure)
    assert {"best: epoch 2, 3.00", "last: epoch 3, 5.00", "error px on validation"} <= found
    assert "found" not in found, "a share does not fit the axis of pixels"
    assert figure.axes[1].get_ylim()[1] > 5


def test_the_front_is_named_and_a_network_that_finds_nothing_is_not_drawn():
    points = [
        Point("small", 0.1, 0.8, "a", "a"),
        Point("large", 2.0, 0.9, "a", "a"),
        Point("worse", 3.0, 0.7, "b", "b"),
        Point("raw", 0.1, 0.0, "a", "a"),
    ]
    figure = pareto.pareto(points, "size (MB)", DETECTION.metric)
    bold = {text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"}
    assert bold == {"small", "large"}
    assert "raw" not in texts(figure)
    assert {"size (MB), logarithmic", "Hmean %"} <= texts(figure)


def test_an_artefact_is_named_whose_own_markers_lie_upon_each_other():
    points = [Point("small", cost, 0.944, name, name) for cost, name in ((5.86, "a"), (5.80, "b"), (24.0, "c"))]
    points += [Point("worse", cost, 0.927, name, name) for cost, name in ((6.25, "a"), (6.4, "b"), (19.0, "c"))]
    points += [Point("large", 88.0, 0.95, "c", "c"), Point("pruned", 7.8, 0.67, "a", "a")]
    assert {"small", "worse", "large", "pruned"} <= texts(pareto.pareto(points, "latency (ms)", DETECTION.metric))


def test_the_legend_has_what_is_drawn_alone():
    fast, slow = Point("fast", 0.1, 0.8, "a", "a"), Point("slow", 2.0, 0.9, "b", "b")
    figure = pareto.pareto([slow], "ms", DETECTION.metric, [fast, slow])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b"]
    alone, both = (pareto.pareto(points, "ms", DETECTION.metric, [fast, slow]) for points in ([slow], [fast, slow]))
    assert alone.legends[0].legend_handles[0].get_marker() == both.legends[0].legend_handles[1].get_marker()


@pytest.mark.parametrize("seed", range(4))
def test_no_name_could_be_taken_for_that_of_another_marker(seed):
    """A name stands nearest to its own marker or has a line to it; none covers another or a marker."""
    chance = random.Random(seed)
    points = [Point(f"files_{i}/onnx", chance.uniform(1, 3), chance.uniform(0.8, 0.9), "a", "a") for i in range(12)]
    points += [Point("int8", cost, 0.85, name, name) for cost, name in ((2.0, "a"), (2.02, "b"), (2.5, "c"))]
    figure = pareto.pareto(points, "latency (ms)", DETECTION.metric)
    ax, renderer = figure.axes[0], FigureCanvasAgg(figure).get_renderer()
    markers = [tuple(ax.transData.transform((point.cost, point.score))) for point in points]
    boxes = {}
    for text in ax.texts:
        text.update_positions(renderer)
        extent = Text.get_window_extent(text, renderer)
        boxes[text.get_text()] = box = (extent.x0, extent.y0, extent.x1, extent.y1)
        mine = [place for place, point in enumerate(points) if point.label == text.get_text()]
        assert text.arrow_patch is not None or pareto.nearest(box, markers) in mine
        assert not any(pareto.overlap(box, pareto.around(marker, 3)) for marker in markers)
    assert len(boxes) == len(ax.texts) > 8, "each artefact has one name at most, and most have one"
    assert not any(pareto.overlap(one, other) for one, other in itertools.combinations(boxes.values(), 2))


def test_figures_of_many_or_negative_bars_and_their_axis_do_not_touch(sensitivity, scores):
    points = [{"layer": f"l{i}", "loss": 1.0, "scores": scores(0.9 + 0.0001 * (i - 9))} for i in range(12)]
    figure = plots.quantization_bars({**sensitivity(1), "points": points})
    ax, renderer = figure.axes[0], FigureCanvasAgg(figure).get_renderer()
    ticks = sorted((box.x0, box.x1) for box in (label.get_window_extent(renderer) for label in ax.get_xticklabels() if label.get_text()))
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ticks))
    window = ax.get_window_extent(renderer)
    assert all(window.x0 < text.get_window_extent(renderer).x0 for text in ax.texts)
    assert all(text.get_window_extent(renderer).x1 <= figure.bbox.x1 for text in ax.texts)


def test_the_front_follows_the_direction_of_the_metric(counting):
    points = [Point("small", 0.1, 4.0, "a", "a"), Point("large", 2.0, 1.0, "a", "a"), Point("worse", 3.0, 2.0, "a", "a")]
    figure = pareto.pareto(points, "size (MB)", counting.metric)
    bold = {text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"}
    assert bold == {"small", "large"}
    assert {"error px", "worse"} <= texts(figure)


def test_text_is_never_read_as_a_formula():
    assert {"a$b$c_{", "x$\\frac$"} <= texts(plots.channel_bars("x", {"a$b$c_{": (2, 1), "x$\\frac$": (3, 1)}))


def test_equal_figures_give_equal_files_without_a_date(tmp_path):
    for name in ("one", "two"):
        files = plots.save(plots.channel_bars("pruned", {"a": (96, 32)}), tmp_path / name / "bars.v1")
        assert [file.name for file in files] == ["bars.v1.png", "bars.v1.svg"]
    for kind in ("png", "svg"):
        first, second = ((tmp_path / name / f"bars.v1.{kind}").read_bytes() for name in ("one", "two"))
        assert first == second
        assert b"dc:date" not in first


def test_drawing_leaves_the_callers_settings_and_pyplot_alone():
    code = (
        "import sys, matplotlib as m; from compress.report import plots; before = {name: m.rcParams[name] for name in plots.STYLE};"
        "plots.svg(plots.channel_bars('x', {'a': (2, 1)})); after = {name: m.rcParams[name] for name in plots.STYLE};"
        "assert after == before != plots.STYLE; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_colours_stand_out_on_white_and_on_black_pages():
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in plots.COLOURS:
        for page in ("#ffffff", "#15181d"):
            low, high = sorted((luminance(colour), luminance(page)))
            assert (high + 0.05) / (low + 0.05) > 3
