"""Data format `labels`: images that belong to a class as a whole, by lists of PaddleOCR's kind, a line `path<TAB>label` for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from compress.data.lists import ImageLists
from compress.data.split import Split
from compress.errors import CompressError
from compress.models.contract import Label


class Labels(ImageLists):
    """Images in the folder `root` and lists of their labels.

    labels: those that there are; a line with another one is damaged. Any may occur where none are given.
    """

    task: ClassVar[str] = "classification"
    usual: ClassVar = ("{}.txt", "{}_label.txt", "cls_gt_{}.txt")
    holds: ClassVar = "a label"

    format: Literal["labels"]
    labels: tuple[str, ...] = ()

    def truth(self, content: str) -> Label:
        """The label as it is written."""
        if not content.strip() or "\t" in content:
            raise ValueError("a label is needed after the path and the tab, and nothing else")
        if self.labels and content not in self.labels:
            raise ValueError(f"'{content}' is none of the labels {', '.join(self.labels)}")
        return Label(content)

    def kind(self, content: str) -> str:
        """The label: lists are often sorted by it."""
        return content


def check_labels(split: Split, known: Sequence[str]) -> None:
    """Raises CompressError for an image whose label is none of those that a model knows, where it names some."""
    for annotation in split.annotations if known else ():
        if annotation.truth.name not in known:
            what = f"{annotation.name} of the {split.name} split has the label '{annotation.truth.name}'"
            raise CompressError(f"{what}, but the model knows {', '.join(known)}; correct the label, or take the line out of its list.")
