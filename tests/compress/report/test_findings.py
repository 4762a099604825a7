from __future__ import annotations

import itertools
import random

from compress.report.findings import distinct, front, recommended, scatter, shippable, slower_int8


def test_of_the_files_near_the_best_the_fastest_is_recommended(rows, row):
    assert recommended(rows).stage == "files_int8/openvino"
    assert recommended([*rows, row("more", kind="export", hmean=0.83)]).stage == "more", "the others are now 2.5 points behind"
    assert recommended(rows[:4]).stage == "baseline", "without files, a checkpoint"


def test_a_teacher_and_a_file_that_finds_nothing_are_not_shipped(rows, row):
    teacher, broken = row("teacher", kind="teacher", hmean=0.99), row("broken", kind="export", hmean=0.1)
    assert {found.stage for found in shippable([*rows, teacher, broken])} == {"files/onnx", "files_int8/onnx", "files_int8/openvino"}
    assert "teacher" not in {found.stage for found in shippable([*rows[:4], teacher])}


def test_int8_is_called_slower_where_it_is_and_only_there(rows, row):
    (case,) = slower_int8(rows)
    assert (case.int8.stage, case.floating.stage, case.runtime) == ("files_int8/onnx", "files/onnx", "onnxruntime")
    assert (case.int8_ms, case.float_ms) == (22.0, 9.0), "the exported float file, not the checkpoint's 12 ms"
    slow = {"openvino fp32": {"median": 10.0, "p90": 10.0, "threads": 1, "input": [1], "rounds": 3}}
    assert len(slower_int8([*rows, row("files/openvino", kind="export", macs=rows[-1].macs, latency_ms=slow)])) == 2
    assert len(slower_int8([*rows, row("files/openvino", kind="export", macs=rows[0].macs, latency_ms=slow)])) == 1, "another network"


def test_imitated_int8_is_no_timing(rows, row):
    latency = {"onnxruntime fake-quantized int8": {"median": 99.0, "p90": 99.0, "threads": 1, "input": [1], "rounds": 3}}
    assert len(slower_int8([*rows, row("int8", macs=rows[-1].macs, latency_ms=latency)])) == 1


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
