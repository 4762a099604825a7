"""What `Algorithm` promises of every architecture: its outputs, layers, targets and input are what it says they are."""

from __future__ import annotations

from dataclasses import fields, replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch

from compress.models.contract import Algorithm, Classification, Detections, Label, Line, Sample, Transcription, Words
from compress.models.registry import MODELS, build
from compress.tasks import TASKS
from compress.training.distillation import DIVERGENCES
from compress.training.features import matching_layers

BACKBONE = {"name": "resnet18", "width": 0.125}
SMALL = {
    "angle": {"name": "angle", "width": 0.1},
    "craft": {"name": "craft", "width": 0.1},
    "crnn": {"name": "crnn", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "sequence": {"name": "bilstm", "hidden": 8}},
    "crnn with attention": {
        "name": "crnn",
        "backbone": {"name": "mobilenet_v3_small", "width": 0.25},
        "sequence": "none",
        "head": {"name": "attention", "hidden": 8, "longest": 5},
    },
    "crnn with a guide": {
        "name": "crnn",
        "backbone": {"name": "mobilenet_v3_small", "width": 0.25},
        "sequence": "none",
        "guide": {"name": "nrtr", "dims": 16, "heads": 2, "hidden": 16, "layers": 1, "longest": 5},
    },
    "crnn with convolutions": {"name": "crnn", "backbone": {"name": "resnet31", "width": 0.125}, "sequence": "none", "head": "conv_ctc"},
    "db": {"name": "db", "backbone": BACKBONE, "neck": {"name": "fpn", "channels": 16}},
    "nrtr": {
        "name": "nrtr",
        "dims": 16,
        "heads": 2,
        "hidden": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "longest": 5,
    },
    "pan": {"name": "pan", "backbone": BACKBONE, "neck": {"name": "fpem_ffm", "channels": 8, "repeats": 1}},
    "psenet": {"name": "psenet", "backbone": BACKBONE, "neck": {"name": "fpn", "channels": 16}},
    "sar": {"name": "sar", "backbone": {"name": "resnet31", "width": 0.125}, "hidden": 8, "keys": 8, "longest": 5},
    "sast": {"name": "sast", "backbone": BACKBONE, "neck": {"name": "cab_fpn", "channels": 16, "blocks": 1}},
    "svtr_lcnet": {"name": "svtr_lcnet", "alphabet": "digits"},
}


def height_of(algorithm: Algorithm, wanted: int) -> int:
    """The wanted height, or that of the model where it takes one alone, as recognisers do whose features are one row."""
    step, _ = algorithm.input.multiple
    return step if step == algorithm.input.example[0] else wanted


def truth(algorithm: Algorithm) -> object:
    """What its task asks for of an image of 64 x 96 pixels."""
    if algorithm.labels:
        return Label(algorithm.labels[-1])
    if algorithm.alphabet:
        return Line(algorithm.alphabet.characters[:5])
    boxes = [np.float32([[8, 8], [56, 8], [56, 32], [8, 32]]), np.float32([[60, 36], [92, 36], [92, 60], [60, 60]])]
    return Words(boxes, np.array([False, True]), ["word", "###"])


def batch(algorithm: Algorithm) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two images at random, and their targets as they are made."""
    rng = np.random.default_rng(0)
    size = (height_of(algorithm, 64), 96)
    made = [algorithm.targets(Sample(str(n), rng.integers(0, 256, (*size, 3), np.uint8), truth(algorithm))) for n in range(2)]
    targets = {name: torch.from_numpy(np.stack([one[name] for one in made])) for name in made[0]}
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)), targets


@pytest.fixture(scope="module", params=sorted(SMALL))
def algorithm(request) -> Algorithm:
    torch.manual_seed(0)
    found = build(SMALL[request.param])
    network = found.network()
    return replace(found, network=lambda: network)


def test_every_architecture_is_looked_at():
    assert {config["name"] for config in SMALL.values()} == MODELS.keys()


def test_the_loss_casts_what_it_needs_and_targets_keep_their_integers(algorithm):
    images, targets = batch(algorithm)
    outputs = algorithm.network().train()(images, *algorithm.extra(targets))
    total, parts = algorithm.loss(outputs, targets)
    assert total.shape == ()
    assert total.isfinite()
    assert parts
    assert any(not tensor.is_floating_point() for tensor in targets.values())
    if not algorithm.labels and not algorithm.alphabet:  # classes are integers and nothing else; maps are what they are in any type
        floats = {name: tensor.float() for name, tensor in targets.items()}
        assert torch.equal(algorithm.loss(outputs, floats)[0], total)
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in algorithm.network().parameters())


def test_what_is_copied_and_what_is_kept_is_there(algorithm):
    images, _ = batch(algorithm)
    network = algorithm.network().train()
    with torch.no_grad():
        outputs = network(images)
    assert algorithm.copies.keys() <= outputs.keys()
    assert set(algorithm.copies.values()) <= DIVERGENCES.keys()
    for name, divergence in algorithm.copies.items():
        if divergence == "dice":
            assert 0 <= float(outputs[name].min()) <= float(outputs[name].max()) <= 1
    layers = [name for name, module in network.named_modules() if not list(module.children())]
    assert algorithm.kept_layers
    for pattern in algorithm.kept_layers:
        assert any(fnmatchcase(name, pattern) for name in layers), pattern
    assert matching_layers(network, algorithm.features)


def test_the_same_outputs_are_given_without_targets(algorithm):
    images, targets = batch(algorithm)
    network = algorithm.network().train()
    with torch.no_grad():
        shown, alone = network(images, *algorithm.extra(targets)), network(images)
    assert {name: tensor.shape for name, tensor in shown.items()} == {name: tensor.shape for name, tensor in alone.items()}


def test_the_settings_have_defaults_and_what_is_tuned_is_among_them(algorithm):
    defaults = algorithm.settings()
    known = {field.name for field in fields(defaults)}
    assert algorithm.tunable.keys() <= known
    for name, values in algorithm.tunable.items():
        for value in values:
            assert getattr(replace(defaults, **{name: value}), name) == value


def test_an_example_is_a_usual_input_and_outputs_are_read(algorithm):
    wanted, task = algorithm.input, TASKS[algorithm.task]
    assert all(side % step == 0 for side, step in zip(wanted.example, wanted.multiple, strict=True))
    assert all(side % step == 0 for side, step in zip(task.crop, wanted.multiple, strict=True))
    assert all(side % step == 0 for side, step in zip(task.size(task.evaluate(), wanted), wanted.multiple, strict=True))
    height, width = height_of(algorithm, 4 * wanted.multiple[0]), 4 * wanted.multiple[1]
    with torch.inference_mode():
        outputs = algorithm.network().eval()(torch.randn(2, 3, height, width))
    sizes = [(height, width), (2 * height, 2 * width)]
    found = algorithm.decode({name: tensor.numpy() for name, tensor in outputs.items()}, sizes, algorithm.settings())
    kind = Classification if algorithm.labels else Transcription if algorithm.alphabet else Detections
    assert [type(one) for one in found] == [kind] * 2
