"""A protocol named in a recipe reaches the evaluation, the rows and the caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compress import ledger
from compress.assess import tune_on
from compress.checkpoint import fresh
from compress.errors import CompressError
from compress.evaluation.icdar import Score
from compress.evaluation.protocols import PROTOCOLS
from compress.lab import Lab
from compress.predictor import of_model, score
from compress.recipe import load
from compress.tasks import detection

TINY = Path(__file__).parent.parent / "end_to_end" / "tiny.yml"


@pytest.fixture
def judged_by(monkeypatch):
    """What each protocol is asked to judge, in place of its judgement."""
    asked: list[tuple[str, list]] = []

    def judge(name: str):
        return lambda images: asked.append((name, images)) or Score(0.25, 0.5, 1 / 3, 1, 4, 2)

    monkeypatch.setattr(detection, "PROTOCOLS", {name: judge(name) for name in PROTOCOLS})
    return asked


def test_every_way_to_measure_asks_the_protocol_of_the_recipe(judged_by, tmp_path):
    recipe = load(TINY, ["evaluate.protocol=cleval"])
    lab = Lab(recipe, tmp_path, torch.device("cpu"), lambda _: None, quiet=True)
    model = fresh(recipe.model, recipe.evaluate)
    images = lab.split("val")
    predictor = of_model(model)
    expected = {"precision": 0.25, "recall": 0.5, "hmean": 1 / 3}
    assert lab.evaluate(model, "val") == expected
    readers = [predictor.reader(), predictor.reader(recipe.evaluate.with_settings({"box_threshold": 0.9}))]
    assert score(predictor, images, readers) == [expected, expected]
    tune_on(predictor, images, tmp_path / "model.onnx")
    assert len(judged_by) > 4
    assert {name for name, _ in judged_by} == {"cleval"}
    for _, judged in judged_by:
        assert [texts for _, _, _, texts in judged] == [words.truth.texts for words in images.annotations]
    assert recipe.evaluate.reported(model.algorithm)["protocol"] == "cleval"


def row(**settings) -> ledger.Row:
    return ledger.Row(
        **{"experiment": "x", "stage": "a", "kind": "train", "parent": None, "key": "", "seed": 0, "params": 1, "macs": 1, "bytes": 1},
        **{"task": "detection", "scores": {"precision": 0.5, "recall": 0.5, "hmean": 0.5}, "main": "hmean", "delta": 0.0},
        **{"split": "test", "images": 3, "runtime": "torch fp32"},
        **{"latency_ms": {}, "artefact": "a", "seconds": 1.0, "settings": {"short_side": 320, **settings}},
    )


def test_the_caption_names_every_protocol_that_rows_are_judged_by():
    assert "protocol polygon_iou" in ledger.markdown([row(protocol="polygon_iou")])
    both = ledger.markdown([row(protocol="icdar2015"), row(protocol="deteval")])
    assert "protocol icdar2015" in both
    assert "protocol deteval" in both
    assert both.count("Hmean on 3 test images") == 2


def test_the_default_protocol_is_the_same_said_or_not():
    plain, said, other = (load(TINY, overrides) for overrides in ([], ["evaluate.protocol=icdar2015"], ["evaluate.protocol=deteval"]))
    assert plain.dump() == said.dump()
    assert "protocol: icdar2015" in plain.dump()
    assert "protocol: deteval" in other.dump()
    assert fresh(plain.model, plain.evaluate).description()["evaluate"] == plain.evaluate.model_dump(mode="json")


def test_the_dumped_recipe_reads_back(tmp_path):
    other = load(TINY, ["evaluate.protocol=deteval", "data.curved=0.3"])
    (tmp_path / "recipe.yml").write_text(other.dump())
    again = load(tmp_path / "recipe.yml")
    assert (again.evaluate, again.data) == (other.evaluate, other.data)
    assert again.data.curved == 0.3


@pytest.mark.parametrize("override", ["evaluate.protocol=iou", "evaluate.protocl=deteval", "data.curved=2", "data.format=totaltxt"])
def test_wrong_names_are_refused(override):
    with pytest.raises(CompressError):
        load(TINY, [override])


def test_a_curved_format_in_a_recipe(tmp_path):
    recipe = load(TINY, ["data={format: totaltext, root: " + str(tmp_path) + ", damaged: skip}"])
    assert recipe.data.root == tmp_path
    with pytest.raises(CompressError, match="neither Images/Train"):
        recipe.data.splits()
    assert np.isclose(recipe.data.val_fraction, 0.15)
