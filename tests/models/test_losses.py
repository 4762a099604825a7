"""Hard examples and dice against plain numpy, an image and a map at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.models.losses import dice, hard_examples


def plain_hard_examples(probability: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One image, (H, W)."""
    text, other = (target * mask) > 0, ((1 - target) * mask) > 0
    wanted = min(3 * text.sum(), other.sum())
    if not text.any():
        return mask
    if wanted == 0:
        return text.astype(np.float32)
    limit = np.sort(probability[other])[::-1][wanted - 1]
    return (text | (other & (probability >= limit))).astype(np.float32)


def plain_dice(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    prediction, target = prediction[mask > 0].astype(float), target[mask > 0].astype(float)
    return 1 - 2 * (prediction * target).sum() / ((prediction**2).sum() + (target**2).sum() + 1e-6)


@pytest.mark.parametrize("positive", [0.0, 0.02, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("masked", [0.0, 0.3, 1.0])
def test_hard_examples_are_chosen_in_each_image_alone(positive: float, masked: float) -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((3, 1, 16, 20), np.float32)
    target = (rng.random(probability.shape) < positive).astype(np.float32)
    target[2] = 0
    mask = (rng.random(probability.shape) >= masked).astype(np.float32)
    ours = hard_examples(*map(torch.from_numpy, (probability, target, mask))).numpy()
    for given, chosen in zip(zip(probability, target, mask, strict=True), ours, strict=True):
        np.testing.assert_array_equal(chosen[0], plain_hard_examples(*(array[0] for array in given)))


def test_dice_of_each_map() -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.random((2, 2, 3, 8, 8), np.float32)
    mask = (rng.random((2, 1, 8, 8)) > 0.4).astype(np.float32)
    ours = dice(*map(torch.from_numpy, (prediction, target, mask)))
    plain = [[plain_dice(prediction[b, c], target[b, c], mask[b, 0]) for c in range(3)] for b in range(2)]
    np.testing.assert_allclose(ours.numpy(), plain, rtol=1e-5)
    whole = torch.ones(1, 1, 4, 4)
    assert float(dice(whole, whole, whole)) == pytest.approx(0, abs=1e-6)
    assert float(dice(whole, whole, 0 * whole)) == 1
