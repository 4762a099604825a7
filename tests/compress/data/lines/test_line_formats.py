"""Lists of three kinds, Lightning databases, and conversions between them: what comes back, and what is wrong with each."""

from __future__ import annotations

import multiprocessing
import pickle

import cv2
import numpy as np
import pytest

from compress.data.check import check
from compress.data.convert import convert
from compress.data.formats import from_options
from compress.data.lines.lines import Lines, path_and_text, paths_of
from compress.errors import CompressError

lmdb = pytest.importorskip("lmdb")


def png(shade: int, width: int = 20) -> bytes:
    image = np.full((10, width, 3), shade, np.uint8)
    image[:, : width // 2] //= 2
    return cv2.imencode(".png", image)[1].tobytes()


def database(folder, entries: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key.encode(), value)


def lines(*texts: bytes) -> dict[str, bytes]:
    """A database's entries, an image of another width for each text."""
    found = {"num-samples": str(len(texts)).encode()}
    for number, text in enumerate(texts, 1):
        found |= {f"image-{number:09d}": png(200, 10 + number), f"label-{number:09d}": text}
    return found


def texts(split) -> list[str]:
    return [annotation.truth.text for annotation in split.annotations]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a/b.jpg\tsome text", ("a/b.jpg", "some text")),
        ('word_1.png, "Genaxis Theatre"', ("word_1.png", "Genaxis Theatre")),
        ('\ufeffword_2.png, "say \\"hi\\", \\\\ now"', ("word_2.png", 'say "hi", \\ now')),
        ('word_3.png, ""', ("word_3.png", "")),
        ("word_4.png, text", ("", "")),
        ("nothing", ("", "")),
    ],
)
def test_a_line_is_parted_by_its_kind(line, expected):
    assert path_and_text(line) == expected


def test_a_list_of_paths_is_several_images():
    assert paths_of('["a.jpg", "b.jpg"]') == ["a.jpg", "b.jpg"]
    assert paths_of("[odd].jpg") == ["[odd].jpg"]
    assert paths_of("a.jpg") == ["a.jpg"]


def test_all_kinds_of_lists_are_read(tmp_path):
    for name in "abcde":
        (tmp_path / f"{name}.png").write_bytes(png(ord(name)))
    (tmp_path / "test.txt").write_text('a.png\tone\n["b.png", "c.png"]\ttwo\nd.png, "th\\"ree"\ne.png no tab\n["x.png"]\tfour\n')
    split = Lines(format="lines", root=tmp_path, damaged="skip").open("test", 0)
    assert texts(split) == ["one", "two", "two", 'th"ree']
    assert [annotation.name for annotation in split.annotations] == ["a", "b", "c", "d"]
    assert int(split[2].image[0, -1, 0]) == ord("c")
    assert len(split.problems) == 2
    assert "test.txt:4: a path, a tab and a text are needed" in split.problems[0]
    assert "test.txt:5: there is no image" in split.problems[1]


def test_a_list_in_another_encoding_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(png(9))
    (tmp_path / "test.txt").write_bytes("a.png\tKöln\n".encode("latin-1"))
    with pytest.raises(CompressError, match=r"test\.txt: not UTF-8 text"):
        Lines(format="lines", root=tmp_path).open("test", 0)


@pytest.mark.parametrize("cache", [True, False])
def test_a_database_gives_its_lines(tmp_path, cache):
    database(tmp_path / "train", lines(*(f"text {n}".encode() for n in range(10))))
    database(tmp_path / "test", lines(b"caf\xc3\xa9", b"b"))
    data = from_options("lmdb", tmp_path).model_copy(update={"cache": cache, "val_fraction": 0.2})
    assert data.splits() == ("train", "val", "test")
    train, val, test = (data.open(name, 0) for name in data.splits())
    assert texts(test) == ["café", "b"]
    assert test[1].image.shape == (10, 12, 3)
    assert len(val) == 2
    assert sorted(texts(train) + texts(val)) == [f"text {n}" for n in range(10)]
    assert train.digest != val.digest
    again = pickle.loads(pickle.dumps(test))
    np.testing.assert_array_equal(again[0].image, test[0].image)


def test_a_database_with_other_images_of_the_same_sizes_is_another(tmp_path):
    digests, levels = [], []
    for shade in (10, 200):
        image = cv2.imencode(".bmp", np.full((10, 40, 3), shade, np.uint8))[1].tobytes()
        entries = lines(b"a", b"b") | {f"image-{number:09d}": image for number in (1, 2)}
        database(tmp_path / str(shade) / "test", entries)
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / str(shade) / "test" / "data.mdb").replace(tmp_path / "set" / "data.mdb")
        split = from_options("lmdb", tmp_path / "set").open("train", 0)
        digests.append(split.digest)
        levels.append(int(split[0].image[0, 0, 0]))
    assert levels == [10, 200]
    assert digests[0] != digests[1]


def shape_of_first(split) -> tuple[int, ...]:
    return split[0].image.shape


def test_a_database_is_read_in_other_processes_too(tmp_path):
    database(tmp_path / "test", lines(b"a"))
    split = from_options("lmdb", tmp_path).model_copy(update={"cache": False}).open("test", 0)
    assert shape_of_first(split) == (10, 11, 3)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(shape_of_first, (split,)).get(timeout=30) == (10, 11, 3)


