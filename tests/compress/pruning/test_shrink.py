from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.errors import CompressError
from compress.lab import Lab
from compress.pruning import criteria
from compress.pruning.batch_norm import first_batches, move_statistics, observed, reestimate
from compress.pruning.criteria import score_channels
from compress.pruning.groups import find_groups, kept_layers, widths
from compress.pruning.shrink import shrink
from compress.stages.prune import Prune

pytestmark = pytest.mark.slow

FEW = {"batches": 1, "batch": 4, "crop": 96}
CRITERIA = ["l1", "l2", "group_norm", "lamp", "bn_scale", "fpgm", "taylor", "hessian", "random"]


def samples(lab: Lab, tiny_model):
    from compress.data.training import TrainingSet

    return TrainingSet(lab.split("train"), tiny_model.algorithm, lab.recipe.augment, (96, 96), 0)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_every_criterion_removes_channels_and_leaves_a_network_that_runs_and_trains(tiny_model, lab, criterion, allocation):
    before = widths(tiny_model.network)
    stage = Prune(ratio=0.5, criterion=criterion, allocation=allocation, **FEW)
    shrink(tiny_model, stage, lab)
    after = widths(tiny_model.network)
    assert sum(after.values()) < 0.75 * sum(before.values())
    assert all(1 <= after[name] <= before[name] for name in before)
    assert after["probability.up2"] == after["threshold.up2"] == 1
    tiny_model.network.train()
    outputs = tiny_model.network(torch.randn(2, 3, 96, 96))
    assert all(value.shape == (2, 1, 96, 96) for value in outputs.values())
    sum(value.sum() for value in outputs.values()).backward()


def test_gradients_of_a_large_batch_are_taken_in_parts_and_are_those_of_the_whole(tiny_model, lab, monkeypatch):
    """Of a batch of equal images, whose loss is that of each of them."""
    ((images, targets),) = first_batches(samples(lab, tiny_model), 4, 1, lab)
    one = int(targets["shrink"].sum(dim=(1, 2, 3), dtype=torch.int64).argmax())  # of which there is something to learn
    repeated = {name: tensor[one : one + 1].repeat(5, *[1] * (tensor.dim() - 1)) for name, tensor in {**targets, "image": images}.items()}
    batch = repeated.pop("image"), repeated
    reestimate(tiny_model.network, [images])
    groups, seen = find_groups(tiny_model, "model", ()), []
    tiny_model.network.register_forward_pre_hook(lambda _module, given: seen.append(len(given[0])))

    def scores() -> dict[str, torch.Tensor]:
        counted: list[int] = []
        found = score_channels(tiny_model, groups, "taylor", iter([batch]), 0, counted.append)
        assert sum(counted) == 5
        return found

    whole = scores()
    monkeypatch.setattr(criteria, "MOST_PIXELS", 2 * 96 * 96 + 1)
    in_parts = scores()
    assert seen == [5, 2, 2, 1]
    assert any(score.abs().sum() > 0 for score in whole.values())
    for name, score in whole.items():
        torch.testing.assert_close(in_parts[name], score, rtol=1e-3, atol=1e-6)


def test_uniform_pruning_keeps_the_share_that_was_asked_for_rounded(tiny_model, lab):
    before = widths(tiny_model.network)
    shrink(tiny_model, Prune(ratio=0.5, criterion="l1", **FEW, round_to=4), lab)
    after = widths(tiny_model.network)
    plain = [name for name in before if before[name] > 8 and "squeeze" not in name and "up" not in name]
    assert plain
    assert all(after[name] % 4 == 0 for name in plain)
    assert np.mean([after[name] / before[name] for name in plain]) == pytest.approx(0.5, abs=0.1)


def test_the_training_branch_is_pruned_with_the_rest(tiny_model, lab):
    before = widths(tiny_model.network)
    shrink(tiny_model, Prune(ratio=0.5, criterion="l1", **FEW), lab)
    assert widths(tiny_model.network)["threshold.conv.0"] < before["threshold.conv.0"]


def test_scope_backbone_leaves_every_other_layer_its_channels(tiny_model, lab):
    before = widths(tiny_model.network)
    shrink(tiny_model, Prune(ratio=0.5, criterion="l1", **FEW, scope="backbone"), lab)
    after = widths(tiny_model.network)
    assert all(after[name] == before[name] for name in before if not name.startswith("backbone."))
    assert sum(after[name] for name in after if name.startswith("backbone.")) < sum(
        before[name] for name in before if name.startswith("backbone.")
    )


