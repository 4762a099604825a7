from __future__ import annotations

import numpy as np
import pytest

from compress.evaluation.jackknife import BLOCKS, standard_error, without_each_block


def share(images) -> float:
    return float(np.mean(images))


def test_of_means_over_equal_blocks_it_is_the_error_of_the_mean_of_the_blocks():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 10 * BLOCKS))
    found = standard_error(without_each_block(share, list(one)), without_each_block(share, list(other)))
    blocks = (one - other).reshape(BLOCKS, -1).mean(1)
    assert found == pytest.approx(blocks.std(ddof=1) / BLOCKS**0.5)


def test_what_moves_both_models_alike_is_no_error():
    hard = np.random.default_rng(1).random(100)
    assert standard_error(without_each_block(share, list(hard)), without_each_block(share, list(hard - 0.1))) == pytest.approx(0, abs=1e-12)


def test_it_foretells_how_far_a_ratio_scatters_over_other_images():
    rng = np.random.default_rng(2)

    def ratio(images) -> float:
        found, words = np.sum(images, 0)
        return float(found / words)

    def images() -> list[tuple[int, int]]:
        words = rng.integers(1, 12, 200)
        return list(zip(rng.binomial(words, 0.8), words, strict=True))

    zeros = [0.0] * BLOCKS
    told = np.mean([standard_error(without_each_block(ratio, images()), zeros) for _ in range(50)])
    assert told == pytest.approx(np.std([ratio(images()) for _ in range(2000)]), rel=0.15)


@pytest.mark.parametrize("count", [20, 21, 37, 150])
def test_every_image_is_left_out_once_with_its_neighbours(count):
    kept: list[list[int]] = []

    def note(images) -> float:
        kept.append(list(images))
        return 0.0

    assert without_each_block(note, list(range(count))) == [0.0] * BLOCKS
    gone = [sorted(set(range(count)) - set(some)) for some in kept]
    assert [image for block in gone for image in block] == list(range(count))
    assert {len(block) for block in gone} <= {count // BLOCKS, count // BLOCKS + 1}


def test_too_few_images_tell_nothing():
    assert without_each_block(share, [1.0] * (BLOCKS - 1)) == []
    assert standard_error([], []) is None
    assert standard_error([0.5] * BLOCKS, []) is None
