"""SCUT-CTW1500 (Liu et al. 2017): curved lines of text, polygons of 14 corners, `###` for do-not-care.

All the forms it was published in are read: text lines of a box and 28 offsets from its corner, without transcriptions (2017); XML with
`segs` and `label` for training and lines `x1,y1,...,x14,y14,####text` for the test part (2020). Written is the last, for both parts.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import ClassVar, Literal

from compress.data.detection.folder import (
    NUMBER,
    FilePerImage,
    Files,
    Word,
    annotated,
    coordinates,
    numbered_lines,
    one_line,
    outlined,
)
from compress.data.split import Annotation

DO_NOT_CARE = "###"
MARK = "####"
CORNERS = 28  # fields of a line: x, y of 14 corners
OFFSETS = 32  # fields of a line: left, top, right, bottom, and x, y of 14 corners from the left top


class Ctw1500(FilePerImage):
    """The data set in the folder `root`, with the names of either publication or plain ones (`train_images`, `train_gts`)."""

    images: ClassVar = {"train": ("train_images", "train/text_image"), "test": ("test_images", "test/text_image")}
    truths: ClassVar = {
        "train": ("ctw1500_train_labels", "train/text_label_curve", "train_gts"),
        "test": ("gt_ctw1500", "ctw1500_test_labels", "test/text_label_curve", "test_gts"),
    }
    truth_suffixes: ClassVar = (".txt", ".xml")
    written: ClassVar = "{}.txt"
    expected: ClassVar = "train_images and ctw1500_train_labels"
    stored: ClassVar = True

    format: Literal["ctw1500"]

    @staticmethod
    def paired_by(stem: str) -> str:
        return stem.lstrip("0") or "0"  # image 1001 has its annotations in 0001001.txt

    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        if file.truth.suffix.lower() != ".xml":
            lines = numbered_lines(file, problems)
            return None if lines is None else annotated(file.name, lines, word_of_line, problems)
        try:
            if b"<!ENTITY" in file.content:
                raise ElementTree.ParseError("it defines entities, which no annotations need")
            boxes = ElementTree.fromstring(file.content).iter("box")
        except ElementTree.ParseError as error:
            problems.append(f"{file.truth}: not XML ({error})")
            return None
        return annotated(file.name, ((f"{file.truth}: box {number}", box) for number, box in enumerate(boxes, 1)), word_of_box, problems)

    def rendered(self, words: Annotation) -> bytes:
        lines = [
            ",".join([*coordinates(polygon), MARK + (DO_NOT_CARE if skip else one_line(text))]) + "\n"
            for polygon, text, skip in zip(words.truth.polygons, words.truth.texts, words.truth.ignore, strict=True)
        ]
        return "".join(lines).encode()


def word_of_box(box: ElementTree.Element) -> Word:
    """`<box><label>text</label><segs>x1,y1,...</segs></box>`. Raises ValueError, saying what is wrong."""
    text = (box.findtext("label") or "").strip()
    return outlined((box.findtext("segs") or "").strip(" ,").split(","), text), text, text == DO_NOT_CARE


def word_of_line(line: str) -> Word:
    """A line of either form. Raises ValueError, saying what is wrong."""
    before, mark, text = line.partition(MARK)
    if mark:
        text = text.strip()
        return outlined(re.split(r"\s*,\s*", before.strip(" ,")), text), text, text == DO_NOT_CARE
    fields = line.split(",")
    if len(fields) == OFFSETS and all(NUMBER.fullmatch(field) for field in fields):
        corner = outlined([fields[0], fields[1], fields[2], fields[1], fields[2], fields[3]], "")[0]
        return outlined(fields[4:], "") + corner, "", False
    if len(fields) <= CORNERS:
        raise ValueError(f"{CORNERS} coordinates and a transcription are needed, there are {len(fields)} fields")
    text = ",".join(fields[CORNERS:]).strip()
    return outlined(fields[:CORNERS], text), text, text == DO_NOT_CARE
