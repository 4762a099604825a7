"""Lines of any format as folders with lists, or as Lightning databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from compress.data.data_format import DataFormat
from compress.data.lines.lmdb_lines import MISSING, image_key, label_key
from compress.data.split import Split
from compress.errors import CompressError

ROOM = 1 << 40  # bytes: the most that a database may come to; the file is as large as what is in it
AT_ONCE = 1000  # lines written in one transaction

Writer = Callable[[Path, str, Split], None]


def write_lists(out: Path, name: str, split: Split) -> None:
    """`<split>.txt`, a line `path<TAB>text` for each image, and the images as PNG in the folder of that name."""
    (out / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (text, data) in enumerate(encoded(split), 1):
        path = f"{name}/{number:07d}.png"
        (out / path).write_bytes(data)
        lines.append(f"{path}\t{text}\n")
    (out / f"{name}.txt").write_text("".join(lines), encoding="utf-8", newline="\n")


def write_lmdb(out: Path, name: str, split: Split) -> None:
    """A database in the folder `<split>`, its images PNG. Raises CompressError where the package is missing."""
    try:
        import lmdb
    except ImportError:
        raise CompressError(MISSING) from None

    (out / name).mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(out / name), map_size=ROOM, lock=False) as database:
        batch: list[tuple[bytes, bytes]] = [(b"num-samples", str(len(split)).encode())]
        for number, (text, data) in enumerate(encoded(split), 1):
            batch += [(image_key(number), data), (label_key(number), text.encode())]
            if number % AT_ONCE == 0 or number == len(split):
                with database.begin(write=True) as transaction:
                    for key, value in batch:
                        transaction.put(key, value)
                batch = []


WRITERS: dict[str, Writer] = {"lines": write_lists, "lmdb": write_lmdb}


def encoded(split: Split) -> Iterator[tuple[str, bytes]]:
    """Text and PNG file of every image."""
    for index in range(len(split)):
        sample = split[index]
        _, data = cv2.imencode(".png", cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR))
        yield sample.truth.text, data.tobytes()


def write_lines(source: DataFormat, out: Path, out_format: str) -> list[str]:
    """Write all splits of `source`, whose samples are lines, and say how many images each has. What was left out is said too."""
    told = []
    for name in source.splits():
        split = source.open(name, 0)
        if not len(split):
            raise CompressError(f"The {name} split of the data is empty; there is nothing to convert.")
        WRITERS[out_format](out, name, split)
        told.append(f"{name}: {len(split)} images")
        told += [f"Left out: {problem}." for problem in split.problems]
    return told
