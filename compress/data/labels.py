"""Pictures that are labelled as a whole, by label files of PaddleOCR's kind: a line `path<TAB>label` for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compress.data.detection.folder import Files, fingerprints, summary
from compress.data.detection.paddleocr import listed
from compress.data.images import read_image
from compress.data.split import Annotation, Split
from compress.errors import CompressError
from compress.models.contract import Label

NAMES = ("{}.txt", "{}_label.txt", "cls_gt_{}.txt")


def open_labelled(place: Path, split: str, labels: Sequence[str], root: Path | None = None) -> Split:
    """The pictures of a label file, or of the one in the folder `place` that is called after the split; decoded when asked for.

    Their samples have no polygons, and the label as the one text. labels: those there are; any where none are given. root: the folder
    from which the file's paths lead on; unless given, that of the file or the one above.
    Raises CompressError for a file that is not there or lists nothing, and, all in one sentence, for lines that cannot be used.
    """
    path = label_file(place, split)
    problems: list[str] = []
    files: dict[Path, Files] = {}
    for file in listed(path, (root,) if root else (path.parent, path.parent.parent), "the label", problems):
        label = file.content.decode()
        if labels and label not in labels:
            problems.append(f"{path}:{file.line}: '{label}' is none of the labels {', '.join(labels)}")
        elif file.image in files:
            problems.append(f"{path}:{file.line}: {file.image} was listed before, in line {files[file.image].line}")
        else:
            files[file.image] = file
    if problems:
        raise CompressError(f"{summary(problems)} Repair them, or take the lines out.")
    if not files:
        raise CompressError(f"{path} lists no pictures; it must have lines of a path, a tab and a label.")
    ordered = list(files.values())

    def picture(index: int) -> np.ndarray:
        return read_image(ordered[index].image)

    annotations = [Annotation(file.name, Label(file.content.decode())) for file in ordered]
    return Split(path.stem, annotations, picture, fingerprints("labels 1", ordered)[0])


def label_file(place: Path, split: str) -> Path:
    """`place` itself, or the label file of the split in that folder."""
    if place.is_file():
        return place
    names = [name.format(split) for name in NAMES]
    found = next((place / name for name in names if (place / name).is_file()), None)
    if found is None:
        what = f"{place} holds no label file {' or '.join(names)}" if place.is_dir() else f"There is no label file at {place}"
        raise CompressError(f"{what}; give a file of lines `path<TAB>label`, or the folder of one.")
    return found
