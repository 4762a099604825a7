"""Images in, answers out: drawn, and as JSON."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress import outputs
from compress.data.detection.folder import by_number
from compress.data.images import SUFFIXES, read_image
from compress.errors import CompressError
from compress.files import is_folder
from compress.predictor import Predictor, open_predictor

LONGEST = 255  # bytes of a file's name
RESULTS = (".png", ".json")


@dataclass(frozen=True)
class Prediction:
    """What became of one image. record: values that JSON holds; where there is no answer, `image` and `error`. line: it in words."""

    image: Path
    record: dict[str, Any]
    line: str

    @property
    def failed(self) -> bool:
        """Whether there is no answer; `line` is the sentence that says why."""
        return "error" in self.record


def predict_files(inputs: Sequence[Path], model: Path | None, out: Path, device: str) -> Iterator[Prediction]:
    """Write `<out>/<name>.json`, and `<out>/<name>.png` with the answer drawn, for each image; yields what became of it.

    inputs: images, folders, of which all images are taken, and patterns such as `scans/*.jpg`. An image that is named twice is done
    once; see :func:`result_names` for the names. Images are read one after the other, and one that cannot be read, or whose result
    cannot be written, does not stop the others. model: a checkpoint folder or an exported file; None is the detector of the package.
    Raises CompressError for a folder `out` that cannot be written to, for what is no model, and for one tuned on images of another size.
    """
    outputs.check_folder(out)
    given = expanded(inputs)
    names = result_names([path for path, problem in given.items() if not problem], out)
    predictor: Predictor | None = None
    for path, problem in given.items():
        try:
            image = read(path, problem)
        except CompressError as error:
            yield failure(path, str(error))
            continue
        # Only now: with no image that can be read there is nothing to open a model for.
        if predictor is None:
            predictor = open_predictor(model, device=device)
            predictor.preferred()
        try:
            yield answered(predictor, path, image, out / names[path])
        except CompressError as error:
            yield failure(path, str(error))
        except MemoryError:
            yield failure(path, f"{path} needs more memory than there is, at {image.shape[1]} x {image.shape[0]} pixels; make it smaller.")


def read(path: Path, problem: str) -> np.ndarray:
    """The image. Raises CompressError where it cannot be read, or with the problem that is known already."""
    if problem:
        raise CompressError(problem)
    return read_image(path)


def failure(path: Path, sentence: str) -> Prediction:
    """That of an image without an answer."""
    return Prediction(path, {"image": str(path), "error": sentence}, sentence)


def answered(predictor: Predictor, path: Path, image: np.ndarray, stem: Path) -> Prediction:
    """The answer about one image, written into two files: `stem` with `.json` and with `.png` behind it."""
    task = predictor.task
    found = predictor.predict(image).answer
    drawing, answer = (stem.with_name(stem.name + suffix) for suffix in RESULTS)
    size = {"height": image.shape[0], "width": image.shape[1]}
    record = {"image": str(path), "drawing": str(drawing), **size, **task.record(found)}
    text = json.dumps({outputs.MADE_BY: outputs.MAKER, **record}, indent=1) + "\n"
    outputs.write({drawing: outputs.png(task.drawn(image, found)), answer: text.encode()})
    return Prediction(path, record, f"{path}: {task.told(found)}, {drawing}")


def expanded(inputs: Sequence[Path]) -> dict[Path, str]:
    """The images that are meant, each once, in order, and what is wrong with the name, mostly nothing.

    What lies at a path counts before what it means as a pattern. In folders, hidden files and earlier drawings are passed over.
    """
    found: dict[Path, str] = {}
    seen: set[str] = set()
    for given in inputs:
        paths, problem = [given], ""
        if is_folder(given):
            paths = images_in(given)
            problem = f"There is no image in {given}; images end in {', '.join(sorted(SUFFIXES))}."
        elif not os.path.lexists(given) and glob.has_magic(str(given)):
            places = sorted(glob.glob(str(given), recursive=True), key=by_number)  # noqa: PTH207  # patterns may begin at the root
            paths = [image for place in places for image in within(Path(place))]
            problem = f"No file is called like {given}."
        for path in paths or [given]:
            place = os.path.normpath(path.absolute())  # not resolved: two links to one file are two images
            if place not in seen:
                found[path] = "" if paths else problem
            seen.add(place)
    return found


def within(path: Path) -> list[Path]:
    """The file itself, or the images of a folder."""
    return images_in(path) if is_folder(path) else [path]


def images_in(folder: Path) -> list[Path]:
    """The images in a folder and in those below it, by name."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=by_number)
        paths = (Path(place, name) for name in sorted(names, key=by_number) if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in SUFFIXES and not outputs.made_here(path)]
    return found


def result_names(paths: Sequence[Path], out: Path) -> dict[Path, str]:
    """What the results of each image are called, without `.json` and `.png`; no two alike, and none of them an image of `paths`.

    It is `page` for `b/page.jpg`; where another one would be called so, or where `page.png` in `out` is itself to be read, `page.jpg`;
    then `b_page.jpg`, with as many folders as it takes, and with a number in the end.
    """
    inputs = {os.path.realpath(path) for path in paths}
    levels = dict.fromkeys(paths, 0)
    for _ in range(max((len(path.absolute().parts) for path in paths), default=0) + 1):
        names = {path: fitted(called(path, level), path) for path, level in levels.items()}
        counts = Counter(name.casefold() for name in names.values())
        taken = [path for path, name in names.items() if counts[name.casefold()] > 1 or clashes(out / name, inputs)]
        if not taken:
            return names
        levels.update((path, levels[path] + 1) for path in taken)
    return {path: fitted(f"{name}-{number}", path) for number, (path, name) in enumerate(names.items(), 1)}


def called(path: Path, level: int) -> str:
    """The stem, the name with its suffix, then the name with ever more of the folders before it."""
    return path.stem if level == 0 else "_".join(path.absolute().parts[1:][-level:])


def clashes(stem: Path, inputs: set[str]) -> bool:
    """Whether a result would lie where one of the images lies."""
    return any(os.path.realpath(stem.with_name(stem.name + suffix)) in inputs for suffix in RESULTS)


def fitted(name: str, path: Path) -> str:
    """The name, or where it would be too long for a file, its beginning and a digest of the whole."""
    longest = LONGEST - max(map(len, RESULTS))
    if len(os.fsencode(name)) <= longest:
        return name
    mark = "~" + hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]
    while len(os.fsencode(name)) > longest - len(mark):
        name = name[:-1]
    return name + mark
