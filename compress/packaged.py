"""The pipeline that comes with the package, in its folder `default_model`."""

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
