"""Data format `labels`: images that belong to a class as a whole, by lists of PaddleOCR's kind, a line `path<TAB>label` for each."""

from __future__ import annotations

from typing import ClassVar, Literal

from compress.data.lists import ImageLists
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
