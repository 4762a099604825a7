"""Networks with an attention decoder lose channels everywhere but in what gives the characters: with silent channels taken out they compute
what they did, with and without a text that they are shown.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.checkpoint import fresh, load, save
from compress.models.cells import Gate
from compress.models.layers import Unrolled
from compress.pruning.classes import keep_classes
from compress.pruning.criteria import IMPORTANCE, score_channels
from compress.pruning.groups import find_groups, remove_channels, widths
from compress.tasks.recognition import EvaluateRecognition

CONFIGS = {
    "crnn": {
        "name": "crnn",
        "backbone": {"name": "mobilenet_v3_small", "width": 0.25},
        "sequence": {"name": "bilstm", "hidden": 8},
        "head": {"name": "attention", "hidden": 12, "longest": 4},
    },
    "sar": {"name": "sar", "backbone": {"name": "resnet31", "width": 0.125}, "hidden": 12, "keys": 10, "longest": 4},
}


def model(name: str):
    """With large weights, so that each step gives something else."""
    torch.manual_seed(0)
    found = fresh({**CONFIGS[name], "alphabet": "digits"}, EvaluateRecognition(height=32))
    torch.manual_seed(1)
    for part in (found.network.decoder, found.network.keys):
        for parameter in part.parameters():
            nn.init.normal_(parameter)
    with torch.no_grad():
        found.network.decoder.classifier.weight[:, 12:] /= 20  # what SAR looks at, many times as large as its state
    for norm in found.network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.0)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return found


def outputs(network: nn.Module) -> list[torch.Tensor]:
    """Of three lines, read and shown."""
    images = torch.randn(3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    targets = {"characters": torch.tensor([[1, 5, 2, 12, 0], [3, 3, 3, 3, 12], [12, 0, 0, 0, 0]])}
    network.eval()
    with torch.inference_mode():
        read = network(images)["probability"]
        network.training = True
        return [read, network(images, targets)["logits"]]


@torch.no_grad()
def silence(network: nn.Module, member: str, channels: list[int]) -> None:
    """Let some output channels of a layer give nothing but zero; of a gate, let what it adds be zero."""
    layer = network.get_submodule(member)
    if isinstance(layer, nn.LSTM):
        for parameter in layer.parameters():
            parameter.view(4, layer.hidden_size, -1)[:, channels] = 0
        return
    names = [name for name, _ in network.named_modules()]
    following = network.get_submodule(names[names.index(member) + 1])
    silent = following if isinstance(following, nn.BatchNorm2d) else layer
    silent.weight[channels] = 0
    if silent.bias is not None:
        silent.bias[channels] = 0


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_taking_silent_channels_out_changes_nothing_and_the_rest_comes_back_from_disk(name, tmp_path):
    ours = model(name)
    groups = find_groups(ours)
    assert all(module.steps == 5 for module in ours.network.modules() if isinstance(module, Unrolled))
    members = {member for group in groups for member in group.members}
    layers = dict(ours.network.named_modules())
    # What is not in a group gives the characters, one weight for a place, or the first that the decoder reads.
    kept = {"decoder.classifier", "decoder.attention.score.layer", "encoder.linear.layer"}
    assert set(widths(ours.network)) - members <= kept
    assert "decoder.classifier" not in members
    counts = [1 + place % (group.channels // 2) for place, group in enumerate(groups)]
    removed = {group.name: torch.randperm(group.channels)[:count].tolist() for group, count in zip(groups, counts, strict=True)}
    for group in groups:
        for member in group.members:
            silence(ours.network, member, removed[group.name])
    expected = outputs(ours.network)
    assert float(expected[0].std(1).max()) > 0.02, "steps must differ for this to show anything"
    before = widths(ours.network)
    remove_channels(ours, groups, removed)
    after = widths(ours.network)
    for group in groups:
        for member in group.members:
            assert before[member] - after[member] == len(removed[group.name])
    gates = [module for module in layers.values() if isinstance(module, Gate)]
    assert all(gate.state.in_features == gate.state.out_features < 12 for gate in gates)
    given = outputs(ours.network)
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    save(ours, tmp_path)
    for one, other in zip(outputs(load(tmp_path).network), given, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", sorted(IMPORTANCE))
def test_every_criterion_scores_the_state_of_a_decoder(criterion):
    ours = model("crnn")
    groups = [group for group in find_groups(ours) if group.name.startswith("decoder.cell")]
    (group,) = groups
    with torch.no_grad():
        for member in group.members:
            layer = ours.network.get_submodule(member)
            layer.weight[5], layer.bias[5] = 0, 0
            if member.endswith("state"):
                layer.weight[:, 5] = 0
        for reader in (ours.network.decoder.attention.query, ours.network.decoder.classifier):
            reader.weight[:, 5] = 0
    images = torch.randn(4, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    targets = {"characters": torch.randint(1, 11, (4, 5))}
    (score,) = score_channels(ours, groups, criterion, iter([(images, targets)]), 0).values()
    assert score.shape == (12,)
    assert score.isfinite().all()
    assert len(score.unique()) > 1
    if criterion not in ("random", "fpgm"):
        assert int(score.argmin()) == 5


@pytest.mark.parametrize("name", [*CONFIGS, "convolutions"])
def test_fewer_characters_are_read_as_before(name):
    """The decoder starts from the start, whose class has moved, and the scores of what is left are what they were."""
    if name == "convolutions":
        torch.manual_seed(0)
        config = {**CONFIGS["crnn"], "sequence": "none", "head": "conv_ctc", "alphabet": "digits"}
        ours, images = fresh(config, EvaluateRecognition(height=32)), torch.randn(3, 3, 32, 64)
        nn.init.uniform_(ours.network.head[1].running_mean)
        before = ours.network.eval()(images)["probability"].detach()
        keep_classes(ours, ours.algorithm.alphabet, [3, 7])
        after = ours.network(images)["probability"].detach()
        rows = [0, 3, 7]
        torch.testing.assert_close(after, before[..., rows] / before[..., rows].sum(2, keepdim=True))
        return
    ours = model(name)
    images = torch.randn(3, 3, 32, 64)
    rows = [0, 3, 7, 11, 12, 13]
    never = [row for row in range(14) if row not in rows]
    with torch.no_grad():
        ours.network.decoder.classifier.bias[never] = -100  # what is never read
    before = ours.network.eval()(images)["probability"].detach()
    assert float(before.std(1).max()) > 0.02
    keep_classes(ours, ours.algorithm.alphabet, [3, 7])
    torch.testing.assert_close(ours.network(images)["probability"].detach(), before[..., rows])
