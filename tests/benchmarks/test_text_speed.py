"""Reading texts off probabilities, and scoring them, against plain loops; ratios alone, as seconds depend on the machine."""

from __future__ import annotations

import time

import numpy as np

from compress.evaluation.transcription import text_scores
from compress.models.alphabet import alphabet_of
from compress.models.ctc import ctc_decode

ALPHABET = alphabet_of("en_full")


def seconds(work, rounds: int = 5) -> float:
    """The best of some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def plainly(rows: np.ndarray) -> list[tuple[str, float]]:
    """Line by line and step by step."""
    found = []
    for row in rows:
        text, kept, before = [], [], 0
        for step in row:
            best = int(np.argmax(step))
            if best not in (0, before):
                text.append(ALPHABET.characters[best - 1])
                kept.append(float(step[best]))
            before = best
        found.append(("".join(text), float(np.mean(kept)) if kept else 0.0))
    return found


def test_a_batch_is_decoded_several_times_as_fast_as_line_by_line():
    rows = np.random.default_rng(0).random((256, 80, ALPHABET.ctc_classes), np.float32)
    assert [one.text for one in ctc_decode(rows, ALPHABET)] == [text for text, _ in plainly(rows)]
    ratio = seconds(lambda: plainly(rows)) / seconds(lambda: ctc_decode(rows, ALPHABET))
    print(f"\nCTC decoding of 256 lines: {ratio:.1f} times as fast as a plain loop")
    assert ratio > 3


def distance(one: str, other: str) -> int:
    """Edits from one text to the other, a row of the table at a time."""
    row = list(range(len(other) + 1))
    for i, first in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, second in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (first != second))
    return row[-1]


def test_texts_are_scored_many_times_as_fast_as_by_a_plain_table():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list(ALPHABET.characters), rng.integers(1, 25))) for _ in range(600)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    plain = [1 - distance(one, other) / max(len(one), len(other)) for one, other in pairs]
    np.testing.assert_allclose(text_scores(pairs)["similarity"], np.mean(plain))
    ratio = seconds(lambda: [distance(*pair) for pair in pairs], 3) / seconds(lambda: text_scores(pairs), 3)
    print(f"\nscores of 300 texts: {ratio:.0f} times as fast as a plain table")
    assert ratio > 10
