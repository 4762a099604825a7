from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compress.checkpoint import fresh
from compress.errors import CompressError
from compress.lab import Lab
from compress.pruning.batch_norm import reestimate
from compress.pruning.groups import kept_layers, widths
from compress.pruning.shrink import shrink
from compress.recipe import load
from compress.stages.prune import Prune

TINY = Path(__file__).parents[2] / "end_to_end" / "tiny.yml"
FEW = {"batches": 1, "batch": 4, "crop": 96}
CRITERIA = ["l1", "l2", "group_norm", "lamp", "bn_scale", "fpgm", "taylor", "hessian", "random"]


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(load(TINY), tmp_path, torch.device("cpu"), lambda _: None, quiet=True)


def network_model(lab: Lab):
    torch.manual_seed(0)
    model = fresh(lab.recipe.model, lab.recipe.evaluate)
    for module in model.network.modules():  # scales that differ, as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.1, 1.0)
    return model


def samples(lab: Lab, model):
    from compress.data.training import TrainingSet

    return TrainingSet(lab.split("train"), model.algorithm.targets, lab.recipe.augment, 96, 0)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_every_criterion_removes_channels_and_leaves_a_network_that_runs_and_trains(lab, criterion, allocation):
    model = network_model(lab)
    before = widths(model.network)
    stage = Prune(ratio=0.5, criterion=criterion, allocation=allocation, **FEW)
    shrink(model, stage, lab)
    after = widths(model.network)
    assert sum(after.values()) < 0.75 * sum(before.values())
    assert all(1 <= after[name] <= before[name] for name in before)
    assert after["probability.up2"] == after["threshold.up2"] == 1
    model.network.train()
    outputs = model.network(torch.randn(2, 3, 96, 96))
    assert all(value.shape == (2, 1, 96, 96) for value in outputs.values())
    sum(value.sum() for value in outputs.values()).backward()


def test_uniform_pruning_keeps_the_share_that_was_asked_for_rounded(lab):
    model = network_model(lab)
    before = widths(model.network)
    shrink(model, Prune(ratio=0.5, criterion="l1", **FEW, round_to=4), lab)
    after = widths(model.network)
    plain = [name for name in before if before[name] > 8 and "squeeze" not in name and "up" not in name]
    assert plain
    assert all(after[name] % 4 == 0 for name in plain)
    assert np.mean([after[name] / before[name] for name in plain]) == pytest.approx(0.5, abs=0.1)


def test_the_training_branch_is_pruned_with_the_rest(lab):
    model = network_model(lab)
    before = widths(model.network)
    shrink(model, Prune(ratio=0.5, criterion="l1", **FEW), lab)
    assert widths(model.network)["threshold.conv.0"] < before["threshold.conv.0"]


def test_scope_backbone_leaves_every_other_layer_its_channels(lab):
    model = network_model(lab)
    before = widths(model.network)
    shrink(model, Prune(ratio=0.5, criterion="l1", **FEW, scope="backbone"), lab)
    after = widths(model.network)
    assert all(after[name] == before[name] for name in before if not name.startswith("backbone."))
    assert sum(after[name] for name in after if name.startswith("backbone.")) < sum(
        before[name] for name in before if name.startswith("backbone.")
    )


def test_protected_layers_keep_their_channels(lab):
    model = network_model(lab)
    before = widths(model.network)
    shrink(model, Prune(ratio=0.5, criterion="l1", **FEW, protect=("neck.*", "*.project.0")), lab)
    after = widths(model.network)
    kept = [name for name in before if name.startswith("neck.") or name.endswith(".project.0")]
    assert len(kept) > 10
    assert all(after[name] == before[name] for name in kept)
    assert sum(after.values()) < sum(before.values())


def test_a_pattern_that_matches_nothing_is_refused(lab):
    with pytest.raises(CompressError, match=r"'nek\.\*' matches no layer"):
        kept_layers(network_model(lab), "model", ("nek.*",))


def test_removed_channels_are_the_least_important_ones(lab):
    """By |gamma|, on a group of one layer whose order is known: what is left is the largest half."""
    model = network_model(lab)
    norm = model.network.threshold.conv[1]
    scales = norm.weight.detach().abs().clone()
    shrink(model, Prune(ratio=0.5, criterion="bn_scale", **FEW), lab)
    left = model.network.threshold.conv[1].weight.detach().abs()
    assert torch.equal(left.sort().values, scales.sort().values[-len(left) :])


def test_reestimated_statistics_are_those_of_the_batches(lab):
    """The first norm sees the stem's output: its mean must be the plain mean over the same seeded batches."""
    from compress.pruning.batch_norm import first_batches

    model = network_model(lab)
    model.network.backbone.stem[1].running_mean.fill_(7.0)
    chosen = samples(lab, model)
    with torch.no_grad():
        seen = [model.network.backbone.stem[0](images).mean((0, 2, 3)) for images, _ in first_batches(chosen, 4, 3, lab)]
    reestimate(model.network, [images for images, _ in first_batches(chosen, 4, 3, lab)])
    assert torch.allclose(model.network.backbone.stem[1].running_mean, torch.stack(seen).mean(0), atol=1e-5)
    assert not model.network.training
    assert model.network.backbone.stem[1].momentum == 0.1
