"""A whole small chain of each detector, and what its exported files compute; nothing in it knows a detector but the recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import compress
from compress.checkpoint import load as load_checkpoint
from compress.data.detection.synthetic import draw
from compress.exporters.write import write_files
from compress.files import read_json, read_lines
from compress.predictor import of_model, open_predictor
from compress.recipe import load

RECIPES = Path(__file__).parents[2] / "recipes"
MODELS = {
    "psenet": "{name: psenet, backbone: {name: resnet18, width: 0.125}, neck: {name: fpn, channels: 16}}",
    "pan": "{name: pan, backbone: {name: resnet18, width: 0.125}, neck: {name: fpem_ffm, channels: 16, repeats: 1}}",
    "sast": "{name: sast, backbone: {name: resnet18, width: 0.125}, neck: {name: cab_fpn, channels: 16, blocks: 1}}",
}
UNBOUNDED = ("similarity", "border", "tvo", "tco")  # maps that are no probabilities
SETTINGS = """
data: {format: synthetic, train: 16, val: 2, test: 2, size: 96}
evaluate: {short_side: 96, score_threshold: 0.5, min_area: 30}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
"""
CHAIN = """
stages:
  - train:    {name: baseline, epochs: 2, batch: 8, crop: 64, lr: 1.0e-2, evaluate_every: 2}
  - prune:    {name: pruned, ratio: 0.6, criterion: l2, round_to: 2, batches: 2, batch: 8, crop: 64}
  - distill:  {name: distilled, teacher: baseline, epochs: 2, batch: 8, crop: 64, feature: {weight: 1.0}, evaluate_every: 2}
  - quantize: {name: int8, calibration: 2, train: {epochs: 1, batch: 8, crop: 64, lr: 1.0e-4}}
  - export:   {name: files, check_images: 2}
"""


@pytest.fixture(scope="module", params=MODELS)
def chain(request, tmp_path_factory) -> Path:
    """The experiment's folder of one run."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "chain.yml").write_text(f"model: {MODELS[request.param]}" + SETTINGS + CHAIN)
    compress.run(folder / "chain.yml", out=folder / "chain", quiet=True)
    return folder / "chain"


def test_every_stage_leaves_its_rows_and_pruning_its_mark(chain):
    rows = {row["stage"]: row for row in read_lines(chain / "ledger.jsonl")}
    assert [name for name in rows if "/last" not in name] == [
        "baseline", "pruned/raw", "pruned", "distilled", "int8/ptq", "int8", "files/onnx", "files/openvino",
    ]  # fmt: skip
    assert rows["pruned"]["params"] < 0.4 * rows["baseline"]["params"]
    assert rows["files/openvino"]["bytes"] < 0.6 * rows["distilled"]["bytes"]
    for row in rows.values():
        assert row["settings"]["score_threshold"] == 0.5
        assert 0 <= row["scores"]["hmean"] <= 1


def test_layers_that_give_maps_keep_their_channels_and_the_rest_lose_some(chain):
    channels = read_json(chain / "pruned" / "channels.json")
    for name, (before, after) in channels.items():
        assert (after == before) if name.startswith("maps") else (after < before), name


@pytest.mark.parametrize("file", ["onnx/model.onnx", "openvino/model.xml"])
def test_exported_files_of_the_pruned_and_quantized_network_equal_torch(chain, file):
    parent, exported = open_predictor(chain / "int8"), open_predictor(chain / "files" / file)
    image = draw(0, "val", 1, 96)[1]
    (expected,), (given,) = parent.outputs([image]), exported.outputs([image])
    assert expected.keys() == given.keys()
    for name, maps in expected.items():
        assert given[name].shape == maps.shape
        # A layer of six channels spreads one rounding widely; a lost scale or sigmoid is off by more than a tenth.
        assert np.abs(given[name] - maps).mean() < 0.03 * max(1.0, float(np.ptp(maps))), name
        assert name in UNBOUNDED or 0 <= given[name].min() <= given[name].max() <= 1


def test_float_files_equal_torch(chain, tmp_path):
    model = load_checkpoint(chain / "distilled")
    image = draw(0, "val", 1, 96)[1]
    (expected,) = of_model(model).outputs([image])
    for _, path, _ in write_files(model, ["onnx", "openvino"], tmp_path, ()):
        (given,) = open_predictor(tmp_path / path).outputs([image])
        for name, maps in expected.items():
            np.testing.assert_allclose(given[name], maps, rtol=1e-4, atol=1e-4, err_msg=f"{path}: {name}")


@pytest.mark.parametrize("name", ["pse_resnet18", "pse_resnet50", "pan_resnet18", "pan_resnet50", "sast_resnet18", "sast_resnet50"])
def test_recipes_are_valid(name):
    recipe = load(RECIPES / f"{name}.yml")
    assert recipe.stages[0].kind == "train"
    assert recipe.evaluate.short_side == recipe.data.size
