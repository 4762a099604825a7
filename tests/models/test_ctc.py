"""CTC: targets, loss and greedy decoding against plain loops and sums over all alignments."""

from __future__ import annotations

from itertools import groupby, product

import numpy as np
import pytest
import torch

from compress.models.alphabet import Alphabet
from compress.models.contract import Line, Sample
from compress.models.ctc import ctc_decode, ctc_targets, steps_needed
from compress.models.networks.ctc import ctc_loss
from compress.models.registry import build

ABC = Alphabet("abc")


def sample(text: str, width: int = 32) -> Sample:
    return Sample("line", np.zeros((16, width, 3), np.uint8), Line(text))


def plainly_decoded(row: np.ndarray, alphabet: Alphabet) -> tuple[str, float]:
    """One line, step by step."""
    text, kept, before = "", [], 0
    for step in row:
        best = int(step.argmax())
        if best not in (0, before):
            text += alphabet.characters[best - 1]
            kept.append(float(step[best]))
        before = best
    return text, sum(kept) / len(kept) if kept else 0.0


def test_decoding_a_batch_is_decoding_each_line_step_by_step():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(4, 0.3), (50, 17)).astype(np.float32)
    rows[7] = [1, 0, 0, 0]  # nothing but blanks
    found = ctc_decode(rows, ABC)
    assert len({one.text for one in found}) > 30
    for one, row in zip(found, rows, strict=True):
        text, confidence = plainly_decoded(row, ABC)
        assert one.text == text
        assert one.confidence == pytest.approx(confidence, abs=1e-6)
    assert (found[7].text, found[7].confidence) == ("", 0.0)


def test_repetitions_are_joined_unless_a_blank_stands_between():
    steps = np.eye(4, dtype=np.float32)[[1, 1, 0, 1, 2, 2, 0, 0, 3]]
    assert [one.text for one in ctc_decode(steps[None], ABC)] == ["aabc"]
    assert ctc_decode(np.zeros((0, 5, 4), np.float32), ABC) == []


def test_an_alphabet_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"shape \(B, T, 4\), a blank and 3 characters, not \(1, 5, 6\)"):
        ctc_decode(np.zeros((1, 5, 6)), ABC)


def test_targets_are_classes_and_their_number():
    found = ctc_targets(sample("abxca"), ABC, 4)
    np.testing.assert_array_equal(found["text"], [1, 2, 3, 1, 0, 0, 0, 0])
    assert (found["text"].dtype, found["length"].dtype, int(found["length"])) == (np.int64, np.int64, 4)


def test_a_text_that_has_no_alignment_is_left_out():
    assert steps_needed("aabb") == 6
    assert steps_needed("") == 0
    assert int(ctc_targets(sample("aabb", 24), ABC, 4)["length"]) == 4
    for width in (20, 4, 2):
        found = ctc_targets(sample("aabb", width), ABC, 4)
        assert int(found["length"]) == 0
        assert not found["text"].any()


def likelihood(scores: np.ndarray, classes: list[int]) -> float:
    """The sum over all alignments of a text, by writing each of them down."""
    total = 0.0
    for path in product(range(scores.shape[1]), repeat=len(scores)):
        if [number for number, _ in groupby(path) if number] == classes:
            total += float(np.prod([scores[step, number] for step, number in enumerate(path)]))
    return total


def test_the_loss_sums_over_all_alignments():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 5, 4))
    texts = [[1, 1, 2], [3], []]
    scores = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    expected = np.mean([-np.log(likelihood(scores[row], texts[row])) / len(texts[row]) for row in (0, 1)])
    targets = {"text": torch.tensor([[1, 1, 2, 0], [3, 0, 0, 0], [0, 0, 0, 0]]), "length": torch.tensor([3, 1, 0])}
    loss, parts = ctc_loss({"logits": torch.from_numpy(logits)}, targets)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(parts["ctc"]) == float(loss)
    assert not parts["ctc"].requires_grad


def test_a_batch_of_nothing_that_fits_costs_nothing():
    logits = torch.randn(2, 5, 4, requires_grad=True)
    loss, _ = ctc_loss({"logits": logits}, {"text": torch.zeros(2, 5, dtype=torch.int64), "length": torch.zeros(2, dtype=torch.int64)})
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(logits.grad.abs().max()) == 0


def test_aggregation_compares_the_shares_of_classes():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 6, 4))
    texts, lengths = np.array([[1, 3, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]]), np.array([3, 0, 1])
    each = []
    for row, text, length in zip(logits, texts, lengths, strict=True):
        if length:
            shares = (np.exp(row) / np.exp(row).sum(1, keepdims=True)).mean(0)
            counts = np.bincount(text[:length], minlength=4)
            counts[0] = 6 - length
            each.append(-(counts / 6 * np.log(shares)).sum())
    targets = {"text": torch.from_numpy(texts), "length": torch.from_numpy(lengths)}
    outputs = {"logits": torch.from_numpy(logits).float()}
    alone, _ = ctc_loss(outputs, targets)
    found = build({"name": "crnn", "sequence": "none", "alphabet": {"characters": "abc"}, "loss": {"ace": 0.1}}).loss(outputs, targets)
    assert float(found[1]["ace"]) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(found[0]) == pytest.approx(float(alone) + 0.1 * np.mean(each), rel=1e-5)
    guided = build({"name": "crnn", "sequence": "none", "alphabet": {"characters": "abc"}, "loss": {"ace": 0.1}, "guide": "sar"})
    told = {**outputs, "guide": torch.zeros(3, 26, 7)}, {**targets, "characters": torch.zeros(3, 26, dtype=torch.int64)}
    assert float(guided.loss(*told)[0]) == pytest.approx(float(found[0]), rel=1e-6), "a guide without characters adds nothing"


def test_weights_of_a_loss_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match=r"model\.loss: its weights are those of CTC"):
        build({"name": "crnn", "head": "attention", "loss": {"ace": 0.1}})
    with pytest.raises(ValueError, match=r"model\.loss\.acee is not known; did you mean 'ace'"):
        build({"name": "svtr_lcnet", "loss": {"acee": 0.1}})
