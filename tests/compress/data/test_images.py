"""The one reader of images: kinds, damage, orientation, transparency; and arrays as images."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from compress.data.images import MEGAPIXELS, ends_at, read_image, read_images, rgb, size_and_turn, turned, turned_back, turned_points
from compress.errors import CompressError


def photo(height: int = 96, width: int = 144) -> np.ndarray:
    """Smooth and coloured, different in all corners, so that nothing that turns it leaves it as it was."""
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def jpeg(pixels: np.ndarray, **options) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "JPEG", quality=90, **options)
    return stored.getvalue()


def oriented(number: int, kind: str = "JPEG") -> bytes:
    """The photo with an EXIF orientation; its pixels are stored as they are."""
    exif = Image.Exif()
    exif[0x0112] = number
    stored = io.BytesIO()
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[0x0112] = number
        Image.fromarray(photo()).save(stored, kind, tiffinfo=tags)
    else:
        Image.fromarray(photo()).save(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return stored.getvalue()


def read(folder: Path, data: bytes, name: str = "image", **options) -> np.ndarray:
    path = folder / name
    path.write_bytes(data)
    return read_image(path, **options)


# JPEG: what stands behind the image, and what is missing of it


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restarts", [0, 3])
def test_pixels_do_not_depend_on_what_follows_the_image(tmp_path, progressive, restarts):
    data = jpeg(photo(), progressive=progressive, restart_marker_blocks=restarts)
    plain = read(tmp_path, data)
    np.testing.assert_array_equal(plain, cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB))
    video = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 9
    for trailer in (video, b"\xff\xd8\xff\xda" + video, jpeg(photo())[:400], b"\0" * 300, b"\xff"):
        np.testing.assert_array_equal(read(tmp_path, data + trailer), plain)
    for end in (data[:-2], data[:-1], data[:-2] + b"\0" * 99):  # without its end marker, or half of it
        np.testing.assert_array_equal(read(tmp_path, end), plain)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("filler", [b"", b"\0" * 5000])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_jpeg_that_lacks_pixels_is_named(tmp_path, progressive, filler, kept):
    data = jpeg(photo(), progressive=progressive)
    with pytest.raises(CompressError, match=r"image.* cut off"):
        read(tmp_path, data[: int(kept * len(data))] + filler)


def test_the_end_of_an_image_is_not_that_of_its_thumbnail(tmp_path):
    thumbnail = jpeg(photo(16, 24))
    data = jpeg(photo(), exif=b"Exif\0\0" + thumbnail)
    assert data.index(b"\xff\xd9") < len(thumbnail) + 100
    assert ends_at(data) == len(data) - 2
    assert ends_at(data[:-2]) is None
    np.testing.assert_array_equal(read(tmp_path, data[:-2]), read(tmp_path, data))


# EXIF orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_images_are_shown_as_their_orientation_says(tmp_path, kind, number):
    from PIL import ImageOps

    data = oriented(number, kind)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    shown, stored = read(tmp_path, data), read(tmp_path, data, stored=True)
    np.testing.assert_array_equal(shown, expected)
    assert stored.shape == photo().shape
    assert np.abs(stored.astype(int) - photo()).mean() < 20
    assert size_and_turn(tmp_path / "image") == (photo().shape[:2], number)


@pytest.mark.parametrize("number", range(1, 9))
def test_points_turn_as_the_pixels_do(number):
    pixels = np.zeros((7, 11), np.uint8)
    places = np.array([(0, 0), (10, 0), (4, 5), (10, 6)], np.float32)
    for level, (x, y) in enumerate(places.astype(int), 1):
        pixels[y, x] = level
    shown = turned(pixels, number)
    moved = turned_points(places, number, pixels.shape)
    assert [shown[y, x] for x, y in moved.astype(int)] == [1, 2, 3, 4]
    back = turned_back(number)
    np.testing.assert_array_equal(turned(shown, back), pixels)
    np.testing.assert_array_equal(turned_points(moved, back, shown.shape), places)


ODD = b"Exif\0\0" + struct.pack(">2sHIHHHIHH", b"MM", 42, 8, 1, 0x0112, 3, 1, 99, 0)  # an orientation of 99


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", ODD])
def test_exif_that_is_damaged_turns_nothing(tmp_path, exif):
    assert read(tmp_path, jpeg(photo(), exif=exif)).shape == photo().shape


# Files that are no such images


def huge(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(40000, 40000), (20000, 10000), (2**31 - 1, 2**31 - 1)])
def test_what_declares_too_many_pixels_is_refused_before_memory_is_spent(tmp_path, size):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CompressError, match=rf"image declares more than the {MEGAPIXELS} megapixels"):
        read(tmp_path, huge(*size))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_whatever_is_no_file_is_named_and_never_waited_for(tmp_path):
    (tmp_path / "link.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("words")
    (tmp_path / "heic.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(1 << 33)
    for name, told in (
        ("none.png", "There is no image at"),
        ("link.png", "a link to nowhere.png"),
        ("pipe.png", "a pipe"),
        ("folder.png", "is a folder"),
        ("empty.png", "does not decode"),
        ("text.png", "does not decode"),
        ("heic.png", "does not decode"),
        ("sparse.png", "too large"),
        ("text.png/x.png", "cannot be read"),
        ("x" * 300, "cannot be read"),
    ):
        with pytest.raises(CompressError, match=told) as refused:
            read_image(tmp_path / name)
        assert name[:20] in str(refused.value)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000"])
def test_kinds_are_read_and_halves_of_them_are_named(tmp_path, kind):
    stored = io.BytesIO()
    Image.fromarray(photo()).save(stored, kind, **({"lossless": True} if kind == "WEBP" else {}))
    data = stored.getvalue()
    found = read(tmp_path, data)
    assert found.shape == photo().shape
    assert np.abs(found.astype(int) - photo()).mean() < (0.001 if kind not in ("GIF", "JPEG2000") else 12)
    with pytest.raises(CompressError, match="image"):
        read(tmp_path, data[: len(data) // 2])


BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}  # of a value of TIFF, by its type


def directory_first(data: bytes) -> bytes:
    """A TIFF of one strip with its directory before its pixels, so that a file that is cut off still says what should be there."""
    place = int.from_bytes(data[4:8], "little")
    tail = bytearray(data[place:])
    for at in range(2, 2 + 12 * int.from_bytes(tail[:2], "little"), 12):
        tag, kind, count, value = struct.unpack("<HHII", tail[at : at + 12])
        if tag == 273:  # where the strip is
            tail[at + 8 : at + 12] = struct.pack("<I", 8 + len(tail))
        elif BYTES[kind] * count > 4:  # where the values are
            tail[at + 8 : at + 12] = struct.pack("<I", value - place + 8)
    return data[:4] + struct.pack("<I", 8) + bytes(tail) + data[8:place]


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_a_tiff_that_is_cut_off_is_named_wherever_it_ends(tmp_path, compression):
    stored = io.BytesIO()
    Image.fromarray(photo()).save(stored, "TIFF", compression=compression, tiffinfo={278: len(photo())})
    data = directory_first(stored.getvalue())
    np.testing.assert_array_equal(read(tmp_path, data), photo())
    for share in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(CompressError, match="does not decode"):
            read(tmp_path, data[: int(share * len(data))])


def test_of_several_pages_the_first_is_read_and_that_is_said(tmp_path, caplog):
    pages = [Image.fromarray(photo()), Image.fromarray(photo()[::-1].copy()), Image.fromarray(photo()[:40].copy())]
    for kind in ("TIFF", "GIF"):
        stored = io.BytesIO()
        pages[0].save(stored, kind, save_all=True, append_images=pages[1:])
        caplog.clear()
        found = read(tmp_path, stored.getvalue())
        assert np.abs(found.astype(int) - photo()).mean() < 12
        assert "the first of its 3 pages" in caplog.text


# Values that are no 8-bit RGB


def saved(folder: Path, image: Image.Image, name: str = "image.png", **options) -> np.ndarray:
    image.save(folder / name, **options)
    return read_image(folder / name)


def test_grey_sixteen_bit_palette_and_cmyk(tmp_path):
    grey = photo()[..., 0]
    three = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(grey)), three)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257)), three)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257), "image.tif"), three)
    assert cv2.imwrite(str(tmp_path / "deep.png"), photo()[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), photo())
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(grey > 99)), np.where(three > 99, 255, 0))
    palette = Image.fromarray(photo()).quantize(64)
    np.testing.assert_array_equal(saved(tmp_path, palette), np.asarray(palette.convert("RGB")))
    cmyk = Image.fromarray(photo()).convert("CMYK")
    assert np.abs(saved(tmp_path, cmyk, "image.jpg", quality=99).astype(int) - photo()).mean() < 6


def word(ink: int, alpha: int) -> np.ndarray:
    """(40, 120, 4): a word of grey level `ink` on a ground of the same colour that covers nothing."""
    strokes = cv2.putText(np.zeros((40, 120), np.uint8), "word", (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, 3)
    return np.dstack([np.full((40, 120, 3), ink, np.uint8), np.where(strokes > 0, alpha, 0).astype(np.uint8)])


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (60, 255), (200, 0), (255, 0)])
def test_words_on_nothing_stand_out(tmp_path, ink, ground):
    rgba = word(ink, 255)
    expected = np.where(rgba[..., 3:] > 0, ink, ground).repeat(3, axis=2)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(rgba)), expected)
    np.testing.assert_array_equal(rgb(rgba), expected)
    grey = Image.fromarray(np.ascontiguousarray(rgba[..., 2:]), "LA") if ink else Image.fromarray(rgba).convert("LA")
    np.testing.assert_array_equal(saved(tmp_path, grey), expected)


def test_transparent_palettes_and_colours(tmp_path):
    levels = np.where(word(0, 255)[..., 3] > 0, 1, 0).astype(np.uint8)
    image = Image.fromarray(levels, "P")
    image.putpalette([0, 0, 0, 10, 10, 10])
    expected = np.where(levels[..., None] > 0, 10, 255).repeat(3, axis=2)
    np.testing.assert_array_equal(saved(tmp_path, image, transparency=0), expected)
    np.testing.assert_array_equal(saved(tmp_path, image.convert("RGB"), transparency=(0, 0, 0)), expected)


def test_half_of_a_cover_is_half_of_the_ground():
    half = rgb(np.dstack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 128, np.uint8)]))
    assert np.abs(half.astype(int) - 127).max() <= 1
    np.testing.assert_array_equal(rgb(np.dstack([photo(), np.full(photo().shape[:2], 255, np.uint8)])), photo())
    np.testing.assert_array_equal(rgb(np.zeros((2, 2, 4), np.uint8)), np.full((2, 2, 3), 255))


def test_arrays_of_other_types_are_the_same_image():
    image = photo()
    for same in (
        image,
        image.astype(np.uint16) * 257,
        (image.astype(np.uint16) * 257).astype(">u2"),
        image / 255,
        (image / 255).astype(np.float32),
        image[::-1][::-1],
        np.asfortranarray(image),
        Image.fromarray(image),
    ):
        found = rgb(same)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, image)
    for grey in (image[..., 0], image[..., :1], image[..., 0] / 255):
        np.testing.assert_array_equal(rgb(grey), image[..., :1].repeat(3, axis=2))
    np.testing.assert_array_equal(rgb(image[..., 0] > 99), np.where(image[..., :1].repeat(3, axis=2) > 99, 255, 0))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((3, 20, 30)), r"not \(3, 20, 30\); move the channels to the end"),
        (np.zeros((20, 30, 2), np.uint8), r"not \(20, 30, 2\)"),
        (np.zeros((1, 20, 30, 3), np.uint8), r"not \(1, 20, 30, 3\)"),
        (np.zeros((0, 30, 3), np.uint8), r"not \(0, 30, 3\)"),
        (np.full((20, 30, 3), 200.0), "go from 200 to 200"),
        (np.full((20, 30, 3), -0.5), "go from -0.5"),
        (np.full((20, 30, 3), np.nan), "no numbers"),
        (np.full((20, 30, 3), 200, np.uint16), "go to 200 alone of the 65535"),
        (np.zeros((20, 30, 3), np.int64), "not of int64"),
        (np.zeros((20, 30, 3), complex), "not of complex128"),
        ("photo.jpg", r"not \(\)"),
        (None, r"not \(\)"),
    ],
)
def test_arrays_that_are_no_image_are_told_what_they_are(array, told):
    with pytest.raises(CompressError, match=told):
        rgb(array)


def test_of_several_bad_images_all_are_named(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = [tmp_path / name for name in ("good.png", "bad.png", "gone.png")]
    with pytest.raises(CompressError, match=r"bad\.png does not decode.* There is no image at .*gone\.png"):
        read_images(paths)
    np.testing.assert_array_equal(read_images(paths[:1]), [photo()])
