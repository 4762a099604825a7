"""A pipeline as a folder to be deployed: its files, one description, and a README of ten lines."""

from __future__ import annotations

import shutil
from pathlib import Path

from compress import outputs, pipeline
from compress.description import save_tuned
from compress.errors import CompressError
from compress.files import write_text
from compress.predictor import of_file, of_pipeline

README = "README.md"


def ship(folder: Path, out: Path | None, *, has_options: bool) -> str:
    """Copy the pipeline in `folder` to `out`; returns what was done, in a line. Nothing that the workbench has not written is replaced.

    has_options: whether formats or images to check on were asked for, which a pipeline has none of.
    Raises CompressError for a pipeline that is not whole, and for a folder that holds others of these names.
    """
    if has_options:
        raise CompressError(f"{folder} is a pipeline, whose files are exported already; leave out --format and --image.")
    if out is None:
        raise CompressError(f"{folder} is a pipeline; say where to copy it with --out.")
    found, reader = pipeline.read(folder), of_pipeline(folder, 1)
    files = [file for path in found.files.values() for file in pipeline.files_of(path)]
    names = [file.relative_to(folder).as_posix() for file in files]
    outputs.claim(out, {*(name.split("/")[0] for name in names), pipeline.DESCRIPTION, README, *(["tuned.json"] if reader.tuned else [])})
    for file, name in zip(files, names, strict=True):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, out / name)
    if reader.tuned:
        save_tuned(out, reader.tuned)
    shutil.copy(folder / pipeline.DESCRIPTION, out / pipeline.DESCRIPTION)
    write_text(out / README, readme(found))
    size = sum(file.stat().st_size for file in files)
    return f"{out}: {', '.join(found.files)}, {size / 1e6:.2f} MB, {reader.runtime} {reader.precision}"


def readme(found: pipeline.Pipeline) -> str:
    """What a person needs who is given the folder alone."""
    lines = []
    for part, path in found.files.items():
        its = of_file(path, 1)
        wanted = its.algorithm.input
        shown = ", ".join(f"{name} {value}" for name, value in its.preferred().reported(its.algorithm).items())
        normalised = f"mean {list(wanted.mean)}, std {list(wanted.std)}"
        lines.append(f"- {part}: {path.name}, {its.precision}; RGB in 0..1, {normalised}; {shown}")
    return "\n".join(
        [
            "# A pipeline that reads\n",
            "`pip install compress-ocr`, then `compress predict IMAGE --model .`, or in Python:\n",
            "    import compress",
            '    print(compress.load("path/of/this/folder").predict("photo.jpg").text)\n',
            *lines,
            f"- `{pipeline.DESCRIPTION}`: what lies between the parts, characters in the order of their classes (0 is the blank), digests",
            "",
        ]
    )
