"""What comes with the package: the pipeline in its folder `default_model`, and float weights to train from in `parents`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from compress.errors import CompressError
from compress.pipeline import DESCRIPTION, is_pipeline, read


def default_model() -> Path:
    """The package's folder `default_model`. Raises CompressError where it holds no pipeline."""
    folder = Path(str(files("compress") / "default_model"))
    if not is_pipeline(folder):
        raise CompressError(f"There is no {DESCRIPTION} in {folder}; install the package again, or give --model.")
    return folder


def default_part(part: str) -> Path:
    """The exported file of one of its parts, such as `detector`."""
    return read(default_model()).files[part]


def float_parent(task: str) -> Path:
    """The checkpoint that training for `task` can start from, in the package's folder `parents`.

    Raises CompressError where the package has none for it.
    """
    folder = Path(str(files("compress") / "parents"))
    if not (folder / task).is_dir():
        there = ", ".join(sorted(path.name for path in folder.glob("*")))
        raise CompressError(
            f"The package has float weights for {there} alone, none for {task}; give a checkpoint, such as one made by "
            "`compress convert`, or start from scratch."
        )
    return folder / task
