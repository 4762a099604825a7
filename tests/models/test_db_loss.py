"""Losses against plain numpy, with an explicit sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.models.db import LossWeights, db
from compress.models.networks.db import balanced_cross_entropy, db_loss, masked_dice, masked_l1, sum_of_largest


def random_maps(seed: int, positive: float = 0.1, masked: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, target and mask, (2, 1, 24, 32)."""
    rng = np.random.default_rng(seed)
    shape = (2, 1, 24, 32)
    target, mask = rng.random(shape) < positive, rng.random(shape) >= masked
    return rng.normal(0, 3, shape).astype(np.float32), target.astype(np.float32), mask.astype(np.float32)


def plain_balanced(logits: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    losses = np.logaddexp(0, logits.astype(np.float64)) - logits * target
    positive, negative = losses[(target * mask) > 0], np.sort(losses[((1 - target) * mask) > 0])[::-1]
    wanted = min(len(negative), 3 * len(positive))
    return (positive.sum() + negative[:wanted].sum()) / (len(positive) + wanted + 1e-6)


@pytest.mark.parametrize("positive", [0.0, 0.02, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("masked", [0.0, 0.3, 1.0])
def test_balanced_cross_entropy_takes_three_hardest_negatives_a_positive(positive: float, masked: float) -> None:
    arrays = random_maps(3, positive, masked)
    assert float(balanced_cross_entropy(*map(torch.from_numpy, arrays))) == pytest.approx(plain_balanced(*arrays), rel=1e-5)


@pytest.mark.parametrize("count", [0, 1, 7, 500, 999, 1000])
@pytest.mark.parametrize("kind", ["spread", "narrow", "ties", "zeros"])
def test_sum_of_largest_equals_topk_and_so_does_its_gradient(count: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(count)
    values = {
        "spread": torch.rand(1000, generator=generator) ** 8 * 50,
        "narrow": 1 + torch.randperm(1000, generator=generator) * 2**-20,
        "ties": torch.randint(0, 4, (1000,), generator=generator).float(),
        "zeros": torch.zeros(1000),
    }[kind]
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    total = sum_of_largest(ours, count)
    expected = theirs.topk(count).values.sum()
    torch.testing.assert_close(total, expected)
    if kind in ("spread", "narrow") and count:
        torch.testing.assert_close(*(torch.autograd.grad(value, leaf)[0] for value, leaf in ((total, ours), (expected, theirs))))


def test_masked_l1_and_dice() -> None:
    rng = np.random.default_rng(0)
    prediction, target, mask = rng.random((3, 2, 1, 8, 8)).astype(np.float32)
    mask = (mask > 0.5).astype(np.float32)
    tensors = [torch.from_numpy(array) for array in (prediction, target, mask)]
    chosen = mask > 0
    assert float(masked_l1(*tensors)) == pytest.approx(np.abs(prediction - target)[chosen].mean(), rel=1e-4)
    overlap = 2 * (prediction * target)[chosen].sum() / (prediction[chosen].sum() + target[chosen].sum())
    assert float(masked_dice(*tensors)) == pytest.approx(1 - overlap, rel=1e-4)
    assert float(masked_l1(tensors[0], tensors[1], torch.zeros_like(tensors[2]))) == 0
    assert float(masked_dice(tensors[1], tensors[1].round(), torch.ones_like(tensors[2]))) < 1


def test_the_total_is_the_weighted_sum_and_compact_targets_give_the_same() -> None:
    logits, shrink, shrink_mask = map(torch.from_numpy, random_maps(5))
    border, threshold_mask, _ = map(torch.from_numpy, random_maps(6))
    border, threshold = border.sigmoid(), border.cos().abs()
    outputs = {"logits": logits, "probability": logits.sigmoid(), "threshold": border, "binary": (logits - border).sigmoid()}
    targets = {"shrink": shrink, "shrink_mask": shrink_mask, "threshold": threshold, "threshold_mask": threshold_mask}
    weights = LossWeights(probability=5, threshold=7, binary=2)
    total, parts = db_loss(outputs, targets, weights)
    torch.testing.assert_close(total, 5 * parts["probability"] + 7 * parts["threshold"] + 2 * parts["binary"])
    compact = {name: tensor if name == "threshold" else tensor.to(torch.uint8) for name, tensor in targets.items()}
    assert float(db_loss(outputs, compact, weights)[0]) == float(total)
    torch.testing.assert_close(parts["probability"], balanced_cross_entropy(logits, shrink, shrink_mask))
    torch.testing.assert_close(parts["threshold"], masked_l1(border, threshold, threshold_mask))
    torch.testing.assert_close(parts["binary"], masked_dice(outputs["binary"], shrink, shrink_mask))


def test_a_batch_without_text_still_has_a_finite_loss_and_gradient() -> None:
    torch.manual_seed(0)
    algorithm = db()
    network = algorithm.network().train()
    outputs = network(torch.randn(2, 3, 64, 64))
    targets = {name: torch.zeros(2, 1, 64, 64) for name in ("shrink", "shrink_mask", "threshold", "threshold_mask")}
    total, _ = algorithm.loss(outputs, targets)
    total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)


def test_descending_the_loss_finds_the_labels() -> None:
    targets = {name: torch.zeros(1, 1, 32, 32) for name in ("shrink", "shrink_mask", "threshold", "threshold_mask")}
    targets["shrink"][..., 12:20, 10:22] = 1
    targets["shrink_mask"] += 1
    targets["threshold_mask"][..., 8:24, 6:26] = 1
    targets["threshold"] += 0.3
    maps = torch.zeros(2, 1, 1, 32, 32, requires_grad=True)
    optimizer = torch.optim.Adam([maps], 0.2)
    for _ in range(60):
        probability, threshold = maps.sigmoid()
        outputs = {
            "logits": maps[0],
            "probability": probability,
            "threshold": threshold,
            "binary": torch.sigmoid(50 * (probability - threshold)),
        }
        total, _ = db_loss(outputs, targets, LossWeights())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert torch.equal((probability > 0.5).float(), targets["shrink"])
    assert float(masked_l1(threshold, targets["threshold"], targets["threshold_mask"]).detach()) < 0.05
