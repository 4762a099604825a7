"""The penalty on whole channel groups, against autograd on its formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compress.checkpoint import Model, fresh
from compress.pruning.groups import find_groups
from compress.recipe import load
from compress.training.group_sparsity import channel_norms, parts_of, pull_groups, shrinkage

TINY = Path(__file__).parents[2] / "end_to_end" / "tiny.yml"


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    recipe = load(TINY)
    made = fresh(recipe.model, recipe.evaluate)
    for module in made.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.1, 1.0)
    return made


def test_gradients_are_those_of_the_formula(model):
    network = model.network
    network.zero_grad()
    penalty = 0.0
    for group in find_groups(model):
        parts = parts_of(group.coupled, torch.device("cpu"))
        norms = channel_norms(group.channels, parts, [part.parameter.index_select(part.dim, part.indices) for part in parts]).detach()
        gamma = 2 ** (4 * (norms.max() - norms) / (norms.max() - norms.min()))
        for part in parts:
            for index, channel in zip(part.indices.tolist(), part.channels.tolist(), strict=True):
                penalty = penalty + 0.5 * gamma[channel] * part.parameter.select(part.dim, index).square().sum()
    penalty.backward()
    expected = {name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pull_groups(model, 1.0)(network, 0.0)
    assert len(expected) > 100
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected.get(name, torch.zeros_like(parameter)), rtol=1e-4, atol=1e-6)


def test_what_belongs_to_a_channel_is_what_goes_with_it(model):
    """Parameters counted over a group's parts are those that removing one of its channels takes, biases and statistics aside."""
    import copy

    from compress.pruning.groups import remove_channels

    cpu = torch.device("cpu")
    for group in find_groups(model)[::6]:
        mine = sum(
            part.parameter.numel() // part.parameter.shape[part.dim] * (part.channels == 1).sum().item()
            for part in parts_of(group.coupled, cpu)
        )
        smaller = model.with_network(copy.deepcopy(model.network))
        remove_channels(smaller, [one for one in find_groups(smaller) if one.name == group.name], {group.name: [1]})

        def weights(network) -> int:
            return sum(parameter.numel() for name, parameter in network.named_parameters() if name.endswith("weight"))

        assert weights(model.network) - weights(smaller.network) == mine


def test_the_weakest_channel_is_pulled_sixteen_times_as_hard():
    gamma = shrinkage(torch.tensor([1.0, 2.0, 5.0]))
    assert gamma[[0, 2]].tolist() == [16, 1]
    assert shrinkage(torch.ones(3)).tolist() == [1, 1, 1]
