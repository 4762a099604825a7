"""Front, limits, recommendation, tables and the page of a sweep, from trials whose figures are given."""

from __future__ import annotations

import csv
import io
import random
import re

import pytest

from compress.errors import CompressError
from compress.report.sweep import drawn, page, write_sweep
from compress.sweeps import results, trials
from compress.sweeps.settings import Sweep
from compress.sweeps.timing import joined

SWEEP = Sweep(recipe="r.yml", objectives=("latency_ms", "score"))


def row(stage: str, score: float, *, latency: float | None = None, size: int = 100, delta: float = 0.0, kind: str = "export") -> dict:
    timed = {"median": latency, "p90": latency, "threads": 1, "input": [1, 3, 64, 64], "rounds": 3}
    timed = {} if latency is None else {"openvino int8": {**timed, "low": 0.9 * latency, "high": 1.1 * latency}}
    return {
        "experiment": "r", "stage": stage, "kind": kind, "parent": None, "key": "a", "seed": 0, "task": "detection", "params": 1,
        "macs": 10, "bytes": size, "scores": {"precision": score, "recall": score, "hmean": score}, "main": "hmean", "delta": delta,
        "split": "test",
        "images": 2, "settings": {}, "runtime": "openvino int8", "latency_ms": timed, "artefact": stage, "seconds": 1.0,
    }  # fmt: skip


def trial(name: str, *rows: dict, state: str = "finished", why: str = "") -> dict:
    return {
        "trial": name, "point": {"k": 0}, "values": {"k": name}, "seed": None, "state": state, "why": why, "seconds": 2.0, "node": "n",
        "rows": list(rows),
    }  # fmt: skip


def one(name: str, latency: float | None, score: float, **facts) -> dict:
    return trial(name, row("files", score, latency=latency, **facts))


def test_the_front_is_what_none_is_better_than_by_the_definition_on_random_trials():
    chance = random.Random(0)
    found = [one(str(number), chance.randint(1, 6), chance.randint(1, 6) / 10, size=chance.randint(1, 6)) for number in range(40)]
    sweep = SWEEP.model_copy(update={"objectives": ("latency_ms", "score", "bytes")})

    def facts(entry: dict) -> tuple[float, float, float]:
        only = entry["rows"][0]
        return only["latency_ms"]["openvino int8"]["median"], -only["scores"]["hmean"], only["bytes"]

    def beats(a: dict, b: dict) -> bool:
        return facts(a) != facts(b) and all(x <= y for x, y in zip(facts(a), facts(b), strict=True))

    best = [entry for entry in found if not any(beats(other, entry) for other in found)]
    first_of_equals = {facts(entry): entry["trial"] for entry in reversed(best)}
    assert results.front(sweep, found) == [entry["trial"] for entry in best if first_of_equals[facts(entry)] == entry["trial"]]


def test_the_recommended_trial_is_the_best_in_the_first_objective_within_the_limits():
    found = [
        one("fast", 1, 0.5, delta=-0.4),
        one("good", 3, 0.9, delta=-0.005),
        one("slow", 9, 0.91),
        trial("bad", state="failed", why="x"),
    ]
    assert results.recommended(SWEEP, found)["trial"] == "fast"
    limited = Sweep.model_validate({"recipe": "r.yml", "objectives": ["latency_ms", "score"], "limits": {"max_drop": 0.01}})
    assert results.recommended(limited, found)["trial"] == "good"
    by_score = Sweep.model_validate({"recipe": "r.yml", "objectives": ["score"], "limits": {"max_latency_ms": 5}})
    assert results.recommended(by_score, found)["trial"] == "good"
    none = Sweep.model_validate({"recipe": "r.yml", "limits": {"max_bytes": 5}})
    assert results.recommended(none, found) is None


def test_a_limit_of_a_drop_holds_for_the_drop_itself_and_an_untimed_trial_keeps_to_no_limit_of_latency():
    sweep = Sweep.model_validate({"recipe": "r.yml", "limits": {"max_drop": 0.1, "max_latency_ms": 5}})
    assert results.broken_limits(sweep, results.figures(sweep, one("a", 1, 0.5, delta=0.4 - 0.5))) == []
    assert results.broken_limits(sweep, results.figures(sweep, one("a", None, 0.5, delta=-0.2))) == ["max_drop", "max_latency_ms"]


def test_the_row_that_counts_is_the_named_one_or_the_last():
    both = trial("a", row("files/onnx", 0.4, latency=2), row("files/openvino", 0.6, latency=1))
    assert results.figures(SWEEP, both).row.score == 0.6
    assert results.figures(SWEEP.model_copy(update={"row": "files/onnx"}), both).latency_ms == 2
    with pytest.raises(CompressError, match="have no row 'files/ncnn'"):
        results.figures(SWEEP.model_copy(update={"row": "files/ncnn"}), both)
    with pytest.raises(CompressError, match="was not timed in openvino fp32, but in openvino int8"):
        results.figures(SWEEP.model_copy(update={"runtime": "openvino fp32"}), both)


