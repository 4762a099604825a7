"""`compress data convert`: a data set in another format. What the format cannot hold is refused, or said."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from compress.data.data_format import DataFormat
from compress.data.detection.folder import PARTS, ImageFolder, inside
from compress.data.files import Files, summary
from compress.data.formats import FORMATS, from_options
from compress.data.images import size_and_turn, turned_back, turned_points
from compress.data.lines.convert import WRITERS, write_lines
from compress.data.lines.lines import Lines
from compress.data.split import Annotation
from compress.errors import CompressError, suggestion
from compress.models.contract import Words
from compress.outputs import check_new

SAME = 0.01  # pixels; only turned rectangles, which are written by their angle, come back otherwise than exactly


def convert(source: Path, source_format: str, out: Path, out_format: str, damaged: str = "refuse") -> list[str]:
    """Write the data set in the folder `source` into the new folder `out`, and say in sentences what was written and what was lost.

    To a format of lines, lines are written as PNG, and words of scenes are cut out. To one of scenes, images are copied as they are. Every
    annotation is read back before anything is written: its outline and whether it counts must come back, else CompressError is raised;
    transcriptions that the format has no place for are counted. Where one format has the coordinates of the stored pixels and the other
    those of the shown ones, words turn with their images. The training part stays whole; which images are held out goes along, as
    `val.txt`. damaged: `refuse` what cannot be read, or `skip` it and say so.
    """
    if damaged not in ("refuse", "skip"):
        raise CompressError(f"--damaged {damaged} is not known{suggestion(damaged, ('refuse', 'skip'))}")
    check_new(out)
    if out_format in WRITERS:
        return convert_lines(lines_of(source_format, source, damaged), out, out_format)
    reading, writing = folder_format(source_format, source), folder_format(out_format, out)
    reading.splits()
    told, problems, changed = list[str](), list[str](), list[str]()
    chosen, names, held = dict[str, list[Files]](), dict[str, str](), None
    for part in filter(reading.has, PARTS):
        files, alone = reading.files(part)
        if part == "train" and files and reading.has_val_list():
            held = reading.held_out([file.name for file in files], 0, alone)
        problems += alone
        chosen[part] = [file for file in (converted(file, reading, writing, problems, changed) for file in files) if file]
        names |= new_names(chosen[part])
        writing.check_names([names[file.name] for file in chosen[part]])
        told.append(f"{part}: {len(chosen[part])} images")
    if problems and damaged == "refuse":
        raise CompressError(f"{summary(problems)} Repair them, or leave them out with --damaged skip.")
    if not any(chosen.values()):
        left = f": {summary(problems)}" if problems else "."
        raise CompressError(f"{source} has no images that can be converted{left}")
    if problems:
        told.append(f"Left out: {summary(problems)}")
    if changed:
        told.append(f"{len(changed)} transcriptions are not the same in {out_format}, that of {changed[0]} first.")
    renamed = {part: [replace(file, name=names[file.name]) for file in files] for part, files in chosen.items()}
    trained = [file.name for file in chosen.get("train", [])]
    save(writing, renamed, None if held is None else [names[name] for name in trained if name in held], out)
    return told


def lines_of(name: str, root: Path, damaged: str) -> DataFormat:
    """The lines in the folder `root`: those of a format of lines, or the words of one of scenes."""
    found = from_options(name, root)
    if "damaged" not in type(found).model_fields or found.task not in ("recognition", "detection"):
        raise CompressError(f"Data of the format {name} hold no lines, nor words to cut from them; convert other data.")
    found = found.model_copy(update={"damaged": damaged})
    if found.task == "recognition":
        return found
    return Lines.model_validate({"format": "lines", "from": found.model_dump(), "damaged": damaged})


def convert_lines(source: DataFormat, out: Path, out_format: str) -> list[str]:
    """Write all lines into `out`, whole or not at all; see :func:`convert`."""
    told: list[str] = []
    appear(out, lambda partial: told.extend(write_lines(source, partial, out_format)))
    return told


def save(writing: ImageFolder, chosen: dict[str, list[Files]], held: list[str] | None, out: Path) -> None:
    """Write the data set into `out`, whole or not at all. held: names of the images held out, where a list says so."""

    def write(partial: Path) -> None:
        writing.model_copy(update={"root": partial}).save(chosen)
        if held is not None:
            (partial / "val.txt").write_text("".join(f"{name}\n" for name in held), encoding="utf-8", errors="surrogateescape")

    appear(out, write)


def appear(out: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, which is called `out` once it is complete; nothing is left where that fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{out.name[:40]}.", suffix=".partial", dir=out.parent))
    try:
        write(partial)
        if out.exists():
            out.rmdir()
        partial.chmod(0o755)
        partial.rename(out)
    except OSError as error:
        raise CompressError(f"{out} cannot be written ({error.strerror}); nothing of it was left.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def folder_format(name: str, root: Path) -> ImageFolder:
    """The format called `name`, its data in `root`. Raises CompressError for one that is not of scenes in a folder."""
    config = from_options(name, root)
    if not isinstance(config, ImageFolder):
        known = ", ".join(sorted([*(name for name, kind in FORMATS.items() if issubclass(kind, ImageFolder)), *WRITERS]))
        raise CompressError(f"Data of the format {name} cannot be converted; formats that can are {known}.")
    return config


def converted(file: Files, reading: ImageFolder, writing: ImageFolder, problems: list[str], changed: list[str]) -> Files | None:
    """The file with its words in the other format; None if they, or the image's size, cannot be read. Adds to `changed` where a
    transcription is not kept.

    Raises CompressError for words that do not come back as they were.
    """
    words = reading.words(file, problems)
    try:
        size, turn = size_and_turn(file.image)
    except CompressError as error:
        problems.append(str(error).removesuffix("."))
        return None
    if words is None:
        return None
    shown = size[::-1] if turn > 4 else size
    words = inside(words, size if reading.stored else shown, file, problems)
    if reading.stored and not writing.stored:
        words = moved(words, turn, size)
    elif writing.stored and not reading.stored:
        words = moved(words, turned_back(turn), shown)
    try:
        content = writing.rendered(words)
    except ValueError as error:
        raise CompressError(f"{file.truth} cannot be converted: {error}.") from None
    faults: list[str] = []
    back = writing.words(Files(file.name, file.image, Path(file.name), content), faults)
    wrong = next((fault for fault in (*faults, difference(words, back)) if fault), None)
    if wrong or back is None:
        raise CompressError(f"{file.truth} cannot be converted to {writing.format}: {wrong}.")
    texts = zip(words.truth.texts, back.truth.texts, strict=True)
    changed += [f"'{text}' in {file.name}" for text, other in texts if other != text and not marks(text)]
    return replace(file, content=content)


def moved(annotation: Annotation, turn: int, size: tuple[int, int]) -> Annotation:
    """The words of an image of `size` (height, width) as they are once EXIF orientation `turn` is applied."""
    words = annotation.truth
    return Annotation(annotation.name, Words([turned_points(points, turn, size) for points in words.polygons], words.ignore, words.texts))


def difference(words: Annotation, back: Annotation | None) -> str | None:
    """What did not come back, in words."""
    if back is None or len(back.truth.polygons) != len(words.truth.polygons):
        return "its words cannot be read back"
    here, there = words.truth, back.truth
    for polygon, text, skip, other, skipped in zip(here.polygons, here.texts, here.ignore, there.polygons, there.ignore, strict=True):
        if polygon.shape != other.shape or np.abs(polygon - other).max() > SAME:
            return f"the outline of '{text}' does not come back"
        if skip != skipped:
            return f"the word '{text}' {'is do-not-care' if skip else 'counts'} and would {'count' if skip else 'be do-not-care'} there"
    return None


def marks(text: str) -> bool:
    """Whether a transcription is a format's sign of do-not-care, or nothing."""
    return text in ("", "#", "###", "*")


def new_names(files: list[Files]) -> dict[str, str]:
    """Name -> name without folders. Raises CompressError where two images would have the same."""
    names: dict[str, str] = {}
    for file in files:
        flat = PurePosixPath(file.name).name
        if flat in names.values():
            raise CompressError(f"{file.image}: another image is called {flat} too; rename one of them.")
        names[file.name] = flat
    return names
