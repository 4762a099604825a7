"""Architectures outside of the workbench: the example of the documentation through the whole chain, and what is refused."""

from __future__ import annotations

import pickle
import re
import sys
from concurrent.futures import Future
from contextvars import Context
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import compress
from compress import checkpoint, outside
from compress.assess import assess
from compress.cli import app
from compress.errors import CompressError
from compress.experiment import dry_run
from compress.files import read_json, read_lines
from compress.models.registry import build as build_known
from compress.outside import allowing
from compress.plan import plan
from compress.pruning import sensitivity
from compress.recipe import load
from compress.tasks.detection import EvaluateDetection as Evaluate

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs" / "third_party.md"
SMALL = [
    "model.width=8",
    "model.depth=1",
    "data={format: synthetic, train: 8, val: 2, test: 2, size: 64}",
    "evaluate.short_side=64",
    "latency={input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}",
    *(f"stages.{stage}.{setting}" for stage in ("baseline", "distilled") for setting in ("epochs=1", "batch=4", "crop=64")),
    *(f"stages.pruned.{setting}" for setting in ("round_to=4", "batches=1", "batch=4", "crop=64")),
    "stages.int8.mode=ptq",
    "stages.int8.train=null",
    "stages.int8.calibration=2",
    *(f"stages.{stage}.check_images=1" for stage in ("files", "files_int8")),
    "stages.files.formats=[onnx]",
]
STAGES = ["baseline", "baseline/last", "pruned/raw", "pruned", "distilled", "distilled/last", "files/onnx"]
STAGES += ["int8", "files_int8/onnx", "files_int8/openvino"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the documentation's module, on Python's path, and its recipe."""
    folder = tmp_path_factory.mktemp("own")
    (module, _), (recipe, *_) = (re.findall(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL) for kind in ("python", "yaml"))
    (folder / "my_detector.py").write_text(module)
    (folder / "my_recipe.yml").write_text(recipe)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def ran(own):
    """The experiment that `compress run` makes of it, with as little of each stage as runs through all the code."""
    compress.run(own / "my_recipe.yml", SMALL, out=own / "out", quiet=True)
    return own / "out"


def test_the_documents_example_goes_through_the_whole_chain(ran):
    rows = {row["stage"]: row for row in read_lines(ran / "ledger.jsonl")}
    assert list(rows) == STAGES
    assert rows["pruned"]["params"] < 0.5 * rows["baseline"]["params"]
    assert rows["files_int8/openvino"]["bytes"] < 0.5 * rows["distilled"]["bytes"]
    assert rows["files_int8/onnx"]["integers"]["integer_convs"] >= 7


def test_plan_tells_the_sizes_that_the_run_found(own, ran):
    told = {stage["name"]: stage for stage in plan(own / "my_recipe.yml", SMALL, out=ran)["stages"]}
    rows = {row["stage"]: row for row in read_lines(ran / "ledger.jsonl")}
    assert {stage["state"] for stage in told.values()} == {"in the cache"}
    assert [told[name]["params"] for name in ("baseline", "pruned")] == [rows[name]["params"] for name in ("baseline", "pruned")]
    assert outside.ALLOWED.get() == frozenset(), "what a recipe allows ends with the call"


def test_changed_code_is_another_model(own, ran):
    kept = (own / "my_detector.py").read_text()
    try:
        (own / "my_detector.py").write_text(kept + "\n")
        assert dry_run(own / "my_recipe.yml", SMALL, out=ran)[0] == "baseline: train: to do"
    finally:
        (own / "my_detector.py").write_text(kept)
    assert dry_run(own / "my_recipe.yml", SMALL, out=ran)[0] == "baseline: train: in the cache"


@pytest.mark.parametrize("artefact", ["distilled", "int8", "files/onnx/model.onnx", "files_int8/openvino/model.xml"])
def test_what_a_run_left_is_opened_where_its_module_is_allowed_and_refused_elsewhere(ran, artefact):
    with pytest.raises(
        CompressError, match=r"'my_detector' *, *begin with `compress --allow-module my_detector`.*modules=\['my_detector'\]"
    ):
        compress.load(ran / artefact)
    with pytest.raises(CompressError, match="not allowed here"):
        compress.load(ran / artefact, modules=["my_detectors", "my_detector.build"])
    found = compress.load(ran / artefact, modules=["my_detector"]).predict(np.zeros((40, 100, 3), np.uint8))
    assert len(found.scores) == len(found.polygons)
    with pytest.raises(CompressError, match="not allowed here"):
        compress.load(ran / artefact)


def test_every_command_on_an_artefact_asks_for_the_module(own, ran, tmp_path):
    image = str(tmp_path / "photo.png")
    cv2.imwrite(image, np.full((64, 96, 3), 200, np.uint8))
    model, file = str(ran / "pruned"), str(ran / "files" / "onnx" / "model.onnx")
    commands = [
        ["eval", model, "--json"],
        ["predict", image, "--model", file, "--out", str(tmp_path / "found")],
        ["export", model, "-f", "onnx", "--out", str(tmp_path / "files")],
        ["benchmark", file, model, "--input", "64x64", "--rounds", "3", "--json"],
        ["sensitivity", model, "--fast", "--ratios", "0.5", "--workers", "1", "--out", str(tmp_path / "sensitivity")],
    ]
    for words in commands:
        refused = CliRunner().invoke(app, words)
        assert isinstance(refused.exception, CompressError), refused
        assert "begin with `compress --allow-module my_detector`" in str(refused.exception)
        done = CliRunner().invoke(app, ["--allow-module", "my_detector", *words])
        assert done.exit_code == 0, (words, done.output, done.exception)
    points = read_json(tmp_path / "sensitivity" / "sensitivity.json")["points"]
    assert all(point["params"] < read_lines(ran / "ledger.jsonl")[3]["params"] for point in points)
    assert {point["group"] for point in points} >= {"stem.0.0", "join.0"}
    done = CliRunner().invoke(app, ["eval", model, "--json", "--recipe", str(own / "my_recipe.yml"), *(f"-o{line}" for line in SMALL)])
    assert done.exit_code == 0, "the recipe that a user names allows its own module"


class FreshProcess:
    """As much of a process pool as shows what a new process, which has allowed nothing yet, is told."""

    def __init__(self, _workers, mp_context, initializer, initargs):  # noqa: ARG002
        self.context = Context()
        self.context.run(initializer, *pickle.loads(pickle.dumps(initargs)))

    def submit(self, work, *arguments):
        future = Future()
        future.set_result(self.context.run(work, *arguments))
        return future

    def shutdown(self, **_):
        """There is nothing to end."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_workers_allow_what_the_process_allows_that_starts_them(ran, monkeypatch):
    monkeypatch.setattr(sensitivity, "ProcessPoolExecutor", FreshProcess)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    settings = sensitivity.Settings((0.5,), full=False, batches=1, batch=2, loss_images=1)
    with allowing("my_detector"):
        bench = sensitivity.open_bench(ran / "pruned", load(ran / "recipe.yml"), settings)
        points = dict(sensitivity.measured(bench, ran / "pruned", [(None, 0.0), ("join.0", 0.5)], workers=2))
    assert points["join.0", 0.5]["params"] < points[None, 0.0]["params"]
    with pytest.raises(CompressError, match="not allowed here"):
        list(sensitivity.measured(bench, ran / "pruned", [(None, 0.0), ("join.0", 0.5)], workers=2))


def test_a_strangers_checkpoint_imports_and_calls_nothing(tmp_path, monkeypatch):
    """Its folder, its recipe and the working folder are its own: a module that writes a file when it is imported lies in each."""
    stranger = tmp_path / "experiment" / "model"
    checkpoint.save(checkpoint.fresh({"name": "db", "neck": {"name": "fpn", "channels": 16}}, Evaluate(short_side=64)), stranger)
    evil = f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n"
    for folder in (tmp_path, stranger.parent, stranger):
        (folder / "evil.py").write_text(evil)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(stranger)
    recipe = {
        "model": {"name": "evil:build"},
        "data": {"format": "synthetic", "train": 4, "val": 1, "test": 1, "size": 64},
        "stages": [{"train": {}}],
    }
    (stranger.parent / "recipe.yml").write_text(yaml.safe_dump(recipe))
    description = yaml.safe_load((stranger / "model.yml").read_text())
    for name in ("evil:build", "os:system", "evil:", ":build", "evil:a:b", "os.path:join", "../evil:build", "evil.py:build"):
        (stranger / "model.yml").write_text(yaml.safe_dump({**description, "model": {"name": name, "command": "touch imported"}}))
        for opened in (checkpoint.load, compress.load):
            with pytest.raises(CompressError, match=r"model\.yml does not describe a model that can be built here: model: '"):
                opened(stranger)
    (stranger / "model.yml").write_text(yaml.safe_dump(description))
    with pytest.raises(CompressError, match=r"recipe\.yml, line \d+: model: 'evil:build' is code outside"):
        assess(stranger)
    assert "evil" not in sys.modules
    assert not (tmp_path / "imported").exists()
    with pytest.raises(ValueError, match="is not known"):
        build_known({"name": "evil:build"})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("os:system", "'os:system' is no function that is annotated"),
        ("my_detector:decode", "'my_detector:decode' is no function that is annotated"),
        ("my_detector:Algorithm", "is no function that is annotated"),
        ("my_detector:nothing", "is no function that is annotated"),
        ("no_such_module:build", "there is no module 'no_such_module'; install it"),
        ({"name": "my_detector:build", "widht": 8}, "model.widht is not known; did you mean 'width'?"),
        ({"name": "my_detector:build", "width": 0}, "model.width: input should be greater than 0, not 0"),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_an_allowed_module_cannot_build_is_said(config, words):
    with allowing("os", "my_detector", "no_such_module"), pytest.raises(ValueError, match=re.escape(words)):
        outside.build(config)


def test_a_module_that_lacks_another_says_which(tmp_path, monkeypatch):
    (tmp_path / "lacking.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with allowing("lacking"), pytest.raises(ModuleNotFoundError, match="no_such_package"):
        outside.build("lacking:build")
