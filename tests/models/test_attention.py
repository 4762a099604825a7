"""Attention decoders: targets, loss and greedy decoding against plain loops; cells and steps against torch's own cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compress.models.alphabet import Alphabet
from compress.models.attention import attention_decode, attention_targets
from compress.models.cells import GRUCell, LSTMCell
from compress.models.contract import Line, Sample
from compress.models.networks.attention import Attention, GRUDecoder, answers, attention_loss, character_loss, glimpse, shown_by, starts

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


def stacked(gates) -> dict[str, torch.Tensor]:
    """The weights of some gates as torch's cells hold them."""
    return {
        f"{kind}_{short}": torch.cat([getattr(getattr(gate, name), kind) for gate in gates])
        for kind in ("weight", "bias")
        for name, short in (("input", "ih"), ("state", "hh"))
    }


def torchs(cell: GRUCell | LSTMCell, inputs: int, hidden: int) -> nn.Module:
    """torch's own cell with the same weights."""
    if isinstance(cell, GRUCell):
        theirs, gates = nn.GRUCell(inputs, hidden), (cell.reset, cell.keep, cell.candidate)
    else:
        theirs, gates = nn.LSTMCell(inputs, hidden), (cell.admit, cell.forget, cell.candidate, cell.reveal)
    theirs.load_state_dict(stacked(gates))
    return theirs


@pytest.mark.parametrize("kind", [GRUCell, LSTMCell])
def test_cells_are_torch_s(kind):
    torch.manual_seed(0)
    ours = kind(5, 7)
    theirs = torchs(ours, 5, 7)
    state = ours.start(torch.randn(3, 5))
    expected = state
    for _ in range(4):
        x = torch.randn(3, 5)
        state, expected = ours(x, state), theirs(x, expected)
        torch.testing.assert_close(state, expected)


def test_attention_weighs_each_place_by_what_it_says_of_the_state():
    torch.manual_seed(0)
    attention = Attention(6, 5)
    keys, values, state = torch.randn(2, 9, 5), torch.randn(2, 9, 4), torch.randn(2, 6)
    weights = attention(keys, state)
    scores = [
        [(attention.score.layer.weight[0] @ torch.tanh(key + attention.query.weight @ one)).item() for key in row]
        for row, one in zip(keys, state, strict=True)
    ]
    torch.testing.assert_close(weights, torch.tensor(scores).softmax(1))
    expected = torch.stack([sum(w * v for w, v in zip(*pair, strict=True)) for pair in zip(weights, values, strict=True)])
    torch.testing.assert_close(glimpse(weights, values), expected)


def lively(decoder: nn.Module) -> nn.Module:
    """Fresh weights alone give the same characters everywhere."""
    for parameter in decoder.parameters():
        nn.init.normal_(parameter)
    return decoder


def test_a_decoder_is_shown_its_text_or_reads_its_own_step_by_step():
    torch.manual_seed(0)
    decoder = lively(GRUDecoder(4, 5, 6, ABC.attention_classes, 7))
    cell = torchs(decoder.cell, 4 + 6, 6)
    values, keys = torch.randn(3, 9, 4), torch.randn(3, 9, 5)
    shown = torch.randint(1, 6, (3, 7))
    for given in (shown, None):
        expected = []
        for row in range(3):
            state, last, logits = torch.zeros(1, 6), ABC.start, []
            for place in range(7):
                seen = glimpse(decoder.attention(keys[row : row + 1], state), values[row : row + 1])
                state = cell(torch.cat([seen, decoder.embedding.weight[[last]]], 1), state)
                logits.append(decoder.classifier(state)[0])
                last = int(logits[-1].argmax()) if given is None else int(given[row, place])
            expected.append(torch.stack(logits))
        found = decoder(values, keys, given)
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)
        assert len(found.argmax(2).unique()) > 2
    torch.testing.assert_close(decoder(values, keys, found.argmax(2)), found)  # shown what it reads, it reads that


def test_steps_behind_the_text_have_nothing_to_copy_and_none_is_told_the_truth_at_inference():
    logits = torch.randn(2, 4, 7)
    targets = {"characters": torch.from_numpy(np.stack([targets_of("ab", 3), targets_of("abca", 3)]))}
    found = answers(logits, targets, True)
    assert torch.equal(found["logits"][0, :3], logits[0, :3])
    assert not found["logits"][0, 3:].any()
    assert not found["logits"][1].any()
    assert list(answers(logits, None, False)) == ["probability"]
    first = starts(torch.zeros(2, 3), nn.Embedding(ABC.attention_classes, 2))
    assert first.tolist() == [ABC.start] * 2
    assert shown_by(None, first, 3).tolist() == [[ABC.start] * 3] * 2
    assert torch.equal(shown_by(targets, first, 4), targets["characters"])
    assert shown_by(targets, first, 3).tolist() == [[ABC.start] * 3] * 2, "those of a student that has more steps"
