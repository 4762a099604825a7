"""The one reader of image files: whatever one is stored as, it becomes (H, W, 3) uint8 RGB."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from compress.errors import CompressError
from compress.files import read_bytes

# Of Pillow's kinds those that hold pixels and start no other program.
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
# By which images are looked for in folders. `.heic` is not read, and therefore named instead of passed over.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif", ".heic", ".heif")
)
MEGAPIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485) // 1_000_000  # Pillow refuses what declares more, before memory is spent

# A marker of a JPEG stream inside of entropy-coded data: neither a stuffed byte, nor a restart, nor a fill byte.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
START, END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
NOISE = bytes(range(1, 255))  # entropy-coded data that no encoder wrote

log = logging.getLogger(__name__)


def read_image(path: Path, *, stored: bool = False) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    stored: the pixels as they are stored instead, not turned. Of several pages the first is read, which is logged; see :func:`rgb` for
    what becomes of 16 bits, grey levels and transparency. A JPEG file with something behind its end, or without its end marker, is read.
    Raises CompressError for a file that is missing, cut off, too large, no regular file, or of a kind that is not read.
    """
    return image_in(read_bytes(path, "image"), path, stored=stored)


def image_in(data: bytes, path: Path | str, *, stored: bool = False) -> np.ndarray:
    """The same of the bytes of an image file. path: what they are called in messages."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about EXIF that is damaged, and sizes up to the limit
            image = opened(data)
            turn, pages = orientation(image), getattr(image, "n_frames", 1)
            pixels = rgb(decoded(image)) if whole(data) else None
    except CompressError as error:
        raise CompressError(f"{path} is not read: {error}") from None
    except Image.DecompressionBombError:
        raise CompressError(f"{path} declares more than the {MEGAPIXELS} megapixels that are read; make it smaller.") from None
    except UnidentifiedImageError:
        raise CompressError(f"{path} does not decode as an image; it is damaged, or of a kind that is not read.") from None
    except MemoryError:
        raise CompressError(f"{path} needs more memory than there is; make it smaller.") from None
    except Exception as error:  # decoders of damaged files raise whatever they like
        raise CompressError(f"{path} does not decode as an image ({error}); restore it.") from None
    if pixels is None:
        raise CompressError(f"{path} is a JPEG file that is cut off; restore it.")
    if pages > 1 and image.format != "MPO":  # the others of an MPO are previews, or the view of a second lens
        log.warning("%s: the first of its %d pages is read.", path, pages)
    if image.format == "TIFF":  # Pillow has turned it
        return turned(pixels, turned_back(turn)) if stored else pixels
    return pixels if stored else turned(pixels, turn)


def of_pillow(image: Image.Image) -> np.ndarray:
    """An image of Pillow's as (H, W, 3) uint8 RGB, turned as its EXIF orientation says. Raises CompressError for one that does not load."""
    try:
        turn = 1 if image.format == "TIFF" else orientation(image)  # Pillow has turned that
        return turned(rgb(decoded(image)), turn)
    except CompressError as error:
        raise CompressError(f"The PIL image is not read: {error}") from None
    except Exception as error:  # of a file that is damaged or has been closed
        raise CompressError(f"The PIL image does not decode ({error}); open it again.") from None


def read_images(paths: Sequence[Path]) -> list[np.ndarray]:
    """All of several images. Raises CompressError that names every one that cannot be read."""
    images, told = [], []
    for path in paths:
        try:
            images.append(read_image(path))
        except CompressError as error:
            told.append(str(error))
    if told:
        raise CompressError(" ".join(told))
    return images


