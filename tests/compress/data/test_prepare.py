from __future__ import annotations

import numpy as np
import torch

from compress.data.prepare import network_input, normalise

MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_pictures_are_scaled_and_normalised_channel_by_channel():
    pictures = [np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8) for seed in range(2)]
    given = normalise(torch.from_numpy(np.stack(pictures)), MEAN_STD)
    assert given.shape == (2, 3, 5, 7)
    assert given.is_contiguous(memory_format=torch.channels_last)
    for channel, (mean, std) in enumerate(zip(*MEAN_STD, strict=True)):
        expected = (np.stack(pictures)[..., channel] / 255 - mean) / std
        np.testing.assert_allclose(given[:, channel].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(network_input(pictures, MEAN_STD), given.numpy())
