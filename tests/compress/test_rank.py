from __future__ import annotations

import numpy as np
import pytest

from compress.rank import rank_correlation


def plain(first, second) -> float:
    """Spearman's coefficient from the definition: Pearson's of ranks counted one by one."""
    ranks = [[sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values] for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_ranks_counted_one_by_one(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 6, 12).tolist(), rng.integers(0, 6, 12).tolist()
    assert rank_correlation(first, second) == pytest.approx(plain(first, second))


def test_any_rising_function_keeps_the_order():
    values = [0.1, 4.0, 2.0, 9.0]
    assert rank_correlation(values, np.exp(values).tolist()) == pytest.approx(1)
    assert rank_correlation(values, [-value for value in values]) == pytest.approx(-1)


def test_ties_share_their_mean_rank():
    # Ranks 0, 1.5, 1.5, 3 and 0, 1, 2, 3: covariance 1.125 over standard deviations sqrt(1.125) and sqrt(1.25).
    assert rank_correlation([1, 2, 2, 5], [1, 2, 3, 4]) == pytest.approx(np.sqrt(0.9))


def test_what_never_varies_has_no_order():
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, 2], [1, 2]) is None
