"""The script of a sweep's page: run by node on a stand-in for a browser's elements."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import compress.report

SCRIPT = Path(compress.report.__file__).with_name("sweep.js")
NODE = shutil.which("node")


def point(trial: str, latency: float | None, score: float, runtime: str = "openvino int8", **facts) -> dict:
    spread = {"low": latency, "high": latency}
    fixed = {"megabytes": 1.0, "gmacs": 1.0, "recommended": False, "told": f"{trial} in {runtime}"}
    return {"trial": trial, "runtime": runtime, "latency": latency, **spread, **fixed, "score": score, **facts}


DATA = {
    "heading": "Hmean %", "higher": True,
    "points": [
        point("slow", 9, 90, megabytes=1), point("fast", 1, 50, megabytes=2), point("beaten", 5, 40, megabytes=3),
        point("middle", 4, 70, megabytes=4, recommended=True), point("other", 2, 95, "onnxruntime fp32", megabytes=5),
        point("untimed", None, 99, "", megabytes=6),
    ],
}  # fmt: skip
# As much of a document as the script asks for.
STAND_IN = """
class Element {
  constructor(tag) { Object.assign(this, { tag, attributes: {}, children: [], listeners: {}, dataset: {}, textContent: "" }); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  append(child) { this.children.push(child); }
  replaceChildren() { this.children = []; }
  addEventListener(name, act) { this.listeners[name] = act; }
}
const known = Object.fromEntries(["points", "front", "told", "runtime", "cost"].map((name) => [name, new Element(name)]));
known.points.textContent = JSON.stringify(DATA);
Object.assign(known.runtime, { value: "" });
Object.assign(known.cost, { value: "latency", selectedOptions: [{ textContent: "cost" }] });
globalThis.document = { getElementById: (name) => known[name], createElementNS: (_space, tag) => new Element(tag) };
globalThis.addEventListener = () => {};
require(SCRIPT);
function shown(runtime, cost) {
  Object.assign(known.runtime, { value: runtime });
  Object.assign(known.cost, { value: cost });
  known.runtime.listeners.change();
  const circles = known.front.children.filter((node) => node.tag === "circle");
  const told = circles.map((node) => { node.listeners.pointerenter(); return known.told.textContent; });
  const places = circles.map((node) => [Number(node.attributes.cx), Number(node.attributes.cy)]);
  const kinds = Object.fromEntries(circles.map((node) => [node.dataset.trial, node.attributes.class]));
  return { kinds, told, places, message: known.told.textContent };
}
const choices = [["", "latency"], ["openvino int8", "latency"], ["", "megabytes"], ["tensorrt fp16", "latency"]];
console.log(JSON.stringify(choices.map((choice) => shown(...choice))));
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> list[dict]:
    """What the figure has after each of four choices."""
    if NODE is None:
        pytest.skip("no node on the path")
    file = tmp_path_factory.mktemp("script") / "run.js"
    file.write_text(STAND_IN.replace("DATA", json.dumps(DATA)).replace("SCRIPT", json.dumps(str(SCRIPT))))
    done = subprocess.run([NODE, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_that_was_timed_is_there_and_the_front_is_of_all_runtimes(shown):
    assert shown[0]["kinds"] == {"slow": "beaten", "fast": "best", "beaten": "beaten", "middle": "picked", "other": "best"}
    assert shown[0]["told"][0] == "slow in openvino int8"


def test_a_runtime_alone_has_a_front_of_its_own(shown):
    assert shown[1]["kinds"] == {"slow": "best", "fast": "best", "beaten": "beaten", "middle": "picked"}


def test_size_is_known_of_what_was_not_timed(shown):
    assert shown[2]["kinds"]["untimed"] == "best"
    assert len(shown[2]["kinds"]) == 6


def test_points_stand_where_their_figures_say_and_inside_the_figure(shown):
    places = dict(zip(shown[1]["kinds"], shown[1]["places"], strict=True))
    assert [name for name, _ in sorted(places.items(), key=lambda item: item[1][0])] == ["fast", "middle", "beaten", "slow"]
    assert [name for name, _ in sorted(places.items(), key=lambda item: -item[1][1])] == ["beaten", "fast", "middle", "slow"]
    assert all(70 <= x <= 740 and 20 <= y <= 370 for x, y in places.values())


def test_a_choice_without_figures_says_so(shown):
    assert shown[3]["kinds"] == {}
    assert shown[3]["message"] == "No trial has such a figure."
