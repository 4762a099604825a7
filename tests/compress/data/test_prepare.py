from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.data.prepare import fit_into, network_input
from compress.data.training import normalise
from compress.models.contract import Input

MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_images_are_scaled_and_normalised_channel_by_channel():
    images = [np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8) for seed in range(2)]
    given = normalise(torch.from_numpy(np.stack(images)), MEAN_STD)
    assert given.shape == (2, 3, 5, 7)
    assert given.is_contiguous(memory_format=torch.channels_last)
    for channel, (mean, std) in enumerate(zip(*MEAN_STD, strict=True)):
        expected = (np.stack(images)[..., channel] / 255 - mean) / std
        np.testing.assert_allclose(given[:, channel].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(network_input(images, Input(mean=MEAN_STD[0], std=MEAN_STD[1])), given.numpy())


@pytest.mark.parametrize(("size", "own"), [((24, 24), 48), ((12, 96), 192), ((48, 50), 50), ((96, 100), 50), ((20, 400), 192)])
def test_a_line_keeps_its_proportions_up_to_the_width_and_is_padded_with_the_mean(size, own):
    image = np.full((*size, 3), 200, np.uint8)
    fitted = fit_into(image, (48, 192), (0.5, 0.25, 0.0))
    assert fitted.shape == (48, 192, 3)
    assert (fitted[:, :own] == 200).all()
    assert (fitted[:, own:] == (128, 64, 0)).all()
