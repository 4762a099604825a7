"""Stage `alphabet`: scores of the characters that stay, what is left of the model, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import compress
from compress.checkpoint import fresh, load, save
from compress.errors import CompressError
from compress.plan import plan
from compress.pruning.classes import keep_classes
from compress.recipe import load as load_recipe
from compress.stages.alphabet import KeepCharacters, places
from compress.tasks.recognition import EvaluateRecognition

MODEL = {"name": "crnn", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "sequence": "none"}
RECIPE = """
model: {name: crnn, backbone: {name: mobilenet_v3_small, width: 0.25}, sequence: none, alphabet: alphanumeric}
data: {format: synthetic_lines, train: 8, val: 4, test: 4, height: 32, characters: digits, words: 1, longest: 4}
evaluate: {height: 32, width: 96}
latency: {input: [1, 3, 32, 96], threads: 1, runtimes: [], rounds: 3}
stages:
  - load: {name: found, checkpoint: weights}
  - alphabet: {name: digits, characters: digits}
  - train: {name: tuned, epochs: 1, batch: 4, crop: [32, 96]}
"""


def stage(characters) -> KeepCharacters:
    return KeepCharacters(name="fewer", characters=characters)


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yml"
    path.write_text(RECIPE)
    config = load_recipe(path)
    save(fresh(config.model, config.evaluate), tmp_path / "weights")
    return path


def test_scores_of_kept_characters_are_unchanged_before_the_softmax():
    torch.manual_seed(0)
    model = fresh({**MODEL, "alphabet": {"characters": "cab 1 "}}, EvaluateRecognition(height=32, width=64))
    image = torch.randn(2, 3, 32, 64)
    model.network.eval().training = True
    before = model.network(image)["logits"].detach()
    alphabet = model.algorithm.alphabet
    kept = places(alphabet, "xba ")
    assert kept == [3, 2, 6]  # as they are wanted, the later space, and not the x that the model does not know
    assert stage({"characters": "xba "}).kept(alphabet).characters == "ba "
    keep_classes(model, alphabet, kept)
    torch.testing.assert_close(model.network(image)["logits"], before[..., [0, *kept]], atol=1e-6, rtol=1e-6)


def test_attention_decoders_keep_start_end_and_unknown():
    class Guided(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.guide = torch.nn.Linear(4, 7), torch.nn.Conv1d(4, 10, 1)
            self.looked_up, self.other = torch.nn.Embedding(10, 3), torch.nn.Linear(4, 10)

    model = fresh({**MODEL, "alphabet": {"characters": "abcdef"}}, EvaluateRecognition(height=32, width=64))
    alphabet = model.algorithm.alphabet
    network = model.network = Guided()
    model.algorithm = model.algorithm.__class__(**{**vars(model.algorithm), "kept_layers": ("head", "guide")})
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    keep_classes(model, alphabet, [2, 5])
    for name, rows in (("head", [0, 2, 5]), ("guide", [0, 2, 5, 7, 8, 9]), ("looked_up", [0, 2, 5, 7, 8, 9]), ("other", range(10))):
        assert torch.equal(network.get_submodule(name).weight, expected[f"{name}.weight"][list(rows)])
    assert (network.head.out_features, network.guide.out_channels, network.looked_up.num_embeddings) == (3, 6, 6)


def test_a_recipe_goes_on_with_the_smaller_alphabet(recipe):
    rows = compress.run(recipe, out=recipe.parent / "out", quiet=True)
    assert [row.stage for row in rows] == ["found", "digits", "tuned", "tuned/last"]
    assert rows[0].params - rows[1].params == 26 * (144 + 1) == rows[0].params - rows[2].params
    whole, smaller = (load(recipe.parent / "out" / name) for name in ("found", "digits"))
    assert smaller.algorithm.alphabet.characters == "0123456789"
    np.testing.assert_array_equal(smaller.network.head.weight.detach(), whole.network.head.weight.detach()[:11])
    assert load(recipe.parent / "out" / "tuned").network.head.out_features == 11
    assert "0123456789" in (recipe.parent / "out" / "recipe.yml").read_text()  # the characters, whatever their name comes to mean


def test_a_plan_counts_the_classes_that_are_left(recipe):
    sizes = {entry["name"]: entry["params"] for entry in plan(recipe, out=recipe.parent / "out")["stages"]}
    assert sizes["found"] - sizes["digits"] == 26 * (144 + 1) == sizes["found"] - sizes["tuned"]


def test_characters_come_from_a_file(tmp_path):
    (tmp_path / "dictionary.txt").write_text("b\nc\n", encoding="utf-8")
    assert stage({"file": str(tmp_path / "dictionary.txt")}).characters == {"characters": "bc "}
    assert stage("digits") == stage({"characters": "0123456789"})


@pytest.mark.parametrize(
    ("characters", "told"),
    [
        ("English", "characters: 'English' is not known"),
        ({"file": "nowhere.txt"}, "there is no file nowhere.txt"),
        ({"characters": "aa"}, "is in the alphabet twice"),
    ],
)
def test_what_is_no_list_of_characters_is_refused(characters, told):
    with pytest.raises(ValueError, match=told):
        stage(characters)


def test_a_model_that_knows_none_of_them_is_refused():
    model = fresh({**MODEL, "alphabet": "digits"}, EvaluateRecognition())
    with pytest.raises(CompressError, match="the model knows none of 'xyz'"):
        stage({"characters": "xyz"}).check(model)


def test_a_model_that_reads_nothing_has_no_characters_to_keep():
    with pytest.raises(CompressError, match="reads no text"):
        stage("en").architecture({"name": "angle"})
