"""The page of a sweep in a real browser: the mouse and the Tab key tell of trials, and the runtime chooses among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.report.sweep import page
from compress.sweeps.settings import Sweep
from tests.browser import Browser, browser

pytestmark = pytest.mark.slow
SWEEP = Sweep(recipe="recipes/db_mv3_prune0.6_distill.yml", objectives=("latency_ms", "score"), limits={"max_drop": 0.1})
RECIPE = "seed: 0\nmodel: {name: db, backbone: {name: mobilenet_v3_small, width: 0.5}, neck: {name: fpn, channels: 96}}\n"


def row(stage: str, score: float, size: int, latencies: dict[str, float]) -> dict:
    timed = {
        where: {"median": ms, "p90": ms, "threads": 1, "input": [1, 3, 64, 64], "rounds": 3, "low": 0.97 * ms, "high": 1.05 * ms}
        for where, ms in latencies.items()
    }
    return {
        "experiment": "r", "stage": stage, "kind": "export", "parent": None, "key": "a", "seed": 0, "task": "detection", "params": 1,
        "macs": size * 1000, "bytes": size, "scores": {"precision": score, "recall": score, "hmean": score}, "main": "hmean",
        "delta": score - 0.8, "split": "test", "images": 150, "settings": {}, "runtime": "openvino int8", "latency_ms": timed,
        "artefact": stage, "seconds": 1.0,
    }  # fmt: skip


def trial(number: int, score: float, ms: float) -> dict:
    values = {"stages.pruned.ratio": round(0.2 + 0.05 * number, 2), "stages.pruned.criterion": "taylor"}
    rows = [
        row("files/onnx", score + 0.01, 400_000 - 20_000 * number, {"onnxruntime fp32": 3 * ms}),
        row("files_int8/openvino", score, 120_000 - 5_000 * number, {"openvino int8": ms}),
    ]
    return {
        "trial": f"0123456789{number:02d}", "point": {}, "values": values, "seed": 0, "state": "finished", "why": "", "seconds": 40.0,
        "node": "n", "rows": rows,
    }  # fmt: skip


TRIALS = [trial(number, score, 4 - 0.25 * number) for number, score in enumerate([0.8, 0.79, 0.8, 0.74, 0.77, 0.7, 0.71, 0.6])]
WHY = "-o stages.pruned.ratio=2: stages.pruned.ratio: input should be less than 1, not 2."
FAILED = {
    **trial(8, 0, 1),
    "values": {"stages.pruned.ratio": 2, "stages.pruned.criterion": "taylor"},
    "state": "failed",
    "why": WHY,
    "rows": [],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "sweep.html"
    path.write_text(page("latency_budget", SWEEP, [*TRIALS, FAILED], RECIPE))
    return path


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def told(shown: Browser) -> str:
    return shown.tell("document.getElementById('told').textContent")


def circles(shown: Browser, kind: str = "circle") -> list[str]:
    """The trials of the points that are drawn."""
    return shown.tell(f"[...document.querySelectorAll('#front {kind}')].map((node) => node.dataset.trial)")


def choose(shown: Browser, name: str, value: str) -> None:
    """Take a value of a choice by the keyboard, as a person does without a mouse."""
    shown.tell(f"document.getElementById({json.dumps(name)}).focus()")
    for _ in range(10):
        if shown.tell(f"document.getElementById({json.dumps(name)}).value") == value:
            return
        shown.press("ArrowDown")
    raise AssertionError(f"{name} has no {value}")


def test_the_mouse_tells_trial_stage_and_runtime(shown, file):
    shown.open(file)
    assert len(circles(shown)) == 2 * len(TRIALS)
    for entry in TRIALS:
        shown.point_at(f"#front circle[data-trial='{entry['trial']}'][data-runtime='openvino int8']")
        assert told(shown).startswith(f"{entry['trial']} (stages.pruned.ratio {entry['values']['stages.pruned.ratio']}")
        assert "files_int8/openvino: " in told(shown)
        assert f"{entry['rows'][1]['latency_ms']['openvino int8']['median']:.2f} ms in openvino int8" in told(shown)
    assert shown.faults() == []


def test_the_tab_key_goes_from_trial_to_trial(shown, file):
    shown.open(file)
    shown.tell("document.getElementById('cost').focus()")
    seen = []
    for _ in range(2 * len(TRIALS)):
        shown.press("Tab")
        seen.append(told(shown))
    assert len(set(seen)) == 2 * len(TRIALS)


def test_a_runtime_is_shown_alone_with_its_own_front(shown, file):
    shown.open(file)
    choose(shown, "runtime", "openvino int8")
    assert circles(shown) == [entry["trial"] for entry in TRIALS]
    best = {TRIALS[place]["trial"] for place in (2, 4, 6, 7)}
    assert set(circles(shown, ".best") + circles(shown, ".picked")) == best
    assert len(circles(shown, ".picked")) == 1
    shown.point_at(f"#front circle[data-trial='{TRIALS[0]['trial']}']")
    assert "openvino int8" in told(shown)
    choose(shown, "cost", "megabytes")
    assert circles(shown) == [entry["trial"] for entry in TRIALS]
    assert "size, MB" in shown.tell("document.getElementById('front').textContent")
    assert shown.faults() == []


@pytest.mark.parametrize(("width", "phone"), [(390, True), (1280, False)])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_can_be_read(shown, file, width, phone, dark):
    shown.open(file, width, dark=dark, phone=phone)
    assert shown.tell("document.documentElement.scrollWidth") <= width
    smallest = shown.tell("Math.min(...[...document.querySelectorAll('#front text')].map((node) => node.getBoundingClientRect().height))")
    assert smallest >= 11, "pixels, the height of the smallest text of the figure"
    across = shown.tell("Math.min(...[...document.querySelectorAll('#front circle')].map((node) => node.getBoundingClientRect().width))")
    assert across >= 9, "pixels, which a finger can find"
    ends = shown.tell("[...document.querySelectorAll('#front .spread')].flatMap((node) => [node.x1.baseVal.value, node.x2.baseVal.value])")
    assert 70 <= min(ends) < max(ends) <= shown.tell("document.getElementById('front').clientWidth"), "the scatter is inside of the axes"
    ground, ink = shown.tell(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('#front text')).fill]"
    )
    assert (ground, ink) == (("rgb(21, 24, 29)", "rgb(228, 231, 235)") if dark else ("rgb(255, 255, 255)", "rgb(29, 33, 39)"))
