from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.data.prepare import fit_into, network_input, resize_short_side, scale_of
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


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((720, 1280), (736, 1312)),
        ((50, 150), (736, 2208)),  # no strip: enlarged as ever
        ((24, 3000), (96, 11776)),
        ((10, 3000), (64, 11776)),
        ((30, 300), (128, 1216)),
        ((800, 20000), (480, 11776)),
        ((1, 100000), (32, 11776)),
    ],
)
def test_images_much_longer_than_wide_are_enlarged_less(size, shown):
    image = np.zeros((*size, 3), np.uint8)
    assert resize_short_side(image, 736, (32, 32)).shape == (*shown, 3)
    assert resize_short_side(image.swapaxes(0, 1), 736, (32, 32)).shape == (*shown[::-1], 3)


def test_no_image_takes_more_than_a_bounded_area():
    rng = np.random.default_rng(0)
    for height, width in np.exp(rng.uniform(0, np.log(2e5), (300, 2))):
        scale = scale_of(round(height), round(width), 100)
        assert max(round(height), round(width)) * scale <= 1600 + 1e-6
        assert min(round(height), round(width)) * scale <= 100 + 1e-6
