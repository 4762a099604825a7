"""Texts for synthetic lines: words, numbers and codes, of all printable ASCII characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from compress.data.rendering import word
from compress.errors import CompressError
from compress.files import read_text
from compress.models.alphabet import PRINTABLE

Word = Callable[[np.random.Generator], str]

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


def line_text(rng: np.random.Generator, most: int = 4, word: Word = word) -> str:
    """One to `most` words, numbers or codes, at most `LONGEST` characters with the single spaces between them.

    word: what gives a word alone; made-up ones unless said.
    """
    text = token(rng, word)
    for _ in range(min(most, WORDS_IN_A_LINE[rng.integers(len(WORDS_IN_A_LINE))]) - 1):
        longer = f"{text} {token(rng, word)}"
        text = longer if len(longer) <= LONGEST else text
    return text


def token(rng: np.random.Generator, word: Word) -> str:
    """Printable ASCII without spaces: most often a word alone."""
    plain = (word, word, word, word, word)
    kinds = (*plain, number, partial(punctuated, word=word), partial(punctuated, word=word), partial(mixed_case, word=word), code)
    return kinds[rng.integers(len(kinds))](rng)


def number(rng: np.random.Generator) -> str:
    """A number, an amount, a date, a time."""
    form = NUMBERS[rng.integers(len(NUMBERS))]
    return "".join(str(rng.integers(10)) if sign == "0" else sign for sign in form)


def punctuated(rng: np.random.Generator, word: Word) -> str:
    """A word, or two of them, with a sign."""
    first, *rest = FORMS[rng.integers(len(FORMS))].split("w")
    return first + "".join(word(rng) + after for after in rest)


def mixed_case(rng: np.random.Generator, word: Word) -> str:
    """A word, each of its letters large or small by chance."""
    letters = word(rng)
    return "".join(
        letter.upper() if large else letter.lower() for letter, large in zip(letters, rng.random(len(letters)) < 0.5, strict=True)
    )


def code(rng: np.random.Generator) -> str:
    """Two to seven of all characters."""
    return "".join(PRINTABLE[place] for place in rng.integers(len(PRINTABLE), size=rng.integers(2, 8)))


def known_word(rng: np.random.Generator, words: Sequence[str]) -> str:
    """One of `words`, as it is written or, as often, in capitals or with a first one."""
    found = words[int(rng.integers(len(words)))]
    kind = rng.random()
    return found if kind < 0.5 else found.upper() if kind < 0.75 else found.capitalize()


def vocabulary_of(path: Path) -> tuple[str, ...]:
    """The words of a file, one a line, in its order; those longer than `LONGEST` or without printable ASCII are left out.

    Raises CompressError for a file that cannot be read as UTF-8 text, and where no word is left.
    """
    words = ("".join(sign for sign in line if sign in PRINTABLE) for line in read_text(path).splitlines())
    found = tuple(word for word in words if 0 < len(word) <= LONGEST)
    if not found:
        raise CompressError(f"data.vocabulary: {path} holds no word of one to {LONGEST} ASCII characters; give a file with a word a line.")
    return found
