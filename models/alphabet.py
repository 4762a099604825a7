"""The characters that a recogniser knows, and the one numbering of classes that its encoder, loss and decoder share.

Class 0 is the blank. The characters follow in their order, from 1 on. After them come start, end and unknown, which attention decoders
alone have: the first `len(characters) + 1` classes are those of CTC, and a character has the same number in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from compress.models.wording import suggestion

DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PRINTABLE = "".join(map(chr, range(33, 127)))  # all of ASCII that leaves ink
# Beyond ASCII, what English print uses: currencies, signs, quotation marks, and the accents of names and loan words.
BEYOND_ASCII = "£€¥¢§©®™°±×÷½¼¾–—‘’“”„•…ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßŒœ"  # noqa: RUF001
NAMED = MappingProxyType(
    {
        "digits": DIGITS,
        "alphanumeric": DIGITS + LETTERS,
        "en": f"{PRINTABLE} ",
        "en_full": f"{PRINTABLE}{BEYOND_ASCII} ",
    }
)
BLANK = 0
MOST = 100_000  # characters; all of Unicode that is assigned, and half as many again, are not far above

# As the `model` section of a recipe has it: a name of `NAMED`, or `{characters: abc}`.
Written = str | Mapping[str, Annotated[str, Field(min_length=1)]]


@dataclass(frozen=True)
class Alphabet:
    """Characters, each one code point, in the order of their classes.

    The space may be there twice, as in some of PaddleOCR's dictionaries: it is decoded from both classes and encoded by the later one.
    Raises ValueError for no characters, for any other that occurs twice, and for a line break or a tab, which no list of texts can hold.
    """

    characters: str

    def __post_init__(self) -> None:
        if not 0 < len(self.characters) <= MOST:
            raise ValueError(f"an alphabet has 1 to {MOST} characters, not {len(self.characters)}.")
        twice = [character for character, count in Counter(self.characters).items() if count > 1 and character != " "]
        if twice:
            raise ValueError(f"the character {twice[0]!r} is in the alphabet twice; leave one of them out.")
        if broken := [character for character in "\n\r\t" if character in self.characters]:
            raise ValueError(f"the character {broken[0]!r} cannot be in an alphabet: a text is one line.")

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Character -> class."""
        return {character: place for place, character in enumerate(self.characters, 1)}

    @property
    def blank(self) -> int:
        """The class of CTC's blank, by which targets are padded too."""
        return BLANK

    @property
    def start(self) -> int:
        """What an attention decoder is given before the first character."""
        return len(self.characters) + 1

    @property
    def end(self) -> int:
        """What an attention decoder gives after the last character."""
        return len(self.characters) + 2

    @property
    def unknown(self) -> int:
        """Any character that is not in the alphabet, for an attention decoder."""
        return len(self.characters) + 3

    @property
    def ctc_classes(self) -> int:
        """Classes of a CTC head: the blank and the characters."""
        return len(self.characters) + 1

    @property
    def attention_classes(self) -> int:
        """Classes of an attention decoder: those of CTC, start, end and unknown."""
        return len(self.characters) + 4

    def encoded(self, text: str) -> np.ndarray:
        """(n,) int64 classes of the characters of `text`; those that are not in the alphabet are left out."""
        return np.array([self.numbers[character] for character in text if character in self.numbers], np.int64)

    def decoded(self, classes: Iterable[int]) -> str:
        """The text of some classes. Raises ValueError for one that is no character's."""
        text = []
        for number in classes:
            if not 0 < number <= len(self.characters):
                raise ValueError(f"class {number} is no character: those have the classes 1 to {len(self.characters)}.")
            text.append(self.characters[number - 1])
        return "".join(text)

    def missing(self, text: str) -> str:
        """The characters of `text` that are not in the alphabet, each once, in the order in which they come."""
        return "".join(dict.fromkeys(character for character in text if character not in self.numbers))


def alphabet_of(written: Written) -> Alphabet:
    """The alphabet that a `model` section names. Raises ValueError for an unknown name and for wrong characters, naming the place."""
    if isinstance(written, str):
        if written not in NAMED:
            raise ValueError(
                f"model.alphabet: '{written}' is not known{suggestion(written, NAMED)} Or give {{characters: abc}}, "
                "{file: dictionary.txt}, {checkpoint: folder} or {texts: train}."
            )
        return Alphabet(NAMED[written])
    if list(written) != ["characters"]:
        told = "a name, {characters: abc}, or in a recipe {file: dictionary.txt}, {checkpoint: folder} or {texts: train}"
        raise ValueError(f"model.alphabet: an alphabet is {told}, not {dict(written)!r}.")
    try:
        return Alphabet(written["characters"])
    except ValueError as error:
        raise ValueError(f"model.alphabet: {error}") from None


def from_dictionary(lines: Sequence[str], space: bool = True) -> Alphabet:
    """The alphabet of a dictionary, one character a line, as PaddleOCR writes them.

    space: add the space at the end, unless a line holds it. Raises ValueError, naming the line, for one that is not one character.
    """
    for number, line in enumerate(lines, 1):
        if len(line) != 1:
            raise ValueError(f"line {number} holds {line!r}; a dictionary has one character a line.")
    characters = "".join(lines)
    return Alphabet(characters + " " * (space and " " not in characters))


def of_texts(texts: Iterable[str]) -> Alphabet:
    """All characters that occur, in the order of their code points. Raises ValueError where there is none."""
    return Alphabet("".join(sorted(set().union(*texts))))


def written_as(alphabet: Alphabet) -> dict[str, Any]:
    """The alphabet as a `model` section has it."""
    return {"characters": alphabet.characters}
