"""The angle classifier: targets, loss and outputs against plain computations, and whether it learns what it is for."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from torch import nn

from compress.models.angle import angle, angle_decode, angle_targets
from compress.models.contract import Classification, Label, Sample
from compress.models.registry import build


def sample(label: str, image: np.ndarray | None = None) -> Sample:
    return Sample("word_1", np.zeros((48, 192, 3), np.uint8) if image is None else image, Label(label))


def test_targets_are_places_in_the_labels():
    for place, label in enumerate(("0", "180")):
        targets = angle_targets(sample(label))
        assert list(targets) == ["label"]
        assert (targets["label"].dtype, targets["label"].shape, int(targets["label"])) == (np.int64, (), place)
    with pytest.raises(ValueError, match="word_1 has the label '90'; the angle classifier knows 0 and 180"):
        angle_targets(sample("90"))


def test_the_loss_is_the_mean_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (7, 2)), rng.integers(0, 2, 7)
    expected = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])
    loss, parts = angle().loss({"logits": torch.from_numpy(logits)}, {"label": torch.from_numpy(labels)})
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert float(parts["cross_entropy"]) == float(loss)
    assert not parts["cross_entropy"].requires_grad


def test_outputs_are_a_linear_layer_over_pooled_features():
    torch.manual_seed(0)
    network = angle().network().eval()
    seen = {}
    network.backbone.last.register_forward_hook(lambda _module, _inputs, output: seen.update(last=output))
    images = torch.randn(3, 3, 48, 192)
    with torch.inference_mode():
        exported = network(images)
        network.training = True  # of the top module alone: batch norms stay as they are
        trained = network(images)
    assert list(exported) == ["probability"]
    assert list(trained) == ["logits", "probability"]
    features = seen["last"].numpy()
    height, width = (side // 2 * 2 for side in features.shape[2:])
    pooled = features[:, :, :height, :width].reshape(3, -1, height // 2, 2, width // 2, 2).max((3, 5)).mean((2, 3))
    logits = pooled @ network.classifier.weight.detach().numpy().T + network.classifier.bias.detach().numpy()
    np.testing.assert_allclose(trained["logits"].numpy(), logits, atol=1e-5)
    np.testing.assert_allclose(exported["probability"].numpy(), np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-5)


def test_the_likelier_angle_is_decoded():
    found = angle_decode({"probability": np.array([[0.75, 0.25], [0.125, 0.875]], np.float32)})
    assert found == [Classification("0", 0.75), Classification("180", 0.875)]
    with pytest.raises(ValueError, match=r"shape \(B, 2\), not \(1, 3\)"):
        angle_decode({"probability": np.ones((1, 3))})


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_backbone_may_be_wider_for_a_teacher():
    small, large = (build({"name": "angle", "width": width}).network() for width in (0.35, 1.0))
    assert 5 * parameters(small) < parameters(large)
    assert large.classifier.in_features == 576, "the last expansion of MobileNetV3-Small"
    with pytest.raises(ValueError, match=r"model\.width"):
        build({"name": "angle", "width": 0})


def test_what_it_names_of_itself_is_there():
    algorithm = angle()
    names = [name for name, _ in algorithm.network().named_modules()]
    for pattern in (*algorithm.features, *algorithm.kept_layers):
        assert any(fnmatchcase(name, pattern) for name in names)
    outputs = algorithm.network().train()(torch.zeros(2, 3, 48, 192))
    assert set(algorithm.copies) <= set(outputs)
    assert algorithm.labels == ("0", "180")


def test_it_learns_which_half_is_dark():
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.3, (16, 3, 48, 96)).astype(np.float32)
    labels = np.arange(16) % 2
    for image, label in zip(images, labels, strict=True):
        image[:, 24 * label : 24 * label + 24] += 1
    torch.manual_seed(0)
    algorithm = angle()
    network = algorithm.network().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        loss, _ = algorithm.loss(network(torch.from_numpy(images)), {"label": torch.from_numpy(labels)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.4
    assert losses[-1] < 0.1
