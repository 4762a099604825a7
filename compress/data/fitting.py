"""A split opened for a model: ground truth that the model cannot give is refused, left out or told before there is any work."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compress.data.formats import DataConfig, open_split
from compress.data.labels import check_labels
from compress.data.split import Split
from compress.errors import CompressError
from compress.models.alphabet import Alphabet
from compress.models.contract import Algorithm, Line
from compress.models.ctc import steps_needed

SHOWN = 20  # characters that are named

log = logging.getLogger(__name__)


def open_fitting(config: DataConfig, name: str, seed: int, algorithm: Algorithm, quiet: bool = False) -> Split:
    """:func:`open_split` of data for a model; see :func:`check_labels` and :func:`readable` for what is wrong with some."""
    split = open_split(config, name, seed, quiet)
    check_labels(split, algorithm.labels)
    return readable(split, algorithm.alphabet, getattr(config, "damaged", "refuse") == "skip") if algorithm.alphabet else split


def readable(split: Split, alphabet: Alphabet, skip: bool) -> Split:
    """The split without what cannot be learnt: training texts with characters that are not in the alphabet.

    skip: leave them out; else they are refused with a CompressError. In other splits such texts stay, count as misread, and are told.
    """
    unknown = [place for place, annotation in enumerate(split.annotations) if alphabet.missing(annotation.truth.text)]
    if not unknown:
        return split
    told = unknown_told(split, alphabet, unknown)
    if split.name != "train":
        log.warning("%s They cannot be read right.", told)
        return split
    if not skip:
        raise CompressError(f"{told} Give the model another alphabet, or leave such texts out: by data.damaged: skip, or other data.")
    left = sorted(set(range(len(split))) - set(unknown))
    if not left:
        raise CompressError(f"{told} No text is left; give the model another alphabet.")
    log.warning("%s They are left out.", told)
    digest = hashlib.sha256(f"readable {split.digest} {alphabet.characters}".encode()).hexdigest()
    return replace(split, annotations=[split.annotations[place] for place in left], image=Chosen(split.image, left), digest=digest)


def unknown_told(split: Split, alphabet: Alphabet, places: Sequence[int]) -> str:
    """How many texts hold characters that are not in the alphabet, and which these are."""
    characters = sorted(set().union(*(alphabet.missing(split.annotations[place].truth.text) for place in places)))
    named = " ".join(characters[:SHOWN]) + (f" and {len(characters) - SHOWN} more" if len(characters) > SHOWN else "")
    first = split.annotations[places[0]]
    return (
        f"{len(places)} of {len(split)} texts of the {split.name} split hold characters that are not in the model's alphabet ({named}), "
        f"that of {first.name} first: '{first.truth.text}'."
    )


def long_told(split: Split, algorithm: Algorithm, width: int) -> str:
    """How many texts need more steps than an input of `width` pixels has, or a decoder: they are no part of the loss. Empty for none."""
    if algorithm.alphabet is None:
        return ""
    most = algorithm.longest or width // algorithm.input.multiple[1]
    needed = len if algorithm.longest else steps_needed
    long = [annotation for annotation in split.annotations if needed(annotation.truth.text) > most]
    if not long:
        return ""
    limit = (
        f"the {most} characters of the model's decoder"
        if algorithm.longest
        else f"the {most} steps of an input that is {width} pixels wide"
    )
    return (
        f"{len(long)} of {len(split)} texts of the {split.name} split need more than {limit}, that of {long[0].name} first: "
        f"'{long[0].truth.text}'. They are left out of the loss."
    )


def unreadable(split: Split, alphabet: Alphabet | None, steps: int | None) -> dict[str, list[str]]:
    """What is wrong with the texts of a split for a model, one sentence each, by what it is: unknown characters, and too long ones.

    Raises CompressError for a split without texts.
    """
    if any(not isinstance(annotation.truth, Line) for annotation in split.annotations):
        raise CompressError("--alphabet and --steps look at texts of lines, and these data have none; leave them out.")
    texts = [(annotation.name, annotation.truth.text) for annotation in split.annotations]
    found: dict[str, list[str]] = {}
    if alphabet:
        found["texts with unknown characters"] = [
            f"{name}: the text '{text}' holds {' '.join(missing)}, not in the alphabet"
            for name, text in texts
            if (missing := alphabet.missing(text))
        ]
    if steps:
        found["too long texts"] = [
            f"{name}: the text '{text}' needs {needed} steps of {steps}" for name, text in texts if (needed := steps_needed(text)) > steps
        ]
    return found


@dataclass(frozen=True)
class Chosen:
    """`chosen(index)`: the image at the index-th of `places`."""

    image: Callable[[int], np.ndarray]
    places: list[int]

    def __call__(self, index: int) -> np.ndarray:
        return self.image(self.places[index])
