"""Guides: a second head in training alone, what it teaches, and what is left of it in files: nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.checkpoint import fresh, load, save, shipped_bytes
from compress.cost import macs, parameters
from compress.errors import CompressError
from compress.models.contract import Line, Sample
from compress.models.networks.attention import character_loss
from compress.models.networks.ctc import ctc_loss
from compress.models.registry import build, check_parts
from compress.pruning.allocation import uniform
from compress.pruning.classes import keep_classes
from compress.pruning.groups import find_groups, remove_channels
from compress.tasks.recognition import EvaluateRecognition
from compress.training.weights import soften, start_from

GUIDES = {
    "nrtr": {"name": "nrtr", "dims": 16, "heads": 2, "hidden": 16, "layers": 1, "longest": 5, "dropout": 0.0},
    "sar": {"name": "sar", "hidden": 8, "keys": 8, "longest": 5},
}
CRNN = {"name": "crnn", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "sequence": "none", "alphabet": "digits"}
SVTR = {"name": "svtr_lcnet", "backbone": "lcnet_v4_lines_tiny", "sequence": "light_svtr", "alphabet": "digits"}


def model(guide: str | dict | None = None, config: dict | None = None):
    torch.manual_seed(0)
    told = {"guide": GUIDES.get(guide, guide) if isinstance(guide, str) else guide} if guide else {}
    return fresh((config or CRNN) | told, EvaluateRecognition(height=48))


def batch(algorithm, texts=("12", "7", "40775")):
    samples = [algorithm.targets(Sample("a", np.zeros((48, 64, 3), np.uint8), Line(text))) for text in texts]
    return torch.randn(len(texts), 3, 48, 64), {name: torch.from_numpy(np.stack([one[name] for one in samples])) for name in samples[0]}


@pytest.mark.parametrize("config", [CRNN, SVTR], ids=["crnn", "svtr_lcnet"])
@pytest.mark.parametrize("guide", sorted(GUIDES))
def test_a_guide_changes_nothing_at_inference_and_is_never_shipped(config, guide):
    alone, guided = model(None, config), model(guide, config)
    images, targets = batch(guided.algorithm)
    with torch.inference_mode():
        expected, found = alone.network.eval()(images), guided.network.eval()(images)
    assert found.keys() == expected.keys() == {"probability"}
    assert torch.equal(found["probability"], expected["probability"])
    assert parameters(guided.network) == parameters(alone.network) < sum(one.numel() for one in guided.network.parameters())
    assert shipped_bytes(guided) == shipped_bytes(alone)
    assert macs(guided.network, (1, 3, 48, 64)) == macs(alone.network, (1, 3, 48, 64))
    outputs = guided.network.train()(images, targets)
    assert outputs["guide"].shape == (3, 6, 14)
    assert set(guided.algorithm.copies) <= set(outputs)
    loss, parts = guided.algorithm.loss(outputs, targets)
    ctc, _ = ctc_loss(outputs, targets)
    smoothing = 0.1 if guide == "nrtr" else 0.0
    taught = character_loss(outputs["guide"], targets["characters"], smoothing)
    torch.testing.assert_close(loss, ctc + taught)
    assert {name: float(part) for name, part in parts.items()} == {"ctc": float(ctc.detach()), "guide": float(taught.detach())}


@pytest.mark.parametrize(("gradient", "reached"), [("guide", {"guide"}), ("both", {"guide", "ctc"})])
def test_what_teaches_the_backbone(gradient, reached):
    guided = model(GUIDES["nrtr"] | {"gradient": gradient})
    images, targets = batch(guided.algorithm)
    teaching = set()
    for name, loss in (
        ("ctc", ctc_loss),
        ("guide", lambda outputs, targets: (character_loss(outputs["guide"], targets["characters"]), {})),
    ):
        guided.network.zero_grad(set_to_none=True)
        loss(guided.network.train()(images, targets), targets)[0].backward()
        if any(parameter.grad is not None for parameter in guided.network.backbone.parameters()):
            teaching.add(name)
        assert all(parameter.grad is None for parameter in guided.network.guide.parameters()) == (name == "ctc")
        assert all(parameter.grad is None for parameter in guided.network.head.parameters()) == (name == "guide")
    assert teaching == reached


@pytest.mark.parametrize("guide", sorted(GUIDES))
def test_pruning_narrows_what_the_guide_reads_and_nothing_else_of_it(guide, tmp_path):
    guided = model(guide, SVTR)
    before = {name: parameter.numel() for name, parameter in guided.network.guide.named_parameters()}
    groups = find_groups(guided)
    assert not any(member.startswith("guide") for group in groups for member in group.members)
    kept = uniform(groups, 0.5, 1)
    remove_channels(guided, groups, {group.name: range(kept[group.name], group.channels) for group in groups})
    after = {name: parameter.numel() for name, parameter in guided.network.guide.named_parameters()}
    narrower = {name for name, count in before.items() if after[name] < count}
    read = {"nrtr": {"narrow.weight"}, "sar": {"keys.weight", "encoder.first.weight_ih_l0", "decoder.classifier.weight"}}[guide]
    assert narrower == {f"layer.{name}" for name in read}
    images, targets = batch(guided.algorithm)
    loss, _ = guided.algorithm.loss(guided.network.train()(images, targets), targets)
    loss.backward()
    save(guided, tmp_path)
    loaded = load(tmp_path)
    guided.network.eval().training = loaded.network.eval().training = True
    with torch.inference_mode():
        assert torch.equal(loaded.network(images, targets)["guide"], guided.network(images, targets)["guide"])


def test_weights_go_from_a_model_without_a_guide_into_one_with_and_back(tmp_path):
    save(model(), tmp_path / "alone")
    torch.manual_seed(1)
    guided = fresh(CRNN | {"guide": GUIDES["nrtr"]}, EvaluateRecognition(height=48))
    own = guided.network.guide.layer.narrow.weight.clone()
    guided = start_from(guided, str(tmp_path / "alone"))
    images, _ = batch(guided.algorithm)
    with torch.inference_mode():
        expected = model().network.eval()(images)["probability"]
        assert torch.equal(guided.network.eval()(images)["probability"], expected)
    assert torch.equal(guided.network.guide.layer.narrow.weight, own)
    save(guided, tmp_path / "guided")
    torch.manual_seed(2)
    again = start_from(fresh(CRNN, EvaluateRecognition(height=48)), str(tmp_path / "guided"))
    with torch.inference_mode():
        assert torch.equal(again.network.eval()(images)["probability"], expected)
    groups = find_groups(again)
    remove_channels(again, groups, {groups[0].name: [0]})
    save(again, tmp_path / "pruned")
    with pytest.raises(CompressError, match="is pruned or quantized, and cannot be given another guide or centres"):
        start_from(fresh(CRNN | {"guide": GUIDES["nrtr"]}, EvaluateRecognition(height=48)), str(tmp_path / "pruned"))


def test_fewer_characters_and_a_temperature_reach_the_guide_s_classifier_alone():
    guided = model("nrtr")
    before = {name: parameter.detach().clone() for name, parameter in guided.network.named_parameters()}
    soften(guided, 2.0)
    changed = {name for name, parameter in guided.network.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed <= {f"{layer}.{kind}" for layer in ("head", "guide.layer.decoder.classifier") for kind in ("weight", "bias")}
    assert "guide.layer.decoder.classifier.weight" in changed
    keep_classes(guided, guided.algorithm.alphabet, [2, 5])
    decoder = guided.network.guide.layer.decoder
    assert (guided.network.head.out_features, decoder.classifier.out_features, decoder.embedding.num_embeddings) == (3, 6, 6)
    assert torch.equal(decoder.embedding.weight, before["guide.layer.decoder.embedding.weight"][[0, 2, 5, 11, 12, 13]])


def test_what_cannot_be_guided_is_named():
    with pytest.raises(ValueError, match=r"model\.guide: a guide teaches a recogniser with CTC"):
        build(CRNN | {"head": "attention", "guide": "nrtr"})
    with pytest.raises(ValueError, match=r"model\.guide: 'ntr' is not known; did you mean 'nrtr'"):
        build(CRNN | {"guide": "ntr"})
    with pytest.raises(ValueError, match=r"model\.guide\.layers: input should be greater than or equal to 1, not 0"):
        check_parts(CRNN | {"guide": {"name": "nrtr", "layers": 0}})
    with pytest.raises(ValueError, match=r"model\.guide\.dims: 384 channels cannot be shared out among 7 heads"):
        build(CRNN | {"guide": {"name": "nrtr", "heads": 7}})
    assert build(CRNN | {"guide": "none"}).copies == {"logits": "kl"}
