"""Total-Text (Ch'ng and Chan 2017; Ch'ng et al. 2020): words along curves, polygons of any length, `#` for do-not-care.

Two text forms are read: `x: [[..]], y: [[..]], ornt: [u'c'], transcriptions: [u'text']`, as the authors publish it, whose arrays may run
over several lines, and `x1,y1,...,xn,yn,text`, in which DB's and other repositories share the set.
"""

from __future__ import annotations

import ast
import re
from typing import ClassVar, Literal

from compress.data.detection.folder import FilePerImage, Files, Word, annotated, coordinates, numbered_lines, numbers_and_text, outlined
from compress.data.split import Annotation

DO_NOT_CARE = ("#", "###")
RECORD = re.compile(r"x:\s*\[\[(.*?)\]\],?\s*y:\s*\[\[(.*?)\]\],?\s*ornt:\s*\[(.*?)\],?\s*transcriptions:\s*\[(.*)\]\s*", re.DOTALL)
NEXT = re.compile(r"(?<=\])[\s,;]*(?=x:\s*\[\[)")  # between two records of one line
FRAME = re.compile(r"^(poly_)?gt_|\.(jpe?g|png)$", re.IGNORECASE)


class TotalText(FilePerImage):
    """The data set in the folder `root`, with the authors' folder names or plain ones (`train_images`, `train_gts`)."""

    images: ClassVar = {"train": ("Images/Train", "train_images", "Train"), "test": ("Images/Test", "test_images", "Test")}
    truths: ClassVar = {
        "train": ("Groundtruth/Polygon/Train", "txt_format/Train", "gt/Train", "train_gts"),
        "test": ("Groundtruth/Polygon/Test", "txt_format/Test", "gt/Test", "test_gts"),
    }
    written: ClassVar = "poly_gt_{}.txt"
    expected: ClassVar = "Images/Train and Groundtruth/Polygon/Train"
    stored: ClassVar = True
    reader: ClassVar = 3

    format: Literal["totaltext"]

    @staticmethod
    def paired_by(stem: str) -> str:
        return FRAME.sub("", stem)

    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        lines = numbered_lines(file, problems)
        return None if lines is None else annotated(file.name, records(lines), word, problems)

    def rendered(self, words: Annotation) -> bytes:
        lines = []
        for polygon, text, skip in zip(words.truth.polygons, words.truth.texts, words.truth.ignore, strict=True):
            xs, ys = (" ".join(coordinates(column)) for column in polygon.T)
            shape = "#" if skip else "h" if len(polygon) == 4 else "c"
            lines.append(f"x: [[{xs}]], y: [[{ys}]], ornt: [u'{shape}'], transcriptions: [u{'#' if skip else text!r}]\n")
        return "".join(lines).encode()


def records(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Lines, those with several records parted, and those that go on with an array begun before joined to its first."""
    joined: list[tuple[str, str]] = []
    for place, line in [(where, part) for where, whole in lines for part in NEXT.split(whole)]:
        if joined and joined[-1][1].startswith("x:") and not line.startswith("x:") and not RECORD.fullmatch(joined[-1][1]):
            place, line = joined[-1][0], f"{joined.pop()[1]}\n{line}"
        joined.append((place, line))
    return joined


def word(line: str) -> Word:
    """One record of either form. Raises ValueError, saying what is wrong."""
    if not line.startswith("x:"):
        numbers, text = numbers_and_text(line)
        if len(numbers) < 8:  # a line of ICDAR2015's that has lost a corner would else be a triangle
            raise ValueError(f"at least 8 coordinates and a transcription are needed, there are {len(numbers)}")
        return outlined(numbers, text), text, text in DO_NOT_CARE
    found = RECORD.fullmatch(line)
    if not found:
        raise ValueError("a word needs x, y, ornt and transcriptions, each in brackets")
    xs, ys, shape, text = found[1].replace(",", " ").split(), found[2].replace(",", " ").split(), unquoted(found[3]), unquoted(found[4])
    if len(xs) != len(ys):
        raise ValueError(f"there are {len(xs)} values of x and {len(ys)} of y")
    return outlined([value for corner in zip(xs, ys, strict=True) for value in corner], text), text, text in DO_NOT_CARE or shape == "#"


def unquoted(literal: str) -> str:
    """`u'text'` as Python writes it; what is no text, or has a quote that was not escaped, is taken as it stands between outer quotes.

    Raises ValueError for `None`, which is no transcription.
    """
    literal = literal.strip()
    if literal == "None":
        raise ValueError("its transcription is None, which is no text")
    try:
        value = ast.literal_eval(literal) if literal else ""
        return value if isinstance(value, str) else literal
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return re.sub(r"^u?(['\"])(.*)\1$", r"\2", literal, flags=re.DOTALL)
