"""Reading texts off probabilities, scoring them, and augmenting lines, against plain code; ratios, as seconds depend on the machine."""

from __future__ import annotations

import time

import cv2
import numpy as np

from compress.data.lines.augment_text import AugmentText, augment_text, bent_edges, joined, source_places
from compress.evaluation.transcription import text_scores
from compress.models.alphabet import alphabet_of
from compress.models.contract import Input, Line, Sample
from compress.models.ctc import ctc_decode

ALPHABET = alphabet_of("en_full")


def seconds(work, rounds: int = 5) -> float:
    """The best of some rounds, of one process: others may have the cores meanwhile."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
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


SIZE = (48, 320)
WANTED = Input((16, 4), SIZE, (0.5,) * 3, (0.5,) * 3)
AUGMENT = AugmentText(join=0.5)


def plain_view(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """Size, perspective, bending, colours, blur and noise one after another, each on the whole image."""
    height, width = SIZE
    view = cv2.resize(sample.image, (width, height))
    corners = np.float32([(0, 0), (width, 0), (width, height), (0, height)])
    moved = (corners + AUGMENT.distort * height * rng.uniform(-1, 1, (4, 2))).astype(np.float32)
    view = cv2.warpPerspective(view, cv2.getPerspectiveTransform(corners, moved), (width, height))
    places = source_places(bent_edges(SIZE, AUGMENT, rng), SIZE)
    view = cv2.remap(view, places[..., 0], places[..., 1], cv2.INTER_LINEAR)
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1:] *= 1 + 0.25 * rng.uniform(-1, 1, 2)
    view = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    view = cv2.GaussianBlur(view, (0, 0), 0.3 + rng.random())
    return (view + rng.normal(0, AUGMENT.noise * rng.random(), view.shape)).clip(0, 255).astype(np.uint8)


def test_a_view_of_a_line_takes_less_than_a_millisecond():
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    samples = [
        Sample("line", rng.integers(0, 256, (height, height * wide, 3), np.uint8), Line("word"))
        for height, wide in zip(rng.integers(16, 100, 50), rng.integers(2, 7, 50), strict=True)
    ]

    def ours() -> None:
        for sample in samples:
            line = joined(sample, lambda: samples[0], AUGMENT, SIZE, rng)
            augment_text(line, AUGMENT, SIZE, WANTED, rng)

    plain = seconds(lambda: [plain_view(sample, rng) for sample in samples])
    taken = seconds(ours)
    cv2.setNumThreads(threads)
    print(f"\na view of a line: {1e3 * taken / len(samples):.2f} ms, {plain / taken:.1f} times as fast as step by step")
    assert taken < 1e-3 * len(samples)
    assert plain > 2 * taken
