"""How alike two orders are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, -1..1, with mean ranks for ties; None below three pairs or where either side never varies."""
    if len(first) < 3:
        return None
    one, other = mean_ranks(first), mean_ranks(second)
    if one.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def mean_ranks(values: Sequence[float]) -> np.ndarray:
    """The rank of each value, from 0; equal values have the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]