def test_protected_layers_keep_their_channels(tiny_model, lab):
    before = widths(tiny_model.network)
    shrink(tiny_model, Prune(ratio=0.5, criterion="l1", **FEW, protect=("neck.*", "*.project.0")), lab)
    after = widths(tiny_model.network)
    kept = [name for name in before if name.startswith("neck.") or name.endswith(".project.0")]
    assert len(kept) > 10
    assert all(after[name] == before[name] for name in kept)
    assert sum(after.values()) < sum(before.values())


def test_a_pattern_that_matches_nothing_is_refused(tiny_model):
    with pytest.raises(CompressError, match=r"'nek\.\*' matches no layer"):
        kept_layers(tiny_model, "model", ("nek.*",))


def test_removed_channels_are_the_least_important_ones(tiny_model, lab):
    """By |gamma|, on a group of one layer whose order is known: what is left is the largest half."""
    norm = tiny_model.network.threshold.conv[1]
    scales = norm.weight.detach().abs().clone()
    shrink(tiny_model, Prune(ratio=0.5, criterion="bn_scale", **FEW), lab)
    left = tiny_model.network.threshold.conv[1].weight.detach().abs()
    assert torch.equal(left.sort().values, scales.sort().values[-len(left) :])


def test_reestimated_statistics_are_those_of_the_batches(tiny_model, lab):
    """The first norm sees the stem's output: its mean must be the plain mean over the same seeded batches."""
    tiny_model.network.backbone.stem[1].running_mean.fill_(7.0)
    chosen = samples(lab, tiny_model)
    with torch.no_grad():
        seen = [tiny_model.network.backbone.stem[0](images).mean((0, 2, 3)) for images, _ in first_batches(chosen, 4, 3, lab)]
    reestimate(tiny_model.network, [images for images, _ in first_batches(chosen, 4, 3, lab)])
    assert torch.allclose(tiny_model.network.backbone.stem[1].running_mean, torch.stack(seen).mean(0), atol=1e-5)
    assert not tiny_model.network.training
    assert tiny_model.network.backbone.stem[1].momentum == 0.1


def statistics(network: torch.nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    norms = {name: module for name, module in network.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    return {name: (norm.running_mean.clone(), norm.running_var.clone()) for name, norm in norms.items()}


def assert_near(given: dict, expected: dict) -> None:
    for name, pair in expected.items():
        for one, other in zip(given[name], pair, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.fixture
def few(tiny_model, lab) -> list[torch.Tensor]:
    return [images for images, _ in first_batches(samples(lab, tiny_model), 4, 2, lab)]


def test_statistics_stay_where_nothing_was_pruned(tiny_model, few):
    for module in tiny_model.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    before = statistics(tiny_model.network)
    move_statistics(tiny_model.network, observed(tiny_model.network, few), few)
    assert_near(statistics(tiny_model.network), before)


def test_statistics_of_the_very_batches_become_what_reestimation_gives(tiny_model, lab, few):
    reestimate(tiny_model.network, few)
    stage = Prune(ratio=0.5, criterion="l1", **{**FEW, "batches": 2})
    shrink(tiny_model, stage, lab)
    moved = statistics(tiny_model.network)
    reestimate(tiny_model.network, few)
    assert_near(moved, statistics(tiny_model.network))


def test_what_a_norm_counts_on_beside_the_batches_is_kept_through_pruning(tiny_model, lab, few):
    """Held statistics that are off by an offset and a factor of every channel are off by the same after it."""
    reestimate(tiny_model.network, few)
    plain = statistics(tiny_model.network)
    last = "threshold.conv.1"  # nothing but the threshold map reads it, so that its own statistics move no other's
    norm = tiny_model.network.get_submodule(last)
    norm.running_mean += torch.arange(len(norm.running_mean))
    norm.running_var *= 3
    gammas = norm.weight.detach().clone()
    shrink(tiny_model, Prune(ratio=0.5, criterion="l1", **{**FEW, "batches": 2}), lab)
    norm = tiny_model.network.get_submodule(last)
    kept = [int((gammas == gamma).nonzero()) for gamma in norm.weight.detach()]
    given = statistics(tiny_model.network)
    reestimate(tiny_model.network, few)
    seen = statistics(tiny_model.network)
    torch.testing.assert_close(given[last][0], seen[last][0] + torch.tensor(kept), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(given[last][1], seen[last][1] * 3, rtol=1e-3, atol=1e-3)
    assert len(plain[last][0]) > len(kept) > 1
