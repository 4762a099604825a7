"""COCO-Text, version 2 (Veit et al. 2016; annotations of 2017): one JSON file, polygons in `mask`, illegible words are do-not-care."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import cv2

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
from compress.data.images import size_and_turn
from compress.data.split import Annotation
from compress.errors import CompressError
from compress.files import read_text

SETS = {"train": "train", "test": "val"}  # the annotations of its own test set are not public: results are given on its `val`
JSON = ("cocotext.v2.json", "annotations/cocotext.v2.json")
FOLDERS = ("images", "train2014", ".")


class CocoText(ImageFolder):
    """The data set in the folder `root`: `cocotext.v2.json`, and the images in `train2014`. Its set `val` is the test part.

    annotations: the JSON file, where it is called otherwise.
    language: `english`, `not english` or `na`: words of any other are do-not-care. Without it all languages count.
    """

    expected: ClassVar = "cocotext.v2.json with images of its set train"

    format: Literal["cocotext"]
    annotations: Path | None = None
    language: Literal["english", "not english", "na"] | None = None

    def source(self) -> Path | None:
        """The JSON file."""
        names = (self.annotations,) if self.annotations else JSON
        return next((self.root / name for name in names if (self.root / name).is_file()), None)

    def has(self, part: str) -> bool:
        path = self.source()
        return path is not None and any(image.get("set") == SETS[part] for image in read(path)["imgs"].values())

    def files(self, part: str) -> tuple[list[Files], list[str]]:
        path = self.source()
        if path is None:  # it was there when the parts were asked for
            raise CompressError(f"data.root: {self.root} has no {JSON[0]} any more; restore it.")
        document = read(path)
        folder = next(self.root / name for name in FOLDERS if (self.root / name).is_dir())
        words: dict[str, list[dict[str, Any]]] = {}
        for key, entry in document["anns"].items():
            words.setdefault(str(entry.get("image_id")), []).append(self.needed(key, entry))
        images = {str(key) for key in document["imgs"]}
        problems = [
            f"{path}: annotation {entry['id']}: there is no image {image_id}"
            for image_id, entries in words.items()
            if image_id not in images
            for entry in entries
        ]
        found: dict[str, Files] = {}
        for key, image in document["imgs"].items():
            listed = str(image.get("file_name", ""))
            if image.get("set") != SETS[part]:
                continue
            if not listed or not (folder / listed).is_file():
                problems.append(f"{path}: image {key}: there is no image {folder / listed}")
                continue
            name = str(PurePosixPath(listed).with_suffix(""))
            if name in found:
                problems.append(f"{path}: image {key}: {listed} is called like {found[name].image.name}, which is listed too")
                continue
            found[name] = Files(name, folder / listed, path, json.dumps(words.get(str(key), [])).encode())
        return [found[name] for name in sorted(found, key=by_number)], problems

    def needed(self, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """What is read of an annotation: it decides the data's fingerprint."""
        skip = entry.get("legibility") != "legible" or self.language not in (None, entry.get("language"))
        return {"id": key, "mask": entry.get("mask"), "utf8_string": entry.get("utf8_string") or "", "ignore": skip}

    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        listed = json.loads(file.content)
        return annotated(file.name, ((f"{file.truth}: annotation {entry['id']}", entry) for entry in listed), word, problems)

    def rendered(self, words: Annotation) -> bytes:
        listed = [
            {
                "id": str(number),
                "mask": [value for point in json_points(polygon) for value in point],
                "utf8_string": text,
                "ignore": bool(skip),
            }
            for number, (polygon, text, skip) in enumerate(zip(words.truth.polygons, words.truth.texts, words.truth.ignore, strict=True))
        ]
        return json.dumps(listed).encode()

    def save(self, parts: Mapping[str, Sequence[Files]]) -> None:
        images: dict[str, Any] = {}
        annotations: dict[str, Any] = {}
        of_image: dict[str, list[int]] = {}
        for part, files in parts.items():
            copy_images(files, self.root / FOLDERS[0] / part)
            for file in files:
                key = len(images) + 1
                (height, width), turn = size_and_turn(file.image)  # the format notes its size, as it is shown
                size = {"height": height, "width": width} if turn <= 4 else {"height": width, "width": height}
                images[str(key)] = {"id": key, "set": SETS[part], "file_name": f"{part}/{copied_name(file)}", **size}
                listed = [full(entry, len(annotations) + place, key) for place, entry in enumerate(json.loads(file.content), 1)]
                annotations |= {str(entry["id"]): entry for entry in listed}
                of_image[str(key)] = [entry["id"] for entry in listed]
        document = {"cats": {}, "anns": annotations, "imgs": images, "imgToAnns": of_image, "info": {"version": "2"}}
        (self.root / JSON[0]).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """The document, read again only when the file has changed. Raises CompressError if it is none."""
    status = path.stat()
    return parsed(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def parsed(path: Path, _changed: int, _size: int) -> dict[str, Any]:
    try:
        document = json.loads(read_text(path))
        whole = isinstance(document, dict) and all(
            isinstance(document[name], dict) and all(isinstance(entry, dict) for entry in document[name].values())
            for name in ("imgs", "anns")
        )
    except (ValueError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise CompressError(f"{path} is not COCO-Text: it takes JSON with `imgs` and `anns`; download cocotext.v2.json again.")
    return document


def word(entry: dict[str, Any]) -> Word:
    """One annotation, as `needed` leaves it. Raises ValueError, saying what is wrong."""
    if not isinstance(entry["mask"], list):
        raise ValueError("it has no `mask`, as version 2 of the annotations has")
    text = str(entry["utf8_string"])
    return outlined(entry["mask"], text), text, entry["ignore"]


def full(entry: dict[str, Any], number: int, image: int) -> dict[str, Any]:
    """An annotation with all the fields that other readers look for; class and language are not known."""
    polygon = outlined(entry["mask"], "")
    (left, top), (right, bottom) = polygon.min(0).tolist(), polygon.max(0).tolist()
    return {
        "id": number,
        "image_id": image,
        "mask": entry["mask"],
        "bbox": [left, top, right - left, bottom - top],
        "area": float(cv2.contourArea(polygon)),
        "legibility": "illegible" if entry["ignore"] else "legible",
        "language": "na",
        "class": "others",
        "utf8_string": entry["utf8_string"],
    }
