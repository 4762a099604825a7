"""ICDAR2015 incidental scene text (Karatzas et al. 2015, challenge 4): quadrilateral words, `###` for do-not-care."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from compress.data.detection.folder import FilePerImage, Files, Word, annotated, coordinates, numbered_lines, one_line, outlined
from compress.data.split import Annotation

DO_NOT_CARE = "###"
# Of the multilingual sets of 2017 and 2019, whose lines have it before the transcription.
LANGUAGES = frozenset(("Arabic", "Latin", "Chinese", "Japanese", "Korean", "Bangla", "Hindi", "Symbols", "Mixed", "None"))


class Icdar2015(FilePerImage):
    """The data set in the folder `root`, with plain (`train_images`, `train_gts`) or the official folder names."""

    images: ClassVar = {
        "train": ("train_images", "ch4_training_images", "training_images"),
        "test": ("test_images", "ch4_test_images"),
    }
    truths: ClassVar = {
        "train": ("train_gts", "ch4_training_localization_transcription_gt", "training_gts"),
        "test": ("test_gts", "Challenge4_Test_Task1_GT", "ch4_test_gts", "ch4_test_localization_transcription_gt"),
    }
    expected: ClassVar = "train_images and train_gts"

    format: Literal["icdar2015"]

    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        lines = numbered_lines(file, problems)
        if lines is None:
            return None
        words = annotated(file.name, lines, word, problems)
        texts = words.truth.texts
        if texts and all(text.partition(",")[0] in LANGUAGES and "," in text for text in texts):
            problems.append(f"{file.truth}: '{texts[0]}' and the others begin with a language; read the data as icdar2017")
            return None
        return words

    def rendered(self, words: Annotation) -> bytes:
        lines = []
        for polygon, text, skip in zip(words.truth.polygons, words.truth.texts, words.truth.ignore, strict=True):
            if len(polygon) != 4:
                raise ValueError(f"the word '{text}' has {len(polygon)} corners, and icdar2015 holds words of four corners alone")
            lines.append(",".join([*coordinates(polygon), DO_NOT_CARE if skip else one_line(text)]) + "\n")
        return "".join(lines).encode()


def word(line: str) -> Word:
    polygon, text = parse_line(line)
    return polygon, text, text == DO_NOT_CARE


def parse_line(line: str) -> tuple[np.ndarray, str]:
    """`x1,y1,x2,y2,x3,y3,x4,y4,text` to a (4, 2) float32 polygon and the text, in which commas may stand.

    Raises ValueError, saying what is wrong.
    """
    fields = line.split(",", 8)
    if len(fields) != 9:
        raise ValueError(f"8 coordinates and a transcription are needed, there are {len(fields)} fields")
    return outlined(fields[:8], fields[8]), fields[8].strip()
