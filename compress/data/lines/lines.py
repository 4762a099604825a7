"""Data format `lines`: images of a line or a word of text each, from lists, or cut from a detection data set."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compress.data.cache import kept
from compress.data.detection.formats import DetectionData
from compress.data.files import Damaged, settle
from compress.data.lines.augment_text import AugmentText
from compress.data.lines.crops import crops
from compress.data.lists import ImageLists
from compress.data.split import Split
from compress.errors import CompressError
from compress.models.contract import Line

ICDAR = re.compile(r"(?P<path>[^,\t]+),\s*\"(?P<text>.*)\"")
ESCAPED = re.compile(r"\\([\"\\])")  # a quotation mark or a backslash, behind another backslash
CUTTER = 2  # raised whenever the same scenes come to be cut differently


class Lines(ImageLists):
    """Images of lines of text, in the folder `root` with lists of their texts; or, with `from`, the legible words of a detection data set.

    A line of a list is `path<TAB>text`, PaddleOCR's `["a.jpg", "b.jpg"]<TAB>text` for several images of one text, or ICDAR's
    `word_1.png, "text"`.
    from: a `data` section of a detection format. The words of each of its splits are that split here.
    """

    task: ClassVar[str] = "recognition"
    usual: ClassVar = ("{}.txt", "{}_label.txt", "rec_gt_{}.txt")
    holds: ClassVar = "a text"

    format: Literal["lines"]
    root: Path | None = None  # type: ignore[assignment]  # none where words are cut from scenes
    from_: Annotated[DetectionData, Field(discriminator="format")] | None = Field(default=None, alias="from")

    @model_validator(mode="after")
    def check_source(self) -> Lines:
        """Refuse lines from nowhere, or from two places."""
        if (self.root is None) == (self.from_ is None):
            raise ValueError("say either `root`, a folder with lists, or `from`, a detection data set to cut words from")
        return self

    def parted(self, line: str) -> list[tuple[str, str]]:
        """The paths of a line of any of the three kinds, and its text."""
        return [(path, text) for paths, text in [path_and_text(line)] if paths for path in paths_of(paths)]

    def truth(self, content: str) -> Line:
        """The text as it is written."""
        if not content.strip():
            raise ValueError("the text is empty")
        if "\t" in content:
            raise ValueError("there is a tab in the text")
        return Line(content)

    def default_augment(self) -> AugmentText:
        """How the lines are augmented unless a recipe says otherwise."""
        return AugmentText()

    def splits(self) -> tuple[str, ...]:
        """Those of the lists, or of the data set that words are cut from."""
        return self.from_.splits() if self.from_ else super().splits()

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """As :meth:`ImageLists.open`; or the words, cut into the cache once."""
        if self.from_ is None:
            return super().open(split, seed, progress)
        scenes = skipping(self.from_, self.damaged).open(split, seed, progress)
        digest = hashlib.sha256(f"lines from {CUTTER} {scenes.digest}".encode()).hexdigest()
        entry = kept(digest, lambda damage: crops(scenes, damage, progress))
        if not entry.annotations:
            raise CompressError(f"data.from: the {split} part has no legible words with texts; use a data set that has transcriptions.")
        settle(entry.problems, self.damaged)
        return Split(split, entry.annotations, entry.pixels, digest, (*scenes.problems, *entry.problems))


def path_and_text(line: str) -> tuple[str, str]:
    """What stands before and behind the tab; of ICDAR's word lists, before and between the quotation marks. Nothing of other lines."""
    path, tab, text = line.partition("\t")
    if tab:
        return path, text
    found = ICDAR.fullmatch(line.removeprefix("\ufeff").strip())
    return (found["path"], ESCAPED.sub(r"\1", found["text"])) if found else ("", "")


def paths_of(written: str) -> list[str]:
    """The path, or those of a JSON list."""
    if written.startswith("["):
        try:
            found = json.loads(written)
        except ValueError:
            return [written]
        return [path for path in found if isinstance(path, str)]
    return [written]


def skipping(scenes: DetectionData, damaged: Damaged) -> DetectionData:
    """The detection data set; what is damaged in it is skipped where it is in the words."""
    skip = damaged == "skip" and "damaged" in type(scenes).model_fields
    return scenes.model_copy(update={"damaged": "skip"}) if skip else scenes