def size_and_turn(path: Path) -> tuple[tuple[int, int], int]:
    """Height and width of an image as it is stored, and its EXIF orientation, 1 to 8; its pixels are not decoded.

    Raises CompressError for what is no image.
    """
    data = read_bytes(path, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = opened(data)
            turn = orientation(image)
            width, height = image.size
            return ((width, height) if image.format == "TIFF" and turn > 4 else (height, width)), turn
    except Exception as error:  # as above
        raise CompressError(f"{path} does not decode as an image ({error}); restore it.") from None


def opened(data: bytes) -> Image.Image:
    """The image with its header read."""
    if data[:2] == START and ends_at(data) is None:
        data = unfinished(data) + END
    return Image.open(io.BytesIO(data), formats=KINDS)


def orientation(image: Image.Image) -> int:
    """EXIF's number, 1 to 8; 1 where there is none, or none that makes sense."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF takes nothing from the pixels
        return 1
    return found if found in range(1, 9) else 1


def whole(data: bytes) -> bool:
    """Whether all pixels of a file are there, as far as its decoder does not look for that itself.

    The JPEG decoder makes up what is missing. Without an end marker the data are decoded twice, with nothing and with noise behind them:
    noise changes no pixel exactly where all of them are there.
    """
    if data[:2] != START or ends_at(data) is not None:
        return True
    kept = unfinished(data)
    plain, noisy = (np.asarray(Image.open(io.BytesIO(kept + more + END), formats=KINDS)) for more in (b"", NOISE))
    return np.array_equal(plain, noisy)


def ends_at(data: bytes) -> int | None:
    """Where the end marker of a JPEG stream is; None where it has none. Thumbnails inside of it, and what follows it, have their own."""
    place = 2
    while found := MARKER.search(data, place):
        kind, place = data[found.start() + 1], found.end()
        if kind == END[1]:
            return found.start()
        if kind not in ALONE:
            place += int.from_bytes(data[place : place + 2], "big")
    return None


def unfinished(data: bytes) -> bytes:
    """A JPEG stream without an end marker, and without the zeros that fill a file of which not all was copied."""
    kept = data.rstrip(b"\0")
    return kept + b"\0" if kept.endswith(b"\xff") else kept  # a stuffed byte belongs together


def decoded(image: Image.Image) -> np.ndarray:
    """(H, W), (H, W, 3) or (H, W, 4) values of an image, in the modes that arrays have."""
    if "transparency" in image.info and not image.mode.startswith("I;"):
        return np.asarray(image.convert("RGBA"))
    if image.mode in ("LA", "PA", "La", "RGBa"):
        return np.asarray(image.convert("RGBA"))
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "I":  # 32 bits for what is stored in 16
        return sixteen_bits(np.asarray(image))
    if image.mode in ("L", "RGB", "RGBA", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    return np.asarray(image.convert("RGB"))


def sixteen_bits(values: np.ndarray) -> np.ndarray:
    """Integers as uint16. Raises CompressError where they are none."""
    if values.size and (values.min() < 0 or values.max() >= 1 << 16):
        raise CompressError(f"its grey levels, {values.min()} to {values.max()}, are not of 8 or 16 bits.")
    return values.astype(np.uint16)


def rgb(image: Any) -> np.ndarray:
    """An array as (H, W, 3) uint8 RGB.

    image: (H, W) or (H, W, 1) grey, (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16 (the upper 8 bits count), bool, or floats in 0..1.
    What is transparent becomes white, or black where what is not is bright, so that words stand out. Raises CompressError for anything
    else, saying what it is. RGB cannot be told from OpenCV's BGR.
    """
    values = np.asarray(image)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or not values.size:
        raise CompressError(
            f"an image is an array of shape (height, width), or (height, width, 3) for RGB, or 4 for RGBA, not {np.shape(image)}"
            f"{'; move the channels to the end' if values.ndim == 3 and values.shape[0] in (1, 3, 4) else ''}."
        )
    values = eight_bits(values)
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    if values.shape[2] == 4:
        values = on_ground(values)
    return np.ascontiguousarray(values)


def eight_bits(values: np.ndarray) -> np.ndarray:
    """The same as uint8. Raises CompressError for a type, or for values, that do not say what they mean."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        if 0 < (most := int(values.max())) < 1 << 8:
            raise CompressError(f"its levels go to {most} alone of the 65535 of 16 bits, which is black; give it in 8 bits.")
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind != "f":
        raise CompressError(f"an image is of uint8, uint16 or floats in 0..1, not of {values.dtype}; give it as uint8.")
    if not np.isfinite(values).all():
        raise CompressError("the image has values that are no numbers.")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise CompressError(f"floats of an image are in 0..1, and these go from {low:g} to {high:g}; give it as uint8.")
    return (values * 255).round().astype(np.uint8)


def on_ground(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 on an even ground: (H, W, 3). The ground is black where what covers it is bright, else white."""
    covers = rgba[..., 3] > 127
    if covers.all() and (rgba[..., 3] == 255).all():
        return rgba[..., :3]
    image = Image.fromarray(rgba)
    bright = bool(covers.any()) and float(np.asarray(image.convert("L"))[covers].mean()) > 127
    ground = Image.new("RGBA", image.size, "black" if bright else "white")
    ground.alpha_composite(image)
    return np.asarray(ground)[..., :3]


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """(H, W, ...) stored pixels as they are shown by the EXIF orientation `turn`; 5 to 8 exchange height and width."""
    if turn > 4:
        pixels = pixels.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def turned_points(points: np.ndarray, turn: int, size: tuple[int, int]) -> np.ndarray:
    """(n, 2) x, y in pixels of a stored image of `size` (height, width), as they are in the image that :func:`turned` shows.

    A pixel's own coordinates are those of its centre: the first is 0, the last one less than the size.
    """
    height, width = size if turn <= 4 else size[::-1]
    x, y = points.T if turn <= 4 else points.T[::-1]
    if turn in (2, 3, 6, 7):
        x = width - 1 - x
    if turn in (3, 4, 7, 8):
        y = height - 1 - y
    return np.stack([x, y], axis=1).astype(points.dtype)


def turned_back(turn: int) -> int:
    """The orientation that undoes `turn`."""
    return {6: 8, 8: 6}.get(turn, turn)
