"""The page as a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from string import Template

import cv2
import numpy as np
import pytest

from compress.models.contract import Classification, Detections, Label, Sample, Words
from compress.report import page as pages
from compress.report.compare import plain_answer, plain_image
from compress.tasks import TASKS
from compress.tasks.classification import EvaluateClassification
from compress.tasks.detection import EvaluateDetection

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=2000",
]  # fmt: skip

# What goes wrong is noted from before the page's first element on; the figures are written into the page, for `--dump-dom` to give.
LISTEN = """<script>
window.wrong = [];
addEventListener("error", event => wrong.push(event.message || String(event.target.outerHTML)), true);
addEventListener("securitypolicyviolation", event => wrong.push(event.violatedDirective + " " + event.blockedURI));
for (const name of ["error", "warn"]) console[name] = (...words) => wrong.push(words.join(" "));
</script>"""
TELL = """<script>
function whole(link) {  // what a click on an image shows, and what another click leaves
  if (!link) return null;
  const shown = document.getElementById(link.getAttribute("href").slice(1)), before = getComputedStyle(shown).display;
  location.hash = link.getAttribute("href");
  const style = getComputedStyle(shown), box = shown.querySelector("svg").getBoundingClientRect();
  const size = [Math.round(box.width), Math.round(box.height)];
  const found = [before, style.display, style.position, ...size, shown.querySelectorAll("use").length];
  location.hash = shown.getAttribute("href");
  return [...found, getComputedStyle(shown).display];
}
addEventListener("load", () => setTimeout(() => {
  const outside = document.querySelectorAll("main > section > *, header > *, .tiles div, .plots > figure > svg, .shots figure, .scroll");
  const told = {
    width: innerWidth, page: document.documentElement.scrollWidth, wrong: wrong,
    requests: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:")),
    outside: [...outside].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)),
    scrolls: [...document.querySelectorAll(".scroll")].map(e => e.scrollWidth > e.clientWidth),
    columns: getComputedStyle(document.querySelector(".plots")).gridTemplateColumns.split(" ").length,
    smallest: Math.min(...[...document.querySelectorAll(".plots svg text")].map(e => e.getBoundingClientRect().height).filter(h => h)),
    ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.querySelector(".plots svg text")).fill,
    captions: [...document.querySelectorAll(".shots figcaption")].map(e => e.scrollWidth <= e.clientWidth),
    alone: [...document.querySelectorAll(".alone")].map(e => e.getBoundingClientRect().width),
    shots: [...document.querySelectorAll(".shots .open use")].map(e => e.getBoundingClientRect().width > 100),
    tiles: [...document.querySelectorAll(".tiles")][0].getBoundingClientRect().bottom,
    named: [...document.querySelectorAll(".tiles dt")].slice(0, 2).map(e => e.textContent),
    heads: [...document.querySelectorAll("[aria-label^=Table] thead tr")].map(e => [...e.children].slice(0, 4).map(c => c.textContent)),
    cells: [...document.querySelectorAll("[aria-label^=Table] tbody tr:first-child td:nth-child(3)")].map(
      e => e.getBoundingClientRect().right),
    tips: [...document.querySelectorAll(".plots title")].length,
    whole: whole(document.querySelector(".shots .open")),
  };
  const place = document.createElement("pre"); place.id = "told"; place.textContent = JSON.stringify(told); document.body.append(place);
}, 100));</script>"""

# Its width is the page's, where a window may not be as narrow as asked for.
FRAME = Template("""<!DOCTYPE html><iframe id="frame" style="width:${width}px;height:900px;border:0"></iframe>
<pre id="answer"></pre><script>
const frame = document.getElementById("frame"), answer = document.getElementById("answer");
frame.srcdoc = ${document};
setInterval(() => {
  const told = frame.contentDocument.getElementById("told");
  if (told) answer.textContent = told.textContent;
}, 50);
</script>""")


def seen_words() -> dict:
    """An image on which five stages find a word."""
    word = np.array([[10, 10], [80, 10], [80, 30], [10, 30]], np.float32)
    sample = Sample(
        "val_1", np.full((90, 160, 3), 128, np.uint8), Words([word, word + 30], np.array([False, True]), ["<b>text</b>", "###"])
    )
    answer = plain_answer(sample, Detections([word + 1], np.array([0.9])), TASKS["detection"], EvaluateDetection())
    return {**plain_image(sample, TASKS["detection"]), "found": {f"files_14{i}_int8/openvino": answer for i in range(5)}}


def seen_line() -> dict:
    """A line of text that five stages give a class."""
    sample, task = Sample("line", np.full((48, 640, 3), 128, np.uint8), Label("180")), TASKS["classification"]
    answer = plain_answer(sample, Classification("0", 0.9), task, EvaluateClassification())
    return {**plain_image(sample, task), "found": {f"files_14{i}_int8/openvino": answer for i in range(5)}}


@pytest.fixture(scope="module")
def report(written, tmp_path_factory) -> Path:
    """A page with everything on it, the long names of a real experiment among them. Not to be changed by a test."""
    words, line = seen_words(), seen_line()
    known = {
        "seed1": {"notes": [], "task": "classification", "images": [line]},
        "db_mv3_prune0.6_distill_and_a_long_name": {
            "notes": ["A note."],
            "task": "detection",
            "images": [words, words | {"name": "val_2"}],
        },
    }
    out = tmp_path_factory.mktemp("browser") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "compare", lambda experiment, _images: known[experiment.name])
        pages.write_report([written(name, layers=60 if name.startswith("db") else 3) for name in reversed(known)], out, images=2)
    return out


def browse(page: Path, *options: str) -> str:
    """What chromium prints."""
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run([CHROMIUM, *FLAGS, profile, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"chromium does not start here: {done.stderr[-300:]}")
    return done.stdout


def asked(report: Path, width: int, *options: str, more: str = "") -> dict:
    """The page's own answers at a width in CSS pixels, with `more` at the end of its body."""
    text = report.read_text().replace("</main>", more + "</main>")
    listening = text.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    listening = listening.replace("<style>", LISTEN + "<style>", 1).replace("</body>", TELL + "</body>")
    frame = report.with_name("frame.html")
    frame.write_text(FRAME.substitute(width=width, document=json.dumps(listening).replace("</", "<\\/")))
    found = re.search(r'<pre id="answer">(\{.*?\})</pre>', browse(frame, "--dump-dom", "--window-size=1400,1000", *options), re.DOTALL)
    assert found, "the page told nothing"
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_fails_or_is_fetched(report, width):
    told = asked(report, width)
    assert told["width"] == width
    assert told["page"] <= width
    assert told["outside"] == []
    assert told["wrong"] == []
    assert told["requests"] == []
    assert all(told["shots"])
    assert len(told["shots"]) == 2 * 5, "the line of text is shown once"
    assert all(told["captions"]), "a long name of a stage is broken"
    assert told["alone"] == [min(width - 32, 416)], "pixels"
    assert told["columns"] == (1 if width == 390 else 2)
    assert told["smallest"] >= (7 if width == 390 else 9), "pixels, the height of the smallest text in a figure"
    assert told["scrolls"][1] is (width == 390), "the wide table scrolls in its own box on a phone"


