"""The model that comes with the package, in its folder `default_model`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from compress.errors import CompressError
from compress.runtimes import FILES


def default_model() -> Path:
    """The exported file in the package's folder `default_model`, which may hold one of any format that `compress.runtimes` opens.

    Raises CompressError where there is none, or more than one.
    """
    folder = Path(str(files("compress") / "default_model"))
    found = [path for path in folder.glob("*") if path.suffix in FILES]
    if len(found) != 1:
        raise CompressError(f"There should be one model in {folder}, not {len(found)}; install the package again, or give --model.")
    return found[0]


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
