from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest

from compress.data.cache import cache_folder, read_entry, write_entry
from compress.data.detection import synthetic
from compress.data.detection.synthetic import Synthetic
from compress.data.split import Annotation
from compress.errors import CompressError
from compress.models.contract import Words

KEY = "a" * 64


def entries():
    rng = np.random.default_rng(0)
    for number, shape in enumerate(((5, 7, 3), (11, 2, 3), (4, 4, 3))):
        quads = [rng.normal(size=(4, 2)).astype(np.float32), rng.normal(size=(7, 2)).astype(np.float32)][:number]
        words = Annotation(f"p{number}", Words(quads, np.array([True, False][:number], bool), ["a", "ü,"][:number]))
        yield words, rng.integers(0, 256, shape, np.uint8)


def test_round_trip_of_images_of_all_shapes():
    write_entry(KEY, entries(), ["one thing"])
    entry = read_entry(KEY)
    assert entry.problems == ("one thing",)
    for index, (words, image) in enumerate(entries()):
        np.testing.assert_array_equal(entry.pixels(index), image)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(entry.pixels))(index), image)
        found = entry.annotations[index]
        assert (found.name, found.truth.texts) == (words.name, words.truth.texts)
        np.testing.assert_array_equal(found.truth.ignore, words.truth.ignore)
        assert found.truth.ignore.dtype == bool
        for ours, theirs in zip(found.truth.polygons, words.truth.polygons, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs)


def test_an_opened_cache_is_not_pickled_with_its_pixels():
    write_entry(KEY, entries(), [])
    pixels = read_entry(KEY).pixels
    before = len(pickle.dumps(pixels))
    pixels(0)
    assert len(pickle.dumps(pixels)) == before


def truncate(folder):
    path = folder / "pixels.bin"
    path.write_bytes(path.read_bytes()[:-1])


def mangle(folder):
    (folder / "index.json").write_text("{" * 10)


def drop_image(folder):
    index = json.loads((folder / "index.json").read_text())
    index["annotations"].pop()
    (folder / "index.json").write_text(json.dumps(index))


def remove_pixels(folder):
    (folder / "pixels.bin").unlink()


def flip_a_bit(folder):
    path = folder / "pixels.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def zero(folder):
    path = folder / "pixels.bin"
    path.write_bytes(bytes(path.stat().st_size))


def move_a_corner(folder):
    text = (folder / "index.json").read_text()
    place = next(place for place in range(text.index("polygons") + 10, len(text)) if text[place] in "12345")
    (folder / "index.json").write_text(f"{text[:place]}6{text[place + 1 :]}")


@pytest.mark.parametrize("breakage", [truncate, flip_a_bit, zero, mangle, drop_image, move_a_corner])
def test_a_damaged_entry_is_named_and_made_again(breakage, caplog):
    data = Synthetic(format="synthetic", train=2, size=64)
    split = data.open("train", 0)
    folder = cache_folder() / split.fingerprint()
    image, polygons = split[1].image.copy(), split[1].truth.polygons
    breakage(folder)
    again = data.open("train", 0)
    np.testing.assert_array_equal(again[1].image, image)
    np.testing.assert_array_equal(again[1].truth.polygons, polygons)
    assert f"The decoded images in {folder} are damaged" in caplog.text


def test_a_copied_entry_is_as_good(tmp_path):
    write_entry(KEY, entries(), [])
    folder = cache_folder() / KEY
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)
    for index, (_, image) in enumerate(entries()):
        np.testing.assert_array_equal(read_entry(KEY).pixels(index), image)


@pytest.mark.parametrize("breakage", [truncate, mangle, drop_image, remove_pixels])
def test_a_broken_entry_is_built_again(breakage):
    data = Synthetic(format="synthetic", train=2, size=64)
    split = data.open("train", 0)
    folder = cache_folder() / split.fingerprint()
    image = split[1].image.copy()
    breakage(folder)
    assert read_entry(split.fingerprint()) is None
    np.testing.assert_array_equal(data.open("train", 0)[1].image, image)
    assert read_entry(split.fingerprint()) is not None


def test_nothing_half_written_is_left_behind(image_cache, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Synthetic(format="synthetic", train=2, size=64).open("train", 0)
    assert list(image_cache.iterdir()) == []


def test_of_two_writers_the_first_to_finish_wins():
    def slow():
        for number, entry in enumerate(entries()):
            if number == 1:
                write_entry(KEY, entries(), ["faster"])
            yield entry

    write_entry(KEY, slow(), ["slower"])
    assert read_entry(KEY).problems == ("faster",)
    assert [path.name for path in cache_folder().iterdir()] == [KEY]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("COMPRESS_CACHE", str(blocked))
    with pytest.raises(CompressError, match="COMPRESS_CACHE"):
        Synthetic(format="synthetic", train=1, size=64).open("train", 0)
