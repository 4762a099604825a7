"""Synthetic lines: decided by seed, split and index alone; texts that are really in the image; fonts of one's own; not too easy."""

from __future__ import annotations

import shutil
import string
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from compress.data.cache import cache_folder
from compress.data.lines import synthetic
from compress.data.lines.fonts import characters, default_fonts, fonts_in
from compress.data.lines.synthetic import SyntheticLines, Texts, draw, inked, placed, spelled
from compress.data.lines.texts import LONGEST, line_text, vocabulary_of
from compress.data.lines.turned import Turned
from compress.data.rendering import WritingError, face, font_file, rendered
from compress.errors import CompressError
from compress.models.alphabet import NAMED, PRINTABLE


def small(**fields) -> SyntheticLines:
    return SyntheticLines(format="synthetic_lines", **({"train": 4, "val": 2, "test": 2} | fields))


def test_pixel_for_pixel_the_same_in_another_process_and_after_others():
    for index in range(3):
        draw(0, "train", index, 48, default_fonts())
    annotation, image = draw(3, "val", 5, 48, default_fonts())
    code = (
        "import sys; from compress.data.lines.synthetic import draw; from compress.data.lines.fonts import default_fonts;"
        "a, i = draw(3, 'val', 5, 48, default_fonts()); sys.stdout.buffer.write(i.tobytes() + a.truth.text.encode())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert other == image.tobytes() + annotation.truth.text.encode()


def test_seed_split_and_index_each_give_another_image():
    images = [draw(*what, 48, default_fonts())[1].tobytes() for what in ((0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1))]
    assert len(set(images)) == 4


def test_images_are_as_high_as_asked_and_as_wide_as_their_text():
    widths = {}
    for height in (32, 48):
        drawn = [draw(0, "train", index, height, default_fonts()) for index in range(60)]
        assert all(image.shape[0] == height and image.shape[2] == 3 and image.dtype == np.uint8 for _, image in drawn)
        widths[height] = np.array([image.shape[1] / height for _, image in drawn])
        letters = [len(annotation.truth.text) for annotation, _ in drawn]
        assert np.corrcoef(letters, widths[height])[0, 1] > 0.8
    np.testing.assert_allclose(widths[32], widths[48], rtol=0.2, err_msg="the same lines at another size")


def test_texts_hold_every_printable_character_and_are_lines():
    rng = np.random.default_rng(0)
    texts = [line_text(rng) for _ in range(5000)]
    assert set("".join(texts)) == {" ", *PRINTABLE}
    assert all(text == " ".join(text.split()) and 1 <= len(text) <= LONGEST for text in texts)
    kinds = {
        "several words": np.mean([" " in text for text in texts]),
        "numbers": np.mean([any(letter.isdigit() for letter in text) for text in texts]),
        "upper case": np.mean([any(letter.isupper() for letter in text) for text in texts]),
        "lower case": np.mean([any(letter.islower() for letter in text) for text in texts]),
        "punctuation": np.mean([any(letter in string.punctuation for letter in text) for text in texts]),
    }
    assert all(0.2 < share < 0.8 for share in kinds.values()), kinds


@pytest.mark.parametrize("path", default_fonts(), ids=lambda path: path.stem)
def test_every_font_draws_what_it_says_it_draws(path):
    known = characters(path)
    assert set(string.ascii_letters + string.digits + ".,:;!?()-/&%$#@*+=[]") <= known
    for sign in known & set("<>|_{}[]()~"):  # in other places of fonts for TeX there are others, of other shapes
        (high, wide), (usual_high, usual_wide) = (rendered(face(file), 64.0, sign)[0].shape for file in (path, font_file("DejaVuSans")))
        assert 0.4 < (high / wide) / (usual_high / usual_wide) < 2.5, sign


def test_the_text_is_in_the_image():
    """Drawn again without background, the ink is where the image differs from one with other ink."""
    rng = np.random.default_rng(1)
    for text in ("Ink", "l", "a much longer line 1234"):
        ink, _ = rendered(face(font_file("DejaVuSans")), 44.0, text)
        mask = placed(ink, 44.0, 48, rng)
        assert mask.shape[0] == 48
        assert mask.sum() / 255 > 0.5 * (ink > 127).sum() * (48 / (1.8 * 44)) ** 2, "most of it is inside"
        columns = mask.max(0) > 127
        assert columns[: len(columns) // 2].any()
        assert columns[len(columns) // 2 :].any()


def test_a_font_without_a_character_leaves_it_out():
    rng = np.random.default_rng(0)
    known = frozenset(string.ascii_letters)
    assert spelled("ab <cd> 7 e", known, Texts(), rng) == "ab cd e"
    assert spelled("<7>", known, Texts(), rng).isalpha()


def test_lines_say_what_they_may():
    config = SyntheticLines(format="synthetic_lines", train=100, height=16, characters="alphanumeric", words=1, longest=6)
    found = [annotation.truth.text for annotation in config.open("train", 0).annotations]
    assert set("".join(found)) <= set(NAMED["alphanumeric"])
    assert {len(text) for text in found} == {1, 2, 3, 4, 5, 6}
    assert spelled("Ab 12", frozenset(PRINTABLE), Texts(frozenset("0123456789")), np.random.default_rng(0)).isdigit()
    assert spelled("Ab 12", frozenset(PRINTABLE), Texts(frozenset("abc ")), np.random.default_rng(0)) == "ab"


def test_words_of_a_vocabulary_in_four_spellings_and_nothing_made_up(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Harbour\nquay\n\ncaf\u00e9\n" + 26 * "x" + "\n", encoding="utf-8")
    assert vocabulary_of(path) == ("Harbour", "quay", "caf"), "without what fonts may not draw and what is too long"
    texts = Texts(words=1, vocabulary=("Harbour", "quay"))
    found = [texts.text(np.random.default_rng(seed)) for seed in range(400)]
    assert {"Harbour", "HARBOUR", "quay", "QUAY", "Quay"} <= set(found)
    letters = {"".join(filter(str.isalpha, text)).lower() for text in found if sum(map(str.isalpha, text)) > 7}
    assert len(letters) > 5
    assert all("harbour" in text or "quay" in text for text in letters)
    (tmp_path / "other.txt").write_text("Harbour\n")
    digests = {small(vocabulary=one).open("val", 0).digest for one in (None, path, tmp_path / "other.txt")}
    assert len(digests) == 3


def test_a_vocabulary_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\x00q")
    with pytest.raises(CompressError, match=r"words\.txt is damaged: it is no UTF-8 text"):
        small(vocabulary=tmp_path / "words.txt").open("train", 0)


def test_opened_splits_have_the_images_drawn(monkeypatch):
    reported = []
    split = small().open("train", 7, progress=lambda done, total: reported.append((done, total)))
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr(synthetic, "draw", None)  # from now on everything is in the cache
    again = small().open("train", 7)
    monkeypatch.undo()
    for opened in (split, again):
        for index in range(4):
            annotation, image = draw(7, "train", index, 48, default_fonts())
            np.testing.assert_array_equal(opened[index].image, image)
            assert opened[index].truth == annotation.truth


def test_fingerprints_tell_configurations_apart(monkeypatch):
    prints = [
        small().open("train", 0).fingerprint(),
        small().open("val", 0).fingerprint(),
        small().open("train", 1).fingerprint(),
        small(train=3).open("train", 0).fingerprint(),
        small(height=32).open("train", 0).fingerprint(),
    ]
    monkeypatch.setattr(synthetic, "GENERATOR", -1)
    prints.append(small().open("train", 0).fingerprint())
    assert len(set(prints)) == 6
    monkeypatch.undo()
    assert small(val=1).open("train", 0).fingerprint() == prints[0]


@pytest.fixture
def fonts(tmp_path) -> Path:
    """A folder with a usable font two levels down, and one of signs alone."""
    folder = tmp_path / "fonts"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(font_file("cmtt10"), folder / "deep" / "Own.TTF")
    shutil.copy(font_file("DejaVuSansDisplay"), folder / "signs.ttf")
    return folder


def test_fonts_of_a_folder_are_used_beside_the_others(fonts, caplog):
    files, problems = fonts_in(fonts)
    assert [path.name for path in files] == ["Own.TTF"]
    assert problems == [f"{fonts / 'signs.ttf'}: the font lacks letters or digits"]
    split = small(train=60, fonts=fonts).open("train", 0)
    assert split.problems == tuple(problems)
    assert any("signs.ttf" in message for message in caplog.messages)
    plain = small(train=60).open("train", 0)
    assert split.digest != plain.digest
    differ = sum(one.image.tobytes() != other.image.tobytes() for one, other in zip(split, plain, strict=True))
    assert 0 < differ < 60, "most draws choose the same font"


def test_what_the_fonts_are_is_in_the_digest_and_not_where(fonts, tmp_path):
    moved, other = shutil.copytree(fonts, tmp_path / "moved"), shutil.copytree(fonts, tmp_path / "other")
    shutil.copy(font_file("STIXGeneral"), other / "deep" / "Own.TTF")
    digests = [small(fonts=folder).open("val", 0).digest for folder in (fonts, moved, other)]
    assert digests[0] == digests[1] != digests[2]


def test_fonts_that_cannot_be_used_are_refused(fonts, tmp_path):
    (fonts / "broken.otf").write_bytes(b"no font")
    with pytest.raises(CompressError, match=r"data\.fonts: .*broken\.otf cannot be read as a font"):
        small(fonts=fonts).open("train", 0)
    (fonts / "broken.otf").unlink()
    (fonts / "deep" / "Own.TTF").unlink()
    with pytest.raises(CompressError, match="holds no font that has all letters and digits"):
        small(fonts=fonts).open("train", 0)
    with pytest.raises(CompressError, match="there is no folder"):
        small(fonts=tmp_path / "nowhere").open("train", 0)
    with pytest.raises(CompressError, match="holds no font, no file"):
        small(fonts=cache_folder()).open("train", 0)


def test_wrong_settings_are_refused():
    for wrong in (
        {"train": 0},
        {"height": 8},
        {"height": 1000},
        {"words": 5},
        {"longest": 0},
        {"characters": "klingon"},
        {"characters": {"characters": "é"}},
    ):
        with pytest.raises(ValidationError):
            small(**wrong)
    with pytest.raises(CompressError, match="no split 'tset'; did you mean 'test'"):
        small().open("tset", 0)


def test_no_simple_rule_tells_what_is_upside_down():
    """A linear classifier of thumbnails, fitted to 300 lines, is not much better than chance on others."""
    data = Turned(format="turned", of=small(train=300, val=300))

    def thumbnails(split: str) -> tuple[np.ndarray, np.ndarray]:
        samples = list(data.open(split, 0))
        grey = [cv2.resize(cv2.cvtColor(sample.image, cv2.COLOR_RGB2GRAY), (12, 8), interpolation=cv2.INTER_AREA) for sample in samples]
        edges = [np.abs(np.diff(image.astype(float), axis=1)).mean(1) for image in grey]
        features = np.concatenate([np.array(grey).reshape(len(grey), -1) / 255.0, np.array(edges) / 255.0, np.ones((len(grey), 1))], 1)
        return features, np.array([1.0 if sample.truth.name == "180" else -1.0 for sample in samples])

    (seen, labels), (unseen, truths) = thumbnails("train"), thumbnails("val")
    ridge = seen.T @ seen + 3.0 * np.eye(seen.shape[1])
    weights = np.linalg.solve(ridge, seen.T @ labels)
    assert np.mean(np.sign(unseen @ weights) == truths) < 0.7


def test_what_a_font_cannot_write_is_written_in_another():
    font, other = font_file("cmr10"), default_fonts()[0]
    with pytest.raises(WritingError, match="missing"):
        rendered(face(font), 32.0, "caf\u00e9")
    np.testing.assert_array_equal(inked(font, 32.0, "caf\u00e9"), rendered(face(other), 32.0, "caf\u00e9")[0])
    np.testing.assert_array_equal(inked(font, 32.0, "cafe"), rendered(face(font), 32.0, "cafe")[0])
    with pytest.raises(WritingError, match="leaves no ink"):
        rendered(face(other), 1.0, "-")
