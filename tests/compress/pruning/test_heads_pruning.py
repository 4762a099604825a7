"""Attention loses whole heads: what is left computes what the network did with those heads silent."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from compress.checkpoint import fresh, load, save
from compress.errors import CompressError
from compress.files import read_tensors, write_tensors
from compress.models.multihead import Attention
from compress.pruning.allocation import uniform
from compress.pruning.attention import Heads, attention_layers
from compress.pruning.criteria import IMPORTANCE, score_channels
from compress.pruning.groups import find_groups, remove_channels, widths
from compress.pruning.simplify import readers_of
from compress.tasks.recognition import EvaluateRecognition
from compress.training.group_sparsity import pull_groups

PPOCR = {
    "v3": ("mobilenet_v1_enhance", "svtr"),
    "v4": ("lcnet_v3_lines", {"name": "svtr", "outputs": 120, "tall": False}),
    "v6 small": ("lcnet_v4_lines_small", "light_svtr"),
    "v6 tiny": ("lcnet_v4_lines_tiny", "separable"),
}


def svtr(backbone="lcnet_v4_lines_tiny", sequence="light_svtr"):
    torch.manual_seed(0)
    config = {"name": "svtr_lcnet", "backbone": backbone, "sequence": sequence, "alphabet": "digits"}
    return fresh(config, EvaluateRecognition(height=48))


def given(model, images):
    with torch.inference_mode():
        return model.network.eval()(images)["probability"]


def batch():
    images = torch.randn(4, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    return images, {"text": torch.randint(1, 11, (4, 8)), "length": torch.tensor([3, 2, 5, 4])}


def test_taking_heads_out_leaves_what_torchs_own_attention_gives_without_them():
    torch.manual_seed(0)
    ours, theirs = Attention(24, 4).eval(), nn.MultiheadAttention(24, 4, batch_first=True).eval()
    nn.init.normal_(ours.qkv.bias)
    pairs = {
        "in_proj_weight": ours.qkv.weight,
        "in_proj_bias": ours.qkv.bias,
        "out_proj.weight": ours.proj.weight,
        "out_proj.bias": ours.proj.bias,
    }
    theirs.load_state_dict(pairs)
    with torch.no_grad():
        theirs.out_proj.weight[:, 6:12] = 0
        theirs.out_proj.weight[:, 18:] = 0
    Heads(ours).prune([3, 1])
    assert (ours.heads, ours.qkv.out_features, ours.proj.in_features) == (2, 36, 12)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_nothing_is_said_of_single_scales_which_have_no_channels():
    model = svtr(*PPOCR["v4"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert find_groups(model)


def test_taking_silent_heads_out_changes_nothing_and_the_rest_comes_back_from_disk(tmp_path):
    model = svtr()
    groups = {group.name: group for group in find_groups(model)}
    heads = [f"sequence.mixer.blocks.{index}.mixer.qkv" for index in range(2)]
    removed = {heads[0]: [0, 5, 6], heads[1]: [2], "sequence.mixer.blocks.0.fc1": [1, 3]}
    with torch.no_grad():
        for name in heads:
            layer = model.network.get_submodule(name)
            nn.init.normal_(layer.bias)
            for head in removed[name]:  # the values of a head are 15 rows of the last third
                layer.weight[240 + 15 * head : 255 + 15 * head], layer.bias[240 + 15 * head : 255 + 15 * head] = 0, 0
        hidden = model.network.get_submodule("sequence.mixer.blocks.0.fc1")
        hidden.weight[[1, 3]], hidden.bias[[1, 3]] = 0, 0
    images, _ = batch()
    expected = given(model, images)
    before = widths(model.network)
    remove_channels(model, list(groups.values()), removed)
    after = widths(model.network)
    lost = {name: before[name] - after[name] for name in before if before[name] != after[name]}
    assert lost == {heads[0]: 3 * 3 * 15, heads[1]: 3 * 15, "sequence.mixer.blocks.0.fc1": 2}
    torch.testing.assert_close(given(model, images), expected, rtol=1e-4, atol=1e-6)
    save(model, tmp_path)
    assert torch.equal(given(load(tmp_path), images), given(model, images))


def test_heads_are_a_group_unless_they_are_protected():
    model = svtr()
    found = {group.name: group for group in find_groups(model)}
    heads = found["sequence.mixer.blocks.1.mixer.qkv"]
    assert (heads.channels, heads.unit, heads.members) == (8, 45, ("sequence.mixer.blocks.1.mixer.qkv",))
    assert readers_of(heads) == []
    protected = [group.name for group in find_groups(model, protect=["*blocks.1.mixer.qkv"])]
    assert "sequence.mixer.blocks.1.mixer.qkv" not in protected
    assert "sequence.mixer.blocks.0.mixer.qkv" in protected
    assert not any(name.startswith("sequence") for name in (group.name for group in find_groups(model, scope="backbone")))
    assert uniform([heads], 0.4, 8) == {heads.name: 5}, "heads are not rounded"


SMALL_NRTR = {
    "name": "nrtr",
    "height": 32,
    "dims": 24,
    "heads": 4,
    "hidden": 20,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "longest": 5,
    "alphabet": "digits",
}


def nrtr():
    torch.manual_seed(0)
    model = fresh(SMALL_NRTR, EvaluateRecognition(height=32))
    with torch.no_grad():  # fresh weights alone give the same characters everywhere
        for parameter in model.network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def test_a_transformer_loses_heads_hidden_channels_and_those_of_its_convolutions(tmp_path):
    model = nrtr()
    groups = {group.name: group for group in find_groups(model)}
    heads = [name for name, group in groups.items() if group.unit > 1]
    assert heads == [
        "encoder.0.mixer.qkv",
        *(f"decoder.blocks.{block}.{name}" for block in range(2) for name in ("mixer.qkv", "look.query")),
    ]
    rest = {name for name in groups if name not in heads}
    assert rest == {"backbone.0", "backbone.3", "encoder.0.feed.0", "decoder.blocks.0.feed.0", "decoder.blocks.1.feed.0"}
    removed = {name: [place % 4, (place + 2) % 4] for place, name in enumerate(heads)} | {name: [0, 5, 6] for name in rest}
    network = model.network
    with torch.no_grad():
        for name in heads:
            _, _, places = list(groups[name].coupled.parts())[-1]
            groups[name].coupled.layer.proj.weight[:, places[removed[name]].flatten()] = 0
        for name in rest:
            layer = network.get_submodule(name)
            layer.weight[[0, 5, 6]], layer.bias[[0, 5, 6]] = 0, 0
        for norm in (network.backbone[2], network.backbone[5]):
            norm.bias.zero_()
    images = torch.randn(2, 3, 32, 64)
    expected = given(model, images)
    assert expected.diff(dim=1).abs().max() > 0.01
    remove_channels(model, list(groups.values()), removed)
    torch.testing.assert_close(given(model, images), expected, rtol=1e-4, atol=1e-5)
    assert all(layer.heads == 2 for layer in attention_layers(network).values())
    save(model, tmp_path)
    assert torch.equal(given(load(tmp_path), images), given(model, images))


@pytest.mark.parametrize("criterion", sorted(IMPORTANCE))
def test_every_criterion_scores_heads(criterion):
    model = svtr()
    groups = [group for group in find_groups(model) if group.unit > 1]
    with torch.no_grad():
        for linear, dim, places in groups[0].coupled.parts():
            linear.weight.index_fill_(dim, places[5], 0)
            if dim == 0:
                linear.bias[places[5]] = 0
    scores = score_channels(model, groups, criterion, iter([batch()]), 0)
    assert {name: score.shape for name, score in scores.items()} == {group.name: (8,) for group in groups}
    for score in scores.values():
        assert score.isfinite().all()
        assert len(score.unique()) > 1
    if criterion not in ("random", "fpgm"):
        assert int(scores[groups[0].name].argmin()) == 5


def test_group_sparsity_pulls_at_all_weights_of_a_head():
    model = svtr()
    pull = pull_groups(model, 1.0)
    for parameter in model.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pull(model.network, 0.0)
    layer = attention_layers(model.network)["sequence.mixer.blocks.0.mixer"]
    heads = next(group for group in find_groups(model) if group.name == "sequence.mixer.blocks.0.mixer.qkv").coupled
    for linear, dim, places in heads.parts():
        ratio = (linear.weight.grad / linear.weight.detach()).movedim(dim, 0)
        strengths = [float(ratio[place].median()) for place in places]
        assert max(strengths) <= 16 * min(strengths) * 1.2
        assert min(strengths) > 0
    assert layer.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("version", sorted(PPOCR))
def test_half_of_every_group_may_go(version, tmp_path):
    model = svtr(*PPOCR[version])
    before = sum(parameter.numel() for parameter in model.network.parameters())
    groups = find_groups(model)
    kept = uniform(groups, 0.5, 1)
    remove_channels(model, groups, {group.name: range(kept[group.name], group.channels) for group in groups})
    assert sum(parameter.numel() for parameter in model.network.parameters()) < 0.35 * before
    assert all(layer.heads == 4 for layer in attention_layers(model.network).values())
    images = torch.randn(2, 3, 48, 88)
    probability = given(model, images)
    torch.testing.assert_close(probability.sum(2), torch.ones(2, 11))
    save(model, tmp_path)
    assert torch.equal(given(load(tmp_path), images), probability)


def test_weights_of_half_a_head_are_refused(tmp_path):
    save(svtr(), tmp_path)
    weights = read_tensors(tmp_path / "model.safetensors")
    name = "sequence.mixer.blocks.0.mixer."
    weights[f"{name}qkv.weight"], weights[f"{name}qkv.bias"] = weights[f"{name}qkv.weight"][:336], weights[f"{name}qkv.bias"][:336]
    weights[f"{name}proj.weight"] = weights[f"{name}proj.weight"][:, :112].contiguous()
    write_tensors(weights, tmp_path / "model.safetensors")
    with pytest.raises(CompressError, match="do not fit together"):
        load(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parts", [PPOCR["v3"], ("lcnet_v4_lines_tiny", "light_svtr")], ids=["svtr", "light_svtr"])
def test_files_of_a_pruned_recogniser_give_what_it_gives(parts, tmp_path):
    """Half pruned, trained for a few steps, and quantized: at three widths and two batch sizes."""
    from compress.exporters.write import write_files
    from compress.quantization.nncf_torch import quantize
    from compress.runtimes import open_file

    model = svtr(*parts)
    groups = find_groups(model)
    scores = score_channels(model, groups, "l1", iter([]), 0)
    kept = uniform(groups, 0.5, 8)
    lost = {group.name: scores[group.name].argsort()[: group.channels - kept[group.name]].tolist() for group in groups}
    remove_channels(model, groups, lost)
    optimizer = torch.optim.AdamW(model.network.parameters(), 1e-3)
    images, targets = batch()
    losses = []
    for _ in range(6):
        loss, _ = model.algorithm.loss(model.network.train()(images, *model.algorithm.extra(targets)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    nn.init.normal_(model.network.head.weight, std=2)  # a few steps alone leave all classes alike
    model.network.eval().requires_grad_(False)
    quantized = quantize(model.network, [images], images[:1], model.algorithm.kept_layers)
    for kind, ours, tolerance in (("float", model, 1e-4), ("int8", model.with_network(quantized, "{}"), 0.02)):
        shown = [np.random.default_rng(0).integers(0, 256, (48, 130, 3), np.uint8)]
        for _, path, _ in write_files(ours, ["onnx", "openvino"], tmp_path / kind, shown):
            runtime = open_file(tmp_path / kind / path, threads=1)
            for lines in (1, 3):
                for width in (40, 96, 200):
                    noise = torch.randn(lines, 3, 48, width, generator=torch.Generator().manual_seed(width))
                    expected = given(ours, noise).numpy()
                    np.testing.assert_allclose(runtime.run(noise.numpy())["probability"], expected, atol=tolerance)
                    assert expected.std() > 5 * tolerance
