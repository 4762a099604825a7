"""ICDAR2017 multi-lingual scene text (Nayef et al. 2017): quadrilateral words, their language, `###` for do-not-care."""

from __future__ import annotations

from typing import ClassVar, Literal

from compress.data.detection.folder import FilePerImage, Files, Word, annotated, coordinates, numbered_lines, one_line, outlined
from compress.data.detection.icdar2015 import DO_NOT_CARE, LANGUAGES
from compress.data.split import Annotation

NOT_KNOWN = "None"  # as the set itself says it of words without a language


class Icdar2017(FilePerImage):
    """The data set in the folder `root`, with plain (`train_images`, `train_gts`) or the official folder names.

    Its validation part is the test part, since the annotations of its own are not public.
    """

    images: ClassVar = {"train": ("train_images", "ch8_training_images"), "test": ("test_images", "ch8_validation_images")}
    truths: ClassVar = {
        "train": ("train_gts", "ch8_training_localization_transcription_gt_v2"),
        "test": ("test_gts", "ch8_validation_localization_transcription_gt_v2"),
    }
    expected: ClassVar = "train_images and train_gts"
    stored: ClassVar = True

    format: Literal["icdar2017"]

    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        lines = numbered_lines(file, problems)
        return None if lines is None else annotated(file.name, lines, word, problems)

    def rendered(self, words: Annotation) -> bytes:
        lines = []
        for polygon, text, skip in zip(words.truth.polygons, words.truth.texts, words.truth.ignore, strict=True):
            if len(polygon) != 4:
                raise ValueError(f"the word '{text}' has {len(polygon)} corners, and icdar2017 holds words of four corners alone")
            lines.append(",".join([*coordinates(polygon), NOT_KNOWN, DO_NOT_CARE if skip else one_line(text)]) + "\n")
        return "".join(lines).encode()


def word(line: str) -> Word:
    """`x1,y1,x2,y2,x3,y3,x4,y4,language,text`; in the text commas may stand. Raises ValueError, saying what is wrong."""
    fields = line.split(",", 9)
    if len(fields) != 10:
        raise ValueError(f"8 coordinates, a language and a transcription are needed, there are {len(fields)} fields")
    if fields[8].strip() not in LANGUAGES:
        raise ValueError(f"'{fields[8]}' is no language of the set ({', '.join(sorted(LANGUAGES))})")
    text = fields[9].strip()
    return outlined(fields[:8], text), text, text == DO_NOT_CARE
