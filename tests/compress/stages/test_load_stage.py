"""Recipes that start from a finished checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import compress
from compress.checkpoint import fresh, load, save
from compress.errors import CompressError
from compress.experiment import dry_run
from compress.ledger import read
from compress.recipe import load as load_recipe

pytestmark = pytest.mark.slow

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 4, val: 2, test: 2, size: 64}
evaluate: {short_side: 64, bin_threshold: 0.45}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages:
  - load: {name: found, checkpoint: weights}
  - prune: {name: pruned, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64}
  - load: {name: smaller, checkpoint: weights_pruned}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A recipe beside a checkpoint and a pruned one."""
    path = tmp_path / "recipe.yml"
    path.write_text(RECIPE)
    config = load_recipe(path)
    save(fresh(config.model, config.evaluate.model_copy(update={"short_side": 96})), tmp_path / "weights")
    path.write_text(RECIPE.replace("  - load: {name: smaller, checkpoint: weights_pruned}\n", ""))
    compress.run(path, out=tmp_path / "first", quiet=True)
    shutil.copytree(tmp_path / "first" / "pruned", tmp_path / "weights_pruned")
    path.write_text(RECIPE)
    return path


def test_a_checkpoint_is_compressed_without_training_and_pruned_ones_load(recipe):
    folder = recipe.parent
    rows = compress.run(recipe, out=folder / "out", quiet=True)
    assert [row.stage for row in rows] == ["found", "pruned/raw", "pruned", "smaller"]
    before, after = (load(folder / place).network.state_dict() for place in ("weights", "out/found"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load(folder / "out" / "found").evaluate.short_side == 64  # the recipe's, not the checkpoint's
    assert rows[3].params == rows[2].params < rows[0].params
    assert rows[3].scores == rows[2].scores


def test_timing_again_changes_latencies_alone(recipe, monkeypatch):
    from compress import experiment
    from compress.lab import Lab

    folder, override = recipe.parent / "out", ["latency.runtimes=[torch]"]
    first = compress.run(recipe, override, out=folder, quiet=True)
    monkeypatch.setattr(experiment, "work", lambda *_: pytest.fail("a stage was done again"))
    monkeypatch.setattr(Lab, "score", lambda *_: pytest.fail("an artefact was evaluated again"))
    assert compress.run(recipe, override, out=folder, quiet=True) == first
    again = compress.run(recipe, override, out=folder, quiet=True, timing="again")
    assert [row.model_copy(update={"latency_ms": {}}) for row in again] == [row.model_copy(update={"latency_ms": {}}) for row in first]
    changed = [row.stage for row, old in zip(again, first, strict=True) if row.latency_ms != old.latency_ms]
    assert changed == ["found", "pruned", "smaller"]
    assert compress.run(recipe, override, out=folder, quiet=True) == again


def test_other_weights_in_the_same_place_are_another_stage(recipe):
    folder = recipe.parent
    assert "found: load: in the cache" in dry_run(recipe, out=folder / "first")
    config = load_recipe(recipe)
    torch.manual_seed(1)
    save(fresh(config.model, config.evaluate), folder / "weights")
    assert "found: load: to do" in dry_run(recipe, out=folder / "first")


def test_initial_weights_of_a_training_are_known_by_what_they_hold(recipe):
    from compress.session import weights_key

    folder = recipe.parent
    shutil.copytree(folder / "weights", folder / "moved")
    assert weights_key(str(folder / "weights")) == weights_key(str(folder / "moved")) != weights_key(str(folder / "weights_pruned"))
    files = [str(folder / name / "model.safetensors") for name in ("weights", "moved", "weights_pruned")]
    assert weights_key(files[0]) == weights_key(files[1]) != weights_key(files[2])
    assert weights_key("https://example.org/resnet18.pth") != weights_key("https://example.org/resnet34.pth")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"checkpoint: weights}": "checkpoint: wieghts}"}, "checkpoint folder with a model.yml"),
        ({"channels: 16": "channels: 32"}, "make them the same"),
    ],
)
def test_what_cannot_be_loaded_is_refused_before_any_work(recipe, wrong, told):
    text = RECIPE
    for old, new in wrong.items():
        text = text.replace(old, new, 1)
    recipe.write_text(text)
    with pytest.raises(CompressError, match=told):
        compress.run(recipe, out=recipe.parent / "out", quiet=True)
    assert not (recipe.parent / "out").exists()


def test_the_last_model_of_a_recipe_is_loaded_and_has_one_row(recipe, monkeypatch):
    monkeypatch.chdir(recipe.parent)
    text = "\n".join(line for line in RECIPE.splitlines() if "prune" not in line and "smaller" not in line)
    (recipe.parent / "outer.yml").write_text(text.replace("checkpoint: weights}", "checkpoint: recipe.yml}"))
    rows = compress.run("outer.yml", quiet=True)
    assert [row.stage for row in rows] == ["found"]
    inner = read(recipe.parent / "experiments" / "recipe")
    assert rows[0].params == inner[-1].params


def test_a_guide_that_the_checkpoint_has_not_starts_afresh_and_loses_characters_with_the_rest(tmp_path):
    parts = {"name": "crnn", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "sequence": "none", "alphabet": "digits"}
    path = tmp_path / "recipe.yml"
    path.write_text("""
model: {name: crnn, backbone: {name: mobilenet_v3_small, width: 0.25}, sequence: none, alphabet: digits,
  guide: {name: nrtr, dims: 24, heads: 2, hidden: 32, layers: 1, longest: 4}}
data: {format: synthetic_lines, train: 8, val: 2, test: 2, height: 32, characters: {characters: "0123"}, words: 1, longest: 3}
evaluate: {height: 32, width: 64}
latency: {input: [1, 3, 32, 64], threads: 1, runtimes: [], rounds: 3}
stages:
  - load: {name: found, checkpoint: unguided}
  - alphabet: {name: fewer, characters: {characters: "0123"}}
  - train: {name: guided, freeze: [backbone], epochs: 1, batch: 4, crop: [32, 64]}
""")
    save(fresh(parts, load_recipe(path).evaluate), tmp_path / "unguided")
    compress.run(path, out=tmp_path / "out", quiet=True)
    before, found, after = (load(tmp_path / place).network.state_dict() for place in ("unguided", "out/found", "out/guided"))
    assert all(torch.equal(before[name], found[name]) for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone"))
    assert not torch.equal(before["head.weight"][:5], after["head.weight"])
    guide = "guide.layer.decoder.classifier.weight"
    assert len(found[guide]) - len(after[guide]) == 10 - 4
