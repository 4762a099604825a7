"""LSTMs lose input and hidden channels, each direction its own: what is left computes what the network did with those channels at zero."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import nn

from compress.checkpoint import fresh, load, save
from compress.errors import CompressError
from compress.files import read_tensors, write_tensors
from compress.pruning.criteria import IMPORTANCE, score_channels
from compress.pruning.groups import find_groups, remove_channels, widths
from compress.pruning.recurrent import by_channel, keeps_hidden
from compress.tasks.recognition import EvaluateRecognition

SMALL = {"name": "mobilenet_v3_small", "width": 0.25}


def crnn(**sequence):
    torch.manual_seed(0)
    config = {"name": "crnn", "backbone": SMALL, "sequence": {"name": "bilstm", "hidden": 12, **sequence}, "alphabet": "digits"}
    return fresh(config, EvaluateRecognition(height=32))


@torch.no_grad()
def silence(network: nn.Module, member: str, channels: list[int]) -> None:
    """Let some output channels of a layer give nothing but zero."""
    layer = network.get_submodule(member)
    if isinstance(layer, nn.LSTM):
        for parameter in layer.parameters():
            parameter.view(4, layer.hidden_size, -1)[:, channels] = 0
    elif isinstance(layer, nn.Linear):
        layer.weight[channels], layer.bias[channels] = 0, 0
    else:
        names = [name for name, _ in network.named_modules()]
        norm = network.get_submodule(names[names.index(member) + 1])
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight[channels], norm.bias[channels] = 0, 0
        else:  # of a squeeze-and-excite: its ReLU gives zero
            layer.weight[channels], layer.bias[channels] = 0, 0


@pytest.mark.parametrize("sequence", [{}, {"linear": True}, {"layers": 1}])
def test_taking_silent_channels_out_changes_nothing_and_the_rest_comes_back_from_disk(sequence, tmp_path):
    model = crnn(**sequence)
    for module in model.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    groups = {group.name: group for group in find_groups(model)}
    recurrent = [name for name in groups if name.startswith("sequence")]
    layers = sequence.get("layers", 2)
    assert len(recurrent) == (3 if sequence.get("linear") else 2) * layers
    # Each direction loses a number of its own, and the last convolution, whose readers are LSTMs alone, loses some.
    removed = {name: torch.randperm(groups[name].channels)[: 3 + place].tolist() for place, name in enumerate(recurrent)}
    removed["backbone.trunk.last.0"] = list(range(0, groups["backbone.trunk.last.0"].channels, 3))
    for name, channels in removed.items():
        for member in groups[name].members:
            silence(model.network, member, channels)
    images = torch.randn(3, 3, 32, 80)
    with torch.inference_mode():
        expected = model.network.eval()(images)["probability"]
    before = widths(model.network)
    remove_channels(model, list(groups.values()), removed)
    after = widths(model.network)
    assert {name: before[name] - after[name] for name in removed} == {name: len(channels) for name, channels in removed.items()}
    with torch.inference_mode():
        given = model.network(images)["probability"]
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)
    save(model, tmp_path)
    with torch.inference_mode():
        assert torch.equal(load(tmp_path).network.eval()(images)["probability"], given)


def test_the_graph_is_found_without_changing_the_network():
    model = crnn()
    images = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        expected = model.network.eval()(images)["probability"]
    members = [member for group in find_groups(model) for member in group.members]
    assert "head" not in members
    assert members.count("sequence.layers.0.backwards") == 1
    with torch.inference_mode():
        assert torch.equal(model.network.eval()(images)["probability"], expected)


def test_everything_of_a_hidden_channel_is_in_its_row():
    lstm = nn.LSTM(3, 2)
    for parameter in lstm.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        lstm.weight_ih_l0[[1, 3, 5, 7]] = 1
        lstm.weight_hh_l0[[1, 3, 5, 7]] = 2
        lstm.weight_hh_l0[:, 1] += 4
        lstm.bias_ih_l0[[1, 3, 5, 7]] = 3
    rows = by_channel(lstm.named_parameters(), 2)
    assert rows.shape == (2, 4 * 3 + 4 * 2 + 8 + 4 + 4)
    assert sorted(rows[0].unique().tolist()) == [0, 2, 4], "where it reads the other channel, and where that reads it"
    assert float(rows[1].sum()) == 4 * 3 + 4 * 2 * 2 + 4 * 4 + (4 * 4 + 4 * 2 + 4 * 4) + 4 * 3


@pytest.mark.parametrize("criterion", sorted(IMPORTANCE))
def test_every_criterion_scores_hidden_channels(criterion):
    model = crnn(layers=1)
    groups = [group for group in find_groups(model) if group.name.startswith("sequence")]
    with torch.no_grad():
        silence(model.network, "sequence.layers.0.forwards", [5])
        model.network.get_submodule("sequence.layers.0.forwards").weight_hh_l0[:, 5] = 0
    images = torch.randn(4, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    targets = {"text": torch.randint(1, 11, (4, 16)), "length": torch.tensor([3, 2, 5, 4])}
    scores = score_channels(model, groups, criterion, iter([(images, targets)]), 0)
    assert {name: score.shape for name, score in scores.items()} == {group.name: (12,) for group in groups}
    for score in scores.values():
        assert score.isfinite().all()
        assert len(score.unique()) > 1
    if criterion not in ("random", "fpgm"):
        assert int(scores["sequence.layers.0.forwards"].argmin()) == 5


def test_an_lstm_of_both_directions_at_once_loses_inputs_alone():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.lstm = nn.Linear(4, 6), nn.LSTM(6, 5, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.lstm(self.first(x))[0]

    network = Both()
    assert keeps_hidden(network.lstm)
    assert not keeps_hidden(nn.LSTM(6, 5))
    from compress.pruning.recurrent import PRUNER

    steps = torch.randn(2, 3, 4)
    with torch.no_grad():
        network.first.weight[[0, 4]], network.first.bias[[0, 4]] = 0, 0
    expected = network(steps)
    tp.prune_linear_out_channels(network.first, [0, 4])
    PRUNER.prune_in_channels(network.lstm, [0, 4])
    torch.testing.assert_close(network(steps), expected)


def test_weights_of_a_wider_lstm_are_refused(tmp_path):
    save(crnn(), tmp_path)
    weights = read_tensors(tmp_path / "model.safetensors")
    for name, tensor in list(weights.items()):
        if name.startswith("sequence.layers.0.forwards.") and name.endswith("hh_l0") and tensor.dim() == 2:
            weights[name] = torch.zeros(48, 13)
    write_tensors(weights, tmp_path / "model.safetensors")
    with pytest.raises(CompressError, match=r"the LSTM sequence\.layers\.0\.forwards has \d+ inputs and 13 hidden channels there"):
        load(tmp_path)
