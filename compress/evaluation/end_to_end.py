"""How well the words of images are found and read: Task 4 of the Robust Reading Competition, "end-to-end recognition" and "word spotting".

Karatzas et al. 2015, "ICDAR 2015 Competition on Robust Reading". Words and detections are matched as in `compress.evaluation.icdar`; a
matched detection is right where its text is, too. One that lies right and is misread has used up its word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from compress.errors import CompressError
from compress.evaluation.icdar import in_parts, matches

# Detections, polygons and do-not-care flags, as in a `Scene`; the texts of the polygons, those of the detections, and a lexicon or nothing.
ReadScene = tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[bool], Sequence[str], Sequence[str], Sequence[str]]

SPECIAL = "!?.:,*\"()·[]/'"
SHORTEST = 3  # letters of a word that is spotted
# First and last letters of the ranges that words to be spotted are made of, beside the hyphen, and what is no letter in them.
LETTERS = (("a", "z"), ("A", "Z"), ("À", "ƿ"), ("Ǆ", "ɿ"), ("Ά", "Ͽ"))
NO_LETTERS = "\xd7\xf7\xb7"  # signs of multiplication and division, and the point between


def end_to_end_scores(images: Sequence[ReadScene]) -> dict[str, float]:
    """Scores over a split, each in 0..1, and 0 where there is nothing to count.

    precision, recall, hmean: end-to-end recognition, by :func:`same_text`. spotting: the harmonic mean of word spotting, where words
    count that :func:`spotted` gives a text, which must be equal but for case. similarity: 1-NED, the mean of 1 - edit distance / length of
    the longer text, of the pairs of a word and the detection that it takes, as they are written.
    A lexicon replaces what was read by its nearest word, see :func:`nearest`, in all of them.
    """
    counts, words, similarities = np.zeros(3, int), np.zeros(3, int), list[float]()
    for some in in_parts(images):
        read, true = texts_of(some)
        wanted = [spotted(text) for text in true]
        pairs, judged = paired(some, true)
        counts += sum(same_text(true[i], read[j]) for i, j in pairs), judged, len(true) - true.count("")
        similarities += [Levenshtein.normalized_similarity(read[j], true[i]) for i, j in pairs]
        pairs, judged = paired(some, wanted)
        words += sum(wanted[i].upper() == read[j].upper() for i, j in pairs), judged, len(wanted) - wanted.count("")
    precision, recall, hmean = ratios(counts)
    similarity = sum(similarities) / len(similarities) if similarities else 0.0
    return {"precision": precision, "recall": recall, "hmean": hmean, "spotting": ratios(words)[2], "similarity": similarity}


def texts_of(images: Sequence[ReadScene]) -> tuple[list[str], list[str]]:
    """What was read and what is true, image after image; the true text of a do-not-care word is empty."""
    read, true = list[str](), list[str]()
    for _, polygons, ignore, texts, found, lexicon in images:
        if len(texts) != len(polygons):
            raise CompressError("The ground truth of an image has no texts, by which reading is judged; use data that have transcriptions.")
        read += [nearest(text, lexicon) for text in found] if lexicon else found
        true += ["" if skip else text for text, skip in zip(texts, ignore, strict=True)]
    return read, true


def paired(images: Sequence[ReadScene], true: Sequence[str]) -> tuple[list[tuple[int, int]], int]:
    """The (word, detection) pairs, numbered through, and how many detections count; words without a text are do-not-care."""
    skipped, scenes = iter([not text for text in true]), []
    for found, polygons, *_ in images:
        scenes.append((found, polygons, list(islice(skipped, len(polygons)))))
    result = matches(scenes)
    return list(zip(result.word.tolist(), result.box.tolist(), strict=True)), int(result.cared.sum())


def ratios(counts: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean of how many are right, were found, and are there."""
    right, found, there = counts.tolist()
    precision, recall = (right / many if many else 0.0 for many in (found, there))
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def same_text(true: str, found: str) -> bool:
    """Whether two texts are equal but for case, where the true one may lose one of `SPECIAL` at each end."""
    true, found = true.upper(), found.upper()
    starts = (0, 1) if true[:1] in SPECIAL else (0,)
    ends = (len(true), len(true) - 1) if true[-1:] in SPECIAL else (len(true),)
    return any(true[start:end] == found for start in starts for end in ends)


def spotted(text: str) -> str:
    """What must be read of a word for it to be spotted: without 's, hyphens and `SPECIAL` around it; empty for one that does not count.

    Words count that are three letters long and more, and nothing but letters and hyphens inside.
    """
    text = text[:-2] if text[-2:] in ("'s", "'S") else text
    text = text.strip("-").translate(dict.fromkeys(map(ord, SPECIAL), " ")).strip()
    letters = all(letter == "-" or any(low <= letter <= high for low, high in LETTERS) for letter in text)
    return text if len(text) >= SHORTEST and letters and not set(text) & set(NO_LETTERS) else ""


def nearest(text: str, lexicon: Iterable[str]) -> str:
    """The word of a lexicon, which has one at least, with the least edit distance to `text`, whatever the case; the first of equals."""
    word, *_ = process.extractOne(text, lexicon, processor=str.upper, scorer=Levenshtein.distance)
    return word
