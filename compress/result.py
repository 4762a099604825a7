"""What `predict` takes in Python, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from compress.data.images import image_in, of_pillow, read_image, rgb
from compress.errors import CompressError, suggestion
from compress.tasks.task import Task

Color = Literal["rgb", "bgr"]
COLORS = ("rgb", "bgr")
# What an image may be given as.
Source = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True)
class Result:
    """What a model says about one image: all that its answer has, such as the `words` and the `text` of a reading.

    answer: one of `compress.models.contract`. pixels: gives the image again, which is not kept where it can be read once more.
    """

    answer: Any
    task: Task = field(repr=False)
    pixels: Callable[[], np.ndarray] = field(repr=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "answer":  # looked for while a copy is made, before there is an answer
            raise AttributeError(name)
        return getattr(self.answer, name)

    def draw(self) -> Image.Image:
        """The image with the answer drawn on it."""
        return Image.fromarray(self.task.drawn(self.pixels(), self.answer))

    def json(self) -> dict[str, Any]:
        """The answer as values that JSON holds."""
        return self.task.record(self.answer)


def pixels_of(source: Source, color: Color = "rgb") -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB, however it is given. color: the order of an array's channels.

    Raises CompressError that says what was given where that is no image.
    """
    if color not in COLORS:
        raise CompressError(f"color is 'rgb' or 'bgr', not {color!r}{suggestion(str(color), COLORS)}")
    if isinstance(source, np.ndarray):
        coloured = source.ndim == 3 and source.shape[2] in (3, 4)
        return rgb(source[..., [2, 1, 0, 3][: source.shape[2]]] if coloured and color == "bgr" else source)
    if color == "bgr":
        raise CompressError("color='bgr' is for arrays, such as OpenCV reads; of files and PIL images the colours are known.")
    if isinstance(source, str | Path):
        return read_image(Path(source))
    if isinstance(source, bytes | bytearray):
        return image_in(bytes(source), "the image that was given as bytes")
    if isinstance(source, Image.Image):
        return of_pillow(source)
    raise CompressError(
        f"predict takes the path of an image, its bytes, a PIL image, a NumPy array, or a list of them, and was given {kind_of(source)}."
    )


def kind_of(value: Any) -> str:
    """`None`, or what a value is of."""
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return "None" if value is None else f"a value of type {name}"
