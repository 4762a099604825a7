"""Small data sets of the formats of others, for the tests of reading and of converting them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from compress.data.detection.folder import ImageFolder
from compress.data.formats import FORMATS

FOLDER_FORMATS = [name for name, kind in FORMATS.items() if issubclass(kind, ImageFolder)]
CURVED = "206,633,251,811,386,931,542,946,620,926,646,976,550,1009,358,989,189,845,140,629"
CURVE = np.array(CURVED.split(","), float).reshape(-1, 2)
SQUARE = [(1, 2), (11, 2), (11, 8), (1, 8)]


def write_image(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((1024, 700, 3), shade, np.uint8))


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def opened(name: str, root: Path, split: str = "test", **fields):
    return FORMATS[name](format=name, root=root, cache=False, **fields).open(split, 0)


def one(name: str, root: Path, image: str, truth: str, content: str | bytes, **fields):
    """The only sample of the test part: an image and its annotations."""
    write_image(root / image)
    put(root / truth, content)
    return opened(name, root, **fields)[0]


def coco(root: Path) -> dict:
    def entry(number: int, image: int, **fields) -> dict:
        plain = {"mask": [1, 2, 11, 2, 11, 8, 1, 8], "legibility": "legible", "language": "english", "utf8_string": "word"}
        return {"id": number, "image_id": image, **plain, **fields}

    annotations = [
        entry(1, 7),
        entry(2, 7, legibility="illegible", utf8_string=""),
        entry(3, 7, mask=CURVE.ravel().tolist(), language="not english", utf8_string="mot"),
        entry(4, 8),
    ]
    sets = {7: "val", 8: "train", 9: "train", 10: "test"}
    for number in (7, 8, 9):
        write_image(root / f"train2014/COCO_{number}.jpg")
    return {
        "anns": {str(item["id"]): item for item in annotations},
        "imgs": {str(number): {"id": number, "set": name, "file_name": f"COCO_{number}.jpg"} for number, name in sets.items()},
    }