def test_a_sampler_is_told_values_whose_score_is_the_more_the_better():
    assert results.judged(SWEEP, one("a", 3, 0.7)) == [3, 0.7]
    assert results.judged(SWEEP, one("a", None, 0.7)) is None
    assert results.judged(SWEEP, trial("a", state="failed", why="x")) is None


def test_several_turns_are_one_latency_with_its_scatter():
    turns = [{"median": value, "p90": value + 1, "threads": 1, "input": [1], "rounds": 3} for value in (4.0, 2.0, 3.0)]
    assert joined(turns) == {"median": 3.0, "p90": 4.0, "threads": 1, "input": [1], "rounds": 3, "low": 2.0, "high": 4.0}


def test_the_tables_have_every_trial_with_its_reason(tmp_path):
    lost = [trial("c", state="failed", why="It is\nbroken | badly."), trial("d", state="stopped", why="late")]
    entries = [one("a", 3, 0.7), one("b", 4, 0.6), *lost]
    known = trials.Trials(tmp_path / "sweep.jsonl", {entry["trial"]: entry for entry in entries})
    text = results.markdown(SWEEP, known)
    assert "| a | a | finished | 70.00 | +0.00 | 0.000 | 0.000 G | 3.00 (2.70 to 3.30) | 2 | recommended, front |" in text
    assert r"It is broken \| badly." in text
    lines = list(csv.DictReader(io.StringIO(results.comma_separated(SWEEP, known))))
    assert [line["state"] for line in lines] == ["finished", "finished", "failed", "stopped"]
    assert (lines[1]["score"], lines[1]["latency_ms"], lines[1]["k"]) == ("0.6", "4.0", "b")


def test_what_is_known_of_trials_is_read_back_as_it_was_written(tmp_path):
    known = trials.Trials(tmp_path / "sweep.jsonl")
    known.add({**trial("a", state="running"), "rows": []})
    known.note("a", state="finished", rows=[row("files", 0.5, latency=1)])
    known.add({**trial("b", state="running"), "rows": []})
    again = trials.read_trials(tmp_path)
    assert again.found == known.found
    assert [entry["trial"] for entry in again.ended()] == ["a"]
    (tmp_path / "sweep.jsonl").write_text('{"trial": "a"}\n')
    with pytest.raises(CompressError, match=r"sweep\.jsonl, line 1 is damaged"):
        trials.read_trials(tmp_path)


def test_the_page_holds_every_point_escaped_and_allows_its_own_script_alone():
    found = [one("a", 3, 0.7), one("b", None, 0.6), trial("<c>", row("files", 0.5, latency=2), state="finished")]
    html = page("</script><b>", SWEEP, found, "seed: 0 # <x>")
    assert html.count("<script") == 2
    assert "</script><b>" not in html
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", html)
    points = drawn(SWEEP, found)["points"]
    assert [(point["trial"], point["runtime"], point["latency"], point["score"]) for point in points] == [
        ("a", "openvino int8", 3, 70.0), ("b", "", None, 60.0), ("<c>", "openvino int8", 2, 50.0),
    ]  # fmt: skip
    assert [point["recommended"] for point in points] == [False, False, True]


def test_a_report_is_about_one_sweep_that_has_something_to_show(tmp_path):
    with pytest.raises(CompressError, match="one sweep"):
        write_sweep([tmp_path, tmp_path], tmp_path / "out.html")
    job = trials.Job(SWEEP, (), tmp_path, str(tmp_path), tmp_path)
    trials.write_settings(job)
    known = trials.Trials(tmp_path / "sweep.jsonl")
    known.add(trial("a", state="failed", why="x"))
    with pytest.raises(CompressError, match=r"No trial of .* has finished"):
        write_sweep([tmp_path], tmp_path / "out.html")
    known.add(one("b", 3, 0.7))
    assert write_sweep([tmp_path], tmp_path / "out.html") == [tmp_path / "out.html"]
    assert "1 failed, 1 finished" in (tmp_path / "out.html").read_text()


def test_data_that_hold_for_teachers_too_are_in_the_command_of_the_recommended_recipe(tmp_path):
    section = "model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}\ndata: {format: synthetic, size: 64}\n"
    alone = f"{section}stages:\n  - train: {{name: baseline, epochs: 1}}\n"
    (tmp_path / "teacher.yml").write_text(alone)
    (tmp_path / "r.yml").write_text(f"{alone}  - distill: {{name: student, teacher: teacher.yml, epochs: 1}}\n")
    sweep = Sweep(recipe=str(tmp_path / "r.yml"), objectives=("score",))
    known = trials.Trials(tmp_path / "sweep.jsonl", {"a": {**one("a", None, 0.7), "values": {"data.train": 16, "seed": 4}}})

    def header(recipe: str) -> list[str]:
        job = trials.Job(sweep.model_copy(update={"recipe": recipe}), ("data.val=3",), tmp_path, str(tmp_path), tmp_path)
        written = results.write(job, known)
        return [line for line in written.read_text().splitlines() if line.startswith("#")]

    assert header(sweep.recipe)[1].endswith("As in the trial: compress run recommended.yml -o data.val=3 -o data.train=16")
    (tmp_path / "alone.yml").write_text(alone)
    assert len(header(str(tmp_path / "alone.yml"))) == 1
