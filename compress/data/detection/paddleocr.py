"""PaddleOCR's label files: a line `path\t[{"transcription": "text", "points": [[x, y], ...]}, ...]` for each image.

Polygons of any length; the transcriptions `###` and `*` are do-not-care.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from compress.data.detection.folder import (
    Files,
    ImageFolder,
    Word,
    annotated,
    by_number,
    copied_name,
    copy_images,
    json_points,
    outlined,
)
from compress.data.files import listed, text_of
from compress.data.split import Annotation
from compress.files import read_bytes

DO_NOT_CARE = ("###", "*")
LABELS = {
    "train": ("train.txt", "train_label.txt", "train_icdar2015_label.txt", "det_gt_train.txt", "Label.txt"),
    "val": ("val.txt", "val_label.txt", "det_gt_val.txt"),
    "test": ("test.txt", "test_label.txt", "test_icdar2015_label.txt", "det_gt_test.txt"),
}


class PaddleOcr(ImageFolder):
    """The data set in the folder `root`, from which paths in the label files lead on; from the folder above, as PPOCRLabel has it, too.

    train, val, test: label files; without one, a file of a usual name is looked for. The images of `val` are those held out; a `val.txt`
    of names alone is as everywhere.
    """

    expected: ClassVar = "a label file train.txt or Label.txt"

    format: Literal["paddleocr"]
    train: Path | None = None
    val: Path | None = None
    test: Path | None = None

    def labels(self, part: str) -> Path | None:
        """The label file of `train`, `val` or `test`."""
        named = getattr(self, part)
        found = next((self.root / name for name in ((named,) if named else LABELS[part]) if (self.root / name).is_file()), None)
        return None if part == "val" and found and not named and not holds_labels(found) else found

    def has(self, part: str) -> bool:
        return self.labels(part) is not None

    def files(self, part: str) -> tuple[list[Files], list[str]]:
        found: dict[str, Files] = {}
        problems: list[str] = []
        for path in filter(None, (self.labels(part), self.labels("val") if part == "train" else None)):
            for file in listed(path, (self.root, self.root.parent), "the words", problems):
                before = found.setdefault(file.name, file)
                if before is not file:
                    what = "was listed before" if before.image == file.image else f"is called like {copied_name(before)} but for its ending"
                    problems.append(f"{path}:{file.line}: {copied_name(file)} {what}, {before.truth}:{before.line}")
        return [found[name] for name in sorted(found, key=by_number)], problems

    def has_val_list(self) -> bool:
        return super().has_val_list() or self.labels("val") is not None

    def held_out(self, names: list[str], seed: int, problems: list[str]) -> set[str]:
        """Those that a label file of their own lists, where there is one."""
        path = self.labels("val")
        if path is None or self.val_list:
            return super().held_out(names, seed, problems)
        return {file.name for file in listed(path, (self.root, self.root.parent), "the words", [])} & set(names)

    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        place = f"{file.truth}:{file.line}"
        try:
            entries = json.loads(file.content)
        except (ValueError, RecursionError) as error:
            problems.append(f"{place}: not JSON ({error})")
            return None
        if not isinstance(entries, list):
            problems.append(f"{place}: the words of an image are a list in square brackets")
            return None
        return annotated(file.name, ((f"{place}: word {number}", entry) for number, entry in enumerate(entries, 1)), word, problems)

    def rendered(self, words: Annotation) -> bytes:
        listed = [
            {"transcription": DO_NOT_CARE[0] if skip else text, "points": json_points(polygon)}
            for polygon, text, skip in zip(words.truth.polygons, words.truth.texts, words.truth.ignore, strict=True)
        ]
        return json.dumps(listed, ensure_ascii=False).encode()

    def save(self, parts: Mapping[str, Sequence[Files]]) -> None:
        for part, files in parts.items():
            copy_images(files, self.root / part)
            lines = [f"{part}/{copied_name(file)}\t".encode() + file.content + b"\n" for file in files]
            (self.root / LABELS[part][0]).write_bytes(b"".join(lines))


def holds_labels(path: Path) -> bool:
    """Whether a file is one of labels and not one of names: whether its first line that is not empty has a tab in it."""
    text = text_of(path, read_bytes(path, "list of images"), []) or ""
    return "\t" in next((line for line in text.splitlines() if line.strip()), "")


def word(entry: Any) -> Word:
    """One word of an image. Raises ValueError, saying what is wrong."""
    try:
        text, points = entry["transcription"], [value for x, y in entry["points"] for value in (x, y)]
    except (KeyError, TypeError, ValueError):
        raise ValueError("a transcription and points, pairs of x and y, are needed") from None
    if not isinstance(text, str):
        raise ValueError(f"its transcription is {json.dumps(text)[:40]}, which is no text; put it in quotes")
    return outlined(points, text), text, text in DO_NOT_CARE
