"""Attention decoders: targets, loss and greedy decoding against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.models.alphabet import Alphabet
from compress.models.attention import attention_decode, attention_targets
from compress.models.contract import Line, Sample
from compress.models.networks.attention import attention_loss, character_loss

ABC = Alphabet("abc")  # blank 0, a 1, b 2, c 3, start 4, end 5, unknown 6


def targets_of(text: str, longest: int) -> np.ndarray:
    return attention_targets(Sample("line", np.zeros((16, 32, 3), np.uint8), Line(text)), ABC, longest)["characters"]


def plainly_decoded(row: np.ndarray, alphabet: Alphabet) -> tuple[str, float]:
    """One line, step by step."""
    text, kept = "", []
    for step in row:
        best = int(step.argmax())
        if best == alphabet.end:
            break
        if 1 <= best <= len(alphabet.characters):
            text += alphabet.characters[best - 1]
            kept.append(float(step[best]))
    return text, sum(kept) / len(kept) if kept else 0.0


def test_decoding_a_batch_is_decoding_each_line_step_by_step():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(ABC.attention_classes, 0.3), (60, 9)).astype(np.float32)
    rows[7] = np.eye(7)[ABC.end]  # nothing at all
    rows[8] = np.eye(7)[1]  # no end
    rows[9] = np.eye(7)[[6, 4, 0, 2, 2, 5, 1, 1, 1]]  # what is no character, and characters after the end
    found = attention_decode(rows, ABC)
    assert len({one.text for one in found}) > 20
    for one, row in zip(found, rows, strict=True):
        text, confidence = plainly_decoded(row, ABC)
        assert one.text == text
        assert one.confidence == pytest.approx(confidence, abs=1e-6)
    assert [(one.text, one.confidence) for one in found[7:10]] == [("", 0.0), ("aaaaaaaaa", 1.0), ("bb", 1.0)]
    assert attention_decode(np.zeros((0, 5, 7), np.float32), ABC) == []


def test_an_alphabet_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"shape \(B, L, 7\), 3 characters and blank, start, end and unknown, not \(1, 5, 6\)"):
        attention_decode(np.zeros((1, 5, 6)), ABC)


def test_targets_end_where_the_text_ends_and_know_what_is_unknown():
    found = targets_of("cxab", 6)
    np.testing.assert_array_equal(found, [3, 6, 1, 2, 5, 0, 0])
    assert found.dtype == np.int64
    np.testing.assert_array_equal(targets_of("", 3), [5, 0, 0, 0])
    np.testing.assert_array_equal(targets_of("abc", 3), [1, 2, 3, 5])
    assert not targets_of("abca", 3).any()


def test_targets_as_probabilities_are_read_as_the_text():
    for text in ("", "a", "cab", "abcabc"):
        (found,) = attention_decode(np.eye(ABC.attention_classes)[targets_of(text, 6)][None], ABC)
        assert (found.text, found.confidence) == (text, 1.0 if text else 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_characters_and_ends(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 4, 7))
    characters = np.stack([targets_of(text, 3) for text in ("ab", "abca", "")])
    each = []
    for row, truth in zip(logits, characters, strict=True):
        for step, wanted in zip(row, truth, strict=True):
            if wanted:
                log = step - np.log(np.exp(step).sum())
                each.append(-(1 - smoothing) * log[wanted] - smoothing * log.mean())
    assert len(each) == 4
    tensors = {"logits": torch.from_numpy(logits)}, {"characters": torch.from_numpy(characters)}
    loss, parts = attention_loss(*tensors, smoothing=smoothing)
    assert float(loss) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(parts["characters"]) == float(loss)
    assert not parts["characters"].requires_grad


def test_a_batch_of_texts_that_are_too_long_costs_nothing():
    logits = torch.randn(2, 3, 7, requires_grad=True)
    loss = character_loss(logits, torch.zeros(2, 3, dtype=torch.int64), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(logits.grad.abs().max()) == 0
