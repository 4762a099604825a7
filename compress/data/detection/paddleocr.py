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
    copy_pictures,
    json_points,
    outlined,
)
from compress.data.files import listed
from compress.data.split import Annotation

DO_NOT_CARE = ("###", "*")
LABELS = {
    "train": ("train.txt", "train_label.txt", "train_icdar2015_label.txt", "det_gt_train.txt", "Label.txt"),
    "test": ("test.txt", "test_label.txt", "test_icdar2015_label.txt", "det_gt_test.txt"),
}


class PaddleOcr(ImageFolder):
    """The data set in the folder `root`, from which paths in the label files lead on; from the folder above, as PPOCRLabel has it, too.

    train, test: label files; without one, a file of a usual name is looked for. What a file called `val.txt` lists is as everywhere.
    """

    expected: ClassVar = "a label file train.txt or Label.txt"

    format: Literal["paddleocr"]
    train: Path | None = None
    test: Path | None = None

    def labels(self, part: str) -> Path | None:
        """The label file of `train` or `test`."""
        named = getattr(self, part)
        return next((self.root / name for name in ((named,) if named else LABELS[part]) if (self.root / name).is_file()), None)

    def has(self, part: str) -> bool:
        return self.labels(part) is not None

    def files(self, part: str) -> tuple[list[Files], list[str]]:
        path = self.labels(part)
        problems: list[str] = []
        found: dict[str, Files] = {}
        for file in listed(path, (self.root, self.root.parent), "the words", problems):
            if file.name in found:
                problems.append(f"{path}:{file.line}: {copied_name(file)} was listed before, in line {found[file.name].line}")
            else:
                found[file.name] = file
        return [found[name] for name in sorted(found, key=by_number)], problems

    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        place = f"{file.truth}:{file.line}"
        try:
            listed = json.loads(file.content)
        except ValueError as error:
            problems.append(f"{place}: not JSON ({error})")
            return None
        if not isinstance(listed, list):
            problems.append(f"{place}: the words of an image are a list in square brackets")
            return None
        return annotated(file.name, ((f"{place}: word {number}", entry) for number, entry in enumerate(listed, 1)), word, problems)

    def rendered(self, words: Annotation) -> bytes:
        listed = [
            {"transcription": DO_NOT_CARE[0] if skip else text, "points": json_points(polygon)}
            for polygon, text, skip in zip(words.truth.polygons, words.truth.texts, words.truth.ignore, strict=True)
        ]
        return json.dumps(listed, ensure_ascii=False).encode()

    def save(self, pictures: Mapping[str, Sequence[Files]]) -> None:
        for part, files in pictures.items():
            copy_pictures(files, self.root / part)
            lines = [f"{part}/{copied_name(file)}\t".encode() + file.content + b"\n" for file in files]
            (self.root / LABELS[part][0]).write_bytes(b"".join(lines))


def word(entry: Any) -> Word:
    """One word of an image. Raises ValueError, saying what is wrong."""
    try:
        text, points = str(entry["transcription"]), [value for x, y in entry["points"] for value in (x, y)]
    except (KeyError, TypeError, ValueError):
        raise ValueError("a transcription and points, pairs of x and y, are needed") from None
    return outlined(points, text), text, text in DO_NOT_CARE
