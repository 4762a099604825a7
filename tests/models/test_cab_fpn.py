"""The context attention of SAST's neck against loops over rows and columns."""

from __future__ import annotations

import pytest
import torch

from compress.models.necks.cab_fpn import ALONG_COLUMNS, ALONG_ROWS, ContextAttention, attended, cab_fpn


def test_attention_equals_loops_over_rows_and_columns() -> None:
    torch.manual_seed(0)
    theta, phi, g = torch.randn(3, 2, 5, 4, 6)
    rows, columns = torch.empty_like(g), torch.empty_like(g)
    for image in range(2):
        for y in range(4):
            weights = torch.softmax(theta[image, :, y].T @ phi[image, :, y], 1)
            rows[image, :, y] = (weights @ g[image, :, y].T).T
        for x in range(6):
            weights = torch.softmax(theta[image, :, :, x].T @ phi[image, :, :, x], 1)
            columns[image, :, :, x] = (weights @ g[image, :, :, x].T).T
    torch.testing.assert_close(attended(theta, phi, g, ALONG_ROWS), rows)
    torch.testing.assert_close(attended(theta, phi, g, ALONG_COLUMNS), columns)


def test_a_pixel_sees_its_row_and_its_column_in_one_block_and_all_pixels_in_two() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 8, 6, 7)
    changed = images.clone()
    changed[0, :, 2, 3] += 1
    cross = torch.zeros(6, 7, dtype=torch.bool)
    cross[2], cross[:, 3] = True, True
    blocks = [ContextAttention(8).eval() for _ in range(2)]
    with torch.inference_mode():
        for block in blocks:
            images, changed = block(images), block(changed)
            moved = (images - changed).abs().amax((0, 1)) > 0
            assert moved[cross].all()
            assert not (block is blocks[0] and moved[~cross].any())
    assert moved[~cross].float().mean() > 0.5


@pytest.mark.parametrize("blocks", [0, 2])
def test_the_neck_gives_one_map_at_stride_4_that_each_level_reaches(blocks: int) -> None:
    torch.manual_seed(0)
    neck = cab_fpn((16, 24, 48, 96), channels=8, blocks=blocks).eval()
    features = [torch.randn(1, width, 32 // 2**i, 48 // 2**i) for i, width in enumerate((16, 24, 48, 96))]
    with torch.inference_mode():
        before = neck(features)
        assert before.shape == (1, neck.channels, 32, 48) == (1, 8, 32, 48)
        for level in range(4):
            changed = [feature + (i == level) for i, feature in enumerate(features)]
            assert (neck(changed) - before).abs().max() > 1e-3