def test_entries_that_cannot_be_used_are_counted_and_named(tmp_path):
    entries = lines(b"good", b" ", b"\xff\xfe", b"gone", b"torn", b"a\tb")
    del entries["image-000000004"]
    entries["image-000000005"] = entries["image-000000005"][:40]
    database(tmp_path / "test", entries)
    data = from_options("lmdb", tmp_path)
    with pytest.raises(CompressError, match="5 problems in the data"):
        data.open("test", 0)
    split = data.model_copy(update={"damaged": "skip"}).open("test", 0)
    assert texts(split) == ["good"]
    told = " ".join(split.problems)
    for word in (
        "line 2 has an empty text",
        "line 3 has a text that is not UTF-8",
        "line 4 has no image",
        "000000005",
        "line 6 has a text with",
    ):
        assert word in told


def test_a_database_that_is_cut_off_or_none_is_refused(tmp_path):
    database(tmp_path / "test", lines(*[b"x" * 200] * 60))
    file = tmp_path / "test" / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    data = from_options("lmdb", tmp_path)
    with pytest.raises(CompressError, match=r"data\.mdb is cut off: it has \d+ bytes of \d+; restore it"):
        data.open("test", 0)
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(CompressError, match=r"data\.mdb cannot be read as a Lightning database"):
        data.open("test", 0)
    with pytest.raises(CompressError, match=r"holds no data\.mdb"):
        from_options("lmdb", tmp_path / "test" / "deeper").splits()
    database(tmp_path / "other" / "test", {"image-000000001": png(3)})
    with pytest.raises(CompressError, match="has no number of lines under the key num-samples"):
        from_options("lmdb", tmp_path / "other").open("test", 0)


@pytest.mark.parametrize("between", ["lines", "lmdb"])
def test_lines_survive_a_conversion_and_back(tmp_path, between):
    (tmp_path / "from").mkdir()
    for name in "abc":
        (tmp_path / "from" / f"{name}.png").write_bytes(png(ord(name), ord(name) - 80))
    (tmp_path / "from" / "train.txt").write_text('a.png\tKäse 1\nb.png\t"b",\n', encoding="utf-8")
    (tmp_path / "from" / "val.txt").write_text("c.png\tc\n")
    told = convert(tmp_path / "from", "lines", tmp_path / "middle", between)
    assert told == ["train: 2 images", "val: 1 images"]
    convert(tmp_path / "middle", between, tmp_path / "back", "lines")
    for name in ("train", "val"):
        first, last = (from_options("lines", tmp_path / folder).open(name, 0) for folder in ("from", "back"))
        assert texts(first) == texts(last)
        for index in range(len(first)):
            np.testing.assert_array_equal(first[index].image, last[index].image)
    with pytest.raises(CompressError, match="is there already"):
        convert(tmp_path / "from", "lines", tmp_path / "back", between)


def test_words_of_scenes_become_lines(tmp_path):
    for part in ("test_images", "test_gts"):
        (tmp_path / "scenes" / part).mkdir(parents=True)
    scene = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "scenes" / "test_images" / "img_1.png"), scene)
    (tmp_path / "scenes" / "test_gts" / "gt_img_1.txt").write_text("10,10,50,10,50,30,10,30,Exit\n5,40,9,40,9,44,5,44,###\n")
    assert convert(tmp_path / "scenes", "icdar2015", tmp_path / "words", "lines") == ["test: 1 images"]
    split = from_options("lines", tmp_path / "words").open("test", 0)
    assert texts(split) == ["Exit"]
    with pytest.raises(CompressError, match="hold no lines"):
        convert(tmp_path / "scenes", "synthetic_lines", tmp_path / "other", "lines")


def test_a_check_names_what_a_model_cannot_read(tmp_path):
    (tmp_path / "a.png").write_bytes(png(9))
    (tmp_path / "b.png").write_bytes(png(8))
    (tmp_path / "test.txt").write_text("a.png\taé b\nb.png\tbookkeeper\n", encoding="utf-8")
    data = from_options("lines", tmp_path)
    report = str(check(data, 0, tmp_path / "sheet.png", "en", 12))
    assert "test: 2 images, 14 characters, 9 different characters, 10 characters in the longest text" in report
    assert "1 texts with unknown characters, 1 too long texts" in report
    assert "a: the text 'aé b' holds é, not in the alphabet" in report
    assert "b: the text 'bookkeeper' needs 13 steps of 12" in report
    assert check(data, 0).problems == ()
    (tmp_path / "dictionary.txt").write_text("a\né\nb\no\nk\ne\np\nr\n", encoding="utf-8")
    assert check(data, 0, alphabet=str(tmp_path / "dictionary.txt")).problems == ()
    with pytest.raises(CompressError, match="--alphabet: 'enn' is neither a file nor a name that is known; did you mean 'en'"):
        check(data, 0, alphabet="enn")
    with pytest.raises(CompressError, match="look at texts of lines"):
        check(from_options("synthetic", None).model_copy(update={"train": 1, "val": 1, "test": 1, "size": 64}), 0, alphabet="en")
