"""Scores of texts against plain loops and an edit distance by dynamic programming."""

from __future__ import annotations

import numpy as np
import pytest

from compress.evaluation.transcription import folded, text_scores


def edits(one: str, other: str) -> int:
    """Insertions, deletions and substitutions from one text to the other (Wagner and Fischer 1974)."""
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i, first in enumerate(one, 1):
        for j, second in enumerate(other, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (first != second))
    return int(table[-1, -1])


def test_scores_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abAB1 -é"), rng.integers(0, 7))) for _ in range(400)]
    pairs = [(one, one if rng.random() < 0.3 else other) for one, other in zip(texts[::2], texts[1::2], strict=True)]
    scores = text_scores(pairs)
    assert scores["accuracy"] == np.mean([one == other for one, other in pairs])
    assert scores["similarity"] == pytest.approx(
        np.mean([1 - edits(one, other) / max(len(one), len(other)) if one or other else 1 for one, other in pairs])
    )
    assert scores["accuracy"] < scores["folded"] < 1
    assert set(text_scores([]).values()) == {0.0}


def test_case_and_signs_do_not_count_where_they_are_folded():
    assert folded("Ab-9 é!") == "ab9"
    assert text_scores([("hello!", "Hello")]) == {"accuracy": 0, "folded": 1, "similarity": pytest.approx(4 / 6)}
    assert text_scores([("abc", "abd"), ("x", "x")]) == {"accuracy": 0.5, "folded": 0.5, "similarity": pytest.approx((2 / 3 + 1) / 2)}


def test_a_text_without_letters_or_digits_says_nothing_of_the_folded_score():
    assert text_scores([("", "你好"), ("!", "?")])["folded"] == 0
    assert text_scores([("a", "你好"), ("b", "B"), ("c", "d")])["folded"] == 0.5
