"""Networks run together against each of them alone, to the last bit, and less work for it."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from compress.pruning.batch_norm import reestimate, reestimate_all
from compress.pruning.groups import find_groups, remove_channels
from compress.pruning.together import together
from compress.training.modes import show_all_maps


class Operators(TorchDispatchMode):
    """Counts the operators that are executed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.counts[operator.overloadpacket] += 1
        return operator(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _spoilt_memory(monkeypatch):
    """Memory that is left empty holds no number, where it might hold the right ones by chance."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *given, **named: empty_like(*given, **named).fill_(torch.nan))


def images(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)).to(memory_format=torch.channels_last)


@pytest.fixture
def pruned(tiny_model):
    """A late layer with one, two and five channels less."""
    networks = []
    for count in (1, 2, 5):
        model = tiny_model.with_network(copy.deepcopy(tiny_model.network))
        groups = find_groups(model, "model", ())
        name = next(group.name for group in groups if group.name.startswith("backbone.blocks.8.expand"))
        remove_channels(model, groups, {name: list(range(count))})
        networks.append(model.network)
    return networks


def alone(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return dict(network(images))


def assert_alike(networks: list[nn.Module], images: torch.Tensor) -> None:
    for one, outputs in zip([copy.deepcopy(network) for network in networks], together(networks)(images), strict=True):
        expected = alone(one, images)
        assert expected.keys() == outputs.keys()
        assert all(torch.equal(expected[name], outputs[name]) for name in expected)


@pytest.mark.parametrize("mode", [nn.Module.eval, show_all_maps], ids=["maps", "all_maps"])
def test_pruned_networks_give_what_each_gives_alone_for_less_work(pruned, mode):
    for network in pruned:
        mode(network)
    assert_alike(pruned, images(0))
    with Operators() as each:
        for network in pruned:
            alone(network, images(0))
    with Operators() as shared:
        together(pruned)(images(0))
    convolution = torch.ops.aten.convolution
    assert shared.counts[convolution] < 0.7 * each.counts[convolution]


def test_statistics_are_those_of_each_alone(pruned):
    expected = copy.deepcopy(pruned)
    batches = [images(1), images(2)]
    for network in expected:
        reestimate(network, batches)
    reestimate_all(pruned, batches)
    for mine, theirs in zip(pruned, expected, strict=True):
        assert not mine.training
        state = theirs.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in mine.state_dict().items())


class Odd(nn.Module):
    """A layer of any width after a common one, and between them what is hard to follow."""

    def __init__(self, between: str, width: int) -> None:
        super().__init__()
        self.between = between
        torch.manual_seed(0)
        self.before = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pruned = nn.Conv2d(8, width, 1)
        self.after = nn.Conv2d(width, 8, 1)
        self.grid = None

    def forward(self, images):
        x = self.before(images)
        y = self.after(self.pruned(x))
        if self.between == "adds in place to what is common":
            x += y
        elif self.between == "changes in place what was read":
            x.relu_().mul_(2)
        elif self.between == "writes into a part":
            x[:, :4] += y[:, :4]
        elif self.between == "adds in place to what differs":
            x = y.add_(x)
        elif self.between == "takes as many channels":
            x = x[:, : self.pruned.out_channels].sum(1, keepdim=True) * 2
        elif self.between == "decides by a value":
            x = x * 2 if float(y.mean()) > 0 else x * float(y.mean())
        elif self.between == "takes a common value as a number":
            x = x * float(x.mean()) + len(x.flatten().tolist())
        elif self.between == "keeps a grid":
            if self.grid is None:
                self.grid = torch.arange(x.shape[-1]).float().expand(x.shape[-2:]).contiguous() / 2
            x = x + self.grid
        elif self.between == "fills a canvas":
            canvas = torch.zeros(len(x), 16, *x.shape[2:])
            canvas[:, :8] = x
            canvas[:, 8:] = y
            x = canvas[:, 4:12]
        return {"map": x + y.mean(1, keepdim=True), "common": self.before(images), "view": x.flatten(2)}


BETWEEN = (
    "adds in place to what is common", "changes in place what was read", "writes into a part", "adds in place to what differs",
    "takes as many channels", "decides by a value", "takes a common value as a number", "keeps a grid", "fills a canvas",
)  # fmt: skip


@pytest.mark.parametrize("between", BETWEEN)
def test_what_is_hard_to_follow_is_right_all_the_same(between):
    networks = [Odd(between, width).eval() for width in (6, 6, 3, 5)]
    for seed in (0, 1):
        assert_alike(networks, images(seed))


def test_a_network_that_does_other_things_runs_by_itself_and_counts_a_batch_once():
    networks = [Odd("keeps a grid", 6).train(), Odd("fills a canvas", 6).train(), Odd("adds in place to what differs", 4).train()]
    expected = copy.deepcopy(networks)
    for network in expected:
        alone(network, images(0))
    together(networks)(images(0))
    for mine, theirs in zip(networks, expected, strict=True):
        assert torch.equal(mine.before[1].running_mean, theirs.before[1].running_mean)
        assert mine.before[1].num_batches_tracked == theirs.before[1].num_batches_tracked


def test_results_can_be_written_into_without_touching_those_of_others():
    networks = [Odd("keeps a grid", width).eval() for width in (6, 3)]
    first, second = together(networks)(images(0))
    first["common"].zero_()
    assert torch.equal(second["common"], alone(networks[1], images(0))["common"])
