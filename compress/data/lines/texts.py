"""Texts for synthetic lines: words, numbers and codes, of all printable ASCII characters."""

from __future__ import annotations

import numpy as np

from compress.data.rendering import word
from compress.models.alphabet import PRINTABLE

WORDS_IN_A_LINE = (1, 1, 1, 1, 1, 2, 2, 2, 3, 4)
LONGEST = 25  # characters, as PP-OCR's recognisers are trained
NUMBERS = (
    *("00", "000", "0000", "00000", "0.00", "00.00", "0,000", "00%", "$0.00", "00:00", "00/00/0000", "#00", "+00", "000-0000"),
    *("(000)", "00-00", "0/0", "$00", "00*00", "00=00", "~00"),
)
FORMS = (
    *("w.", "w.", "w,", "w,", "w!", "w?", "w:", "w;", "(w)", "[w]", "{w}", '"w"', "'w'", "`w`", "<w>", "w's", "w-w", "w-w", "w/w"),
    *("w&w", "w_w", "w@w.com", "#w", "*w", "w+w", "w=w", "w|w", "^w", "\\w", "~w", "%w", "$w"),
)


def line_text(rng: np.random.Generator, most: int = 4) -> str:
    """One to `most` words, numbers or codes, at most `LONGEST` characters with the single spaces between them."""
    text = token(rng)
    for _ in range(min(most, WORDS_IN_A_LINE[rng.integers(len(WORDS_IN_A_LINE))]) - 1):
        longer = f"{text} {token(rng)}"
        text = longer if len(longer) <= LONGEST else text
    return text


def token(rng: np.random.Generator) -> str:
    """Printable ASCII without spaces: most often a word alone."""
    kinds = (word, word, word, word, word, number, punctuated, punctuated, mixed_case, code)
    return kinds[rng.integers(len(kinds))](rng)


def number(rng: np.random.Generator) -> str:
    """A number, an amount, a date, a time."""
    form = NUMBERS[rng.integers(len(NUMBERS))]
    return "".join(str(rng.integers(10)) if sign == "0" else sign for sign in form)


def punctuated(rng: np.random.Generator) -> str:
    """A word, or two of them, with a sign."""
    first, *rest = FORMS[rng.integers(len(FORMS))].split("w")
    return first + "".join(word(rng) + after for after in rest)


def mixed_case(rng: np.random.Generator) -> str:
    """A word, each of its letters large or small by chance."""
    letters = word(rng)
    return "".join(
        letter.upper() if large else letter.lower() for letter, large in zip(letters, rng.random(len(letters)) < 0.5, strict=True)
    )


def code(rng: np.random.Generator) -> str:
    """Two to seven of all characters."""
    return "".join(PRINTABLE[place] for place in rng.integers(len(PRINTABLE), size=rng.integers(2, 8)))
