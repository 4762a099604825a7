from __future__ import annotations

import itertools
import random

import pytest

from compress.ledger import slower
from compress.report.findings import best_epoch, damage, distinct, front, recommended, scatter, shippable
from compress.tasks import TASKS


def test_of_the_files_near_the_best_the_fastest_is_recommended(rows, row):
    assert recommended(rows).stage == "files_int8/openvino"
    assert recommended([*rows, row("more", kind="export", hmean=0.83)]).stage == "more", "the others are now 2.5 points behind"
    assert recommended(rows[:4]).stage == "baseline", "without files, a checkpoint"


def test_a_teacher_and_a_file_that_finds_nothing_are_not_shipped(rows, row):
    teacher, broken = row("teacher", kind="teacher", hmean=0.99), row("broken", kind="export", hmean=0.1)
    assert {found.stage for found in shippable([*rows, teacher, broken])} == {"files/onnx", "files_int8/onnx", "files_int8/openvino"}
    assert "teacher" not in {found.stage for found in shippable([*rows[:4], teacher])}


def test_int8_is_called_slower_where_it_is_and_only_there(rows, row):
    (case,) = slower(rows)
    assert (case.int8.stage, case.floating.stage, case.runtime, case.precision) == ("files_int8/onnx", "files/onnx", "onnxruntime", "fp32")
    assert (case.int8_ms, case.float_ms) == (22.0, 9.0), "the exported float file, not the checkpoint's 12 ms"
    slow = {"openvino fp32": {"median": 10.0, "p90": 10.0, "threads": 1, "input": [1, 3, 64, 64], "rounds": 3}}
    assert len(slower([*rows, row("files/openvino", kind="export", macs=rows[-1].macs, latency_ms=slow)])) == 2
    assert len(slower([*rows, row("files/openvino", kind="export", macs=rows[0].macs, latency_ms=slow)])) == 1, "another network"


def test_imitated_int8_is_no_timing(rows, row):
    latency = {"onnxruntime fake-quantized int8": {"median": 99.0, "p90": 99.0, "threads": 1, "input": [1], "rounds": 3}}
    assert len(slower([*rows, row("int8", macs=rows[-1].macs, latency_ms=latency)])) == 1


def test_scatter_is_of_one_network_timed_twice(rows):
    assert scatter(rows) == ("onnxruntime fp32", 9.0, 12.0)
    assert scatter(rows[:2]) is None, "a copied figure is no second timing"


def test_one_artefact_under_two_names_is_one(rows):
    assert [row.stage for row in distinct(rows)] == [row.stage for row in rows if row.stage != "baseline/last"]


def test_the_front_is_what_no_other_point_beats():
    chance = random.Random(0)
    for size in range(1, 30):
        points = [(chance.randrange(6), chance.randrange(6)) for _ in range(size)]
        beaten = {
            a
            for a, b in itertools.permutations(range(size), 2)
            if points[b] != points[a] and points[b][0] <= points[a][0] and points[b][1] >= points[a][1]
        }
        found = front(points)
        assert {points[index] for index in found} == {points[index] for index in range(size) if index not in beaten}
        assert [points[index][0] for index in found] == sorted({points[index][0] for index in found})


def test_where_less_is_better_the_least_is_the_best(counted):
    """Of what is no share, near is within one per cent of the best, and nothing is hopeless."""
    files = [counted(f"f{place}", error, kind="export", bytes=size) for place, (error, size) in enumerate([(2.0, 9), (1.0, 9), (1.009, 5)])]
    assert recommended(files).stage == "f2"
    assert [row.stage for row in shippable([*files, counted("far", 50.0, kind="export")])] == ["f0", "f1", "f2", "far"]
    assert recommended([*files[:2], counted("f2", 1.02, kind="export", bytes=5)]).stage == "f1"


def test_the_best_epoch_goes_by_the_direction_of_the_main_metric(counting):
    entries = [{"epoch": 1}, {"epoch": 2, "val_error": 3.0}, {"epoch": 3, "val_error": 1.0}, {"epoch": 4, "val_error": 1.0}]
    assert best_epoch(entries, counting)["epoch"] == 3
    assert best_epoch(entries[:1], counting) is None
    assert best_epoch([{"epoch": 1, "val_hmean": 0.2}, {"epoch": 2, "val_hmean": 0.5}], TASKS["detection"])["epoch"] == 2


@pytest.mark.usefixtures("counting")
def test_damage_is_told_in_the_unit_of_the_main_metric(sensitivity):
    costs, what = damage(sensitivity(1))
    assert (costs, what) == (pytest.approx([9, 45, 81]), "Hmean lost (points)")
    points = [{"scores": {"error": 3.5}, "loss": 1.0}, {"scores": {"error": 1.5}, "loss": 1.0}]
    data = {"task": "counting", "baseline": {"scores": {"error": 2.0}, "loss": 0.5}, "points": points}
    assert damage(data) == ([1.5, -0.5], "error px added")
    points[0]["scores"] = None
    assert damage(data) == ([0.5, 0.5], "loss gained")


def test_a_last_epoch_of_equal_figures_is_another_artefact_than_the_best(row):
    best, last = row("baseline", epoch=1), row("baseline/last", epoch=2, key=row("baseline").key)
    assert distinct([best, last]) == [best, last]
    assert distinct([best, row("baseline/last", epoch=1, key=best.key)]) == [best]