def test_a_phone_shows_score_and_latency_first(report):
    told = asked(report, 390)
    assert told["named"] == ["Hmean", "Latency, openvino int8"]
    assert told["tiles"] <= 844, "pixels, within the first screen"
    assert told["heads"] == [["stage", "Hmean %", "fastest ms", "MB"]] * 2
    assert all(right <= 390 for right in told["cells"]), "without scrolling the table"


def test_a_click_shows_an_image_in_its_own_pixels_and_another_one_closes_it(report):
    told = asked(report, 390)
    assert told["whole"] == ["none", "block", "fixed", 160, 90, 2, "none"]


def test_the_listener_hears_what_it_listens_for(report):
    """Without this, the test above could not fail."""
    text = report.read_text().replace(
        "</main>", '<img src="http://localhost:9/x.png"><div class="scroll" style="width:3000px"></div></main>'
    )
    report.write_text(text)
    told = asked(report, 390)
    assert any("img-src" in line for line in told["wrong"])
    assert told["page"] > 390
    assert told["outside"]


def test_a_dark_page_where_that_is_preferred(report):
    light, dark = (asked(report, 1280, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0))
    assert (light["ground"], dark["ground"]) == ("rgb(255, 255, 255)", "rgb(21, 24, 29)")
    assert (light["ink"], dark["ink"]) == ("rgb(29, 33, 39)", "rgb(228, 231, 235)")


def test_it_is_drawn_and_printed(report):
    browse(report, f"--screenshot={report.with_name('shot.png')}", "--window-size=1280,1600")
    image = cv2.imread(str(report.with_name("shot.png")))
    assert image.shape == (1600, 1280, 3)
    assert 0.01 < (image.min(2) < 128).mean() < 0.3, "ink on a light page"
    browse(report, "--no-pdf-header-footer", f"--print-to-pdf={report.with_name('report.pdf')}")
    pages_printed = len(re.findall(rb"/Type\s*/Page\b", report.with_name("report.pdf").read_bytes()))
    assert 5 <= pages_printed <= 30
