"""Centres of classes: what they add to the loss and teach, what pruning leaves of them, and that they are never shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compress.checkpoint import Model, example_input, fresh, load, save, shipped_bytes
from compress.cost import macs, parameters
from compress.exporters.write import write_files
from compress.models.contract import Line, Sample
from compress.pruning.allocation import uniform
from compress.pruning.classes import keep_classes
from compress.pruning.groups import find_groups, remove_channels
from compress.quantization.nncf_torch import config_json, quantize
from compress.tasks.recognition import EvaluateRecognition
from compress.training.weights import start_from

BACKBONE = {"name": "mobilenet_v3_small", "width": 0.25}
BILSTM = {"name": "crnn", "backbone": BACKBONE, "sequence": {"name": "bilstm", "hidden": 8}, "alphabet": "digits"}
COLUMNS = {"name": "crnn", "backbone": BACKBONE, "sequence": "none", "head": "conv_ctc", "alphabet": "digits"}
SVTR = {"name": "svtr_lcnet", "backbone": "lcnet_v4_lines_tiny", "sequence": "light_svtr", "alphabet": "digits"}
GUIDE = {"name": "sar", "hidden": 8, "keys": 8, "longest": 5}
LOSS = {"loss": {"centre": 0.05}}


def model(config: dict, spread: float = 1.0) -> Model:
    torch.manual_seed(0)
    found = fresh(config, EvaluateRecognition(height=48))
    torch.manual_seed(1)
    if found.network.centres:
        torch.nn.init.normal_(found.network.centres.layer.places.weight, std=spread)
    return found


def batch(algorithm, texts=("12", "", "40775")):
    samples = [algorithm.targets(Sample("a", np.zeros((48, 64, 3), np.uint8), Line(text))) for text in texts]
    targets = {name: torch.from_numpy(np.stack([one[name] for one in samples])) for name in samples[0]}
    return torch.randn(len(texts), 3, 48, 64, generator=torch.Generator().manual_seed(0)), targets


@pytest.mark.parametrize("config", [BILSTM, SVTR | {"guide": GUIDE}], ids=["crnn", "guided"])
def test_the_loss_is_the_mean_distance_from_the_centre_of_the_likeliest_class(config):
    alone, centred = model(config), model(config | LOSS)
    images, targets = batch(centred.algorithm)
    given = []
    centred.network.head.register_forward_pre_hook(lambda _layer, inputs: given.append(inputs[0]))
    outputs = centred.network.train()(images, targets) if "guide" in config else centred.network.train()(images)
    loss, parts = centred.algorithm.loss(outputs, targets)
    steps, logits = given[0].detach().numpy(), outputs["logits"].detach().numpy()
    centres = centred.network.centres.layer.places.weight.detach().numpy()
    lines = []
    for line in (0, 2):  # the second has no text
        each = [((steps[line, step] - centres[logits[line, step].argmax()]) ** 2).sum() for step in range(steps.shape[1])]
        lines.append(np.mean(each))
    assert float(parts["centre"]) == pytest.approx(np.mean(lines), rel=1e-5)
    rest, _ = alone.algorithm.loss(outputs, targets)
    assert float(loss.detach()) == pytest.approx(float(rest.detach()) + 0.05 * np.mean(lines), rel=1e-5)


def test_centres_and_features_are_drawn_together():
    centred = model(BILSTM | LOSS)
    images, targets = batch(centred.algorithm)
    outputs = centred.network.train()(images)
    outputs["centre"].mean().backward()
    places = centred.network.centres.layer.places.weight
    seen = outputs["logits"].argmax(2).unique()
    moved = (places.grad != 0).any(1).nonzero().flatten()
    assert torch.equal(moved, seen)
    assert all(bool(one.grad.any()) for one in centred.network.sequence.parameters() if one.dim() > 1)
    assert centred.network.head.weight.grad is None, "which class is the likeliest is no question of degree"
    before = float(centred.algorithm.loss(outputs, targets)[1]["centre"])
    with torch.no_grad():
        places -= 0.1 * places.grad
    after = centred.algorithm.loss(centred.network(images), targets)[1]["centre"]
    assert float(after) < before


@pytest.mark.parametrize("config", [BILSTM, COLUMNS, SVTR, SVTR | {"guide": GUIDE}], ids=["bilstm", "columns", "svtr", "guided"])
def test_pruning_takes_the_same_channels_as_without_centres_and_their_columns(config, tmp_path):
    alone, centred = model(config), model(config | LOSS)
    groups = {name: find_groups(one) for name, one in (("alone", alone), ("centred", centred))}
    names = [[(group.name, group.members, group.channels) for group in found] for found in groups.values()]
    assert names[0] == names[1]
    kept = uniform(groups["alone"], 0.5, 1)
    removed = {group.name: range(group.channels - kept[group.name]) for group in groups["alone"]}
    whole = centred.network.centres.layer.places.weight.detach().clone()
    remove_channels(alone, groups["alone"], removed)
    remove_channels(centred, groups["centred"], removed)
    images, targets = batch(centred.algorithm)
    with torch.inference_mode():
        expected = alone.network.eval()(images)["probability"]
        assert torch.equal(centred.network.eval()(images)["probability"], expected)
    places = centred.network.centres.layer.places.weight.detach()
    head = centred.network.head[0] if config is COLUMNS else centred.network.head
    assert places.shape == (11, head.weight.shape[1])
    assert places.shape[1] < whole.shape[1]
    columns = [int((whole == column[:, None]).all(0).nonzero()) for column in places.T]
    assert columns == sorted(columns)
    save(centred, tmp_path)
    loaded = load(tmp_path)
    extra = centred.algorithm.extra(targets)
    centred.network.eval().training = loaded.network.eval().training = True
    with torch.inference_mode():
        assert torch.equal(loaded.network(images, *extra)["centre"], centred.network(images, *extra)["centre"])


def test_the_columns_that_go_are_those_of_the_channels_that_go():
    centred = model(BILSTM | LOSS)
    places, weights = (layer.weight.detach().clone() for layer in (centred.network.centres.layer.places, centred.network.head))
    groups = find_groups(centred)
    remove_channels(centred, groups, {"sequence.layers.1.forwards": [0, 5], "sequence.layers.1.backwards": [3]})
    kept = [channel for channel in range(16) if channel not in (0, 5, 8 + 3)]
    assert torch.equal(centred.network.head.weight, weights[:, kept])
    assert torch.equal(centred.network.centres.layer.places.weight, places[:, kept])


def test_fewer_characters_are_fewer_centres(tmp_path):
    centred = model(BILSTM | LOSS)
    whole = centred.network.centres.layer.places.weight.detach().clone()
    keep_classes(centred, centred.algorithm.alphabet, [2, 5])
    places = centred.network.centres.layer.places
    assert torch.equal(places.weight, whole[[0, 2, 5]])
    assert (places.num_embeddings, centred.network.head.out_features) == (3, 3)
    config = centred.config | {"alphabet": {"characters": "14"}}
    save(Model(config, centred.network, fresh(config, centred.evaluate).algorithm, centred.evaluate), tmp_path)
    assert torch.equal(load(tmp_path).network.centres.layer.places.weight, whole[[0, 2, 5]])


def test_centres_count_in_no_size():
    alone, centred = model(SVTR), model(SVTR | LOSS)
    assert shipped_bytes(centred) == shipped_bytes(alone)
    assert macs(centred.network, (1, 3, 48, 64)) == macs(alone.network, (1, 3, 48, 64))
    assert parameters(centred.network) == parameters(alone.network)
    assert sum(one.numel() for one in centred.network.parameters()) - parameters(centred.network) == 11 * 120


@pytest.mark.slow
def test_centres_are_in_no_exported_file(tmp_path):
    alone, centred = model(SVTR), model(SVTR | LOSS)
    files = {}
    for name, one in (("alone", alone), ("centred", centred)):
        ((_, path, _),) = write_files(one, ["torchscript"], tmp_path / name, [np.zeros((48, 64, 3), np.uint8)])
        files[name] = (tmp_path / name / path).read_bytes()
    assert b"centres" not in files["centred"]
    assert weights_in(tmp_path / "centred" / path) == weights_in(tmp_path / "alone" / path)


@pytest.mark.slow
def test_training_in_int8_goes_on_with_centres(tmp_path):
    centred = model(SVTR | LOSS)
    images, targets = batch(centred.algorithm)
    network = quantize(centred.network, [images], example_input(centred), centred.algorithm.kept_layers)
    loss, parts = centred.algorithm.loss(network.train()(images), targets)
    loss.backward()
    assert float(parts["centre"]) > 0
    assert bool(network.centres.layer.places.weight.grad.any())
    int8 = centred.with_network(network, config_json(network))
    save(int8, tmp_path)
    assert torch.equal(load(tmp_path).network.centres.layer.places.weight, network.centres.layer.places.weight)


def weights_in(path: Path) -> dict[str, torch.Size]:
    """Name -> shape of everything that a TorchScript file holds."""
    return {name: tensor.shape for name, tensor in torch.jit.load(path).state_dict().items()}


def test_a_checkpoint_without_centres_starts_a_model_with_them_and_back(tmp_path):
    guided = SVTR | {"guide": GUIDE}
    save(model(guided), tmp_path / "alone")
    centred = model(guided | LOSS)
    torch.nn.init.ones_(centred.network.head.weight)
    own = centred.network.centres.layer.places.weight.detach().clone()
    started = start_from(centred, str(tmp_path / "alone")).network.state_dict()
    assert torch.equal(started.pop("centres.layer.places.weight"), own)
    expected = model(guided).network.state_dict()
    assert started.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in started.items()), "the guide's weights come, too"
    save(centred, tmp_path / "centred")
    back = start_from(model(guided), str(tmp_path / "centred")).network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.items())
