"""Reading scored end to end: against plain loops of the rules on thousands of images, and on examples worked by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
import shapely

from compress.errors import CompressError
from compress.evaluation.end_to_end import end_to_end_scores, nearest, same_text, spotted

BOX = np.array([(0, 0), (40, 0), (40, 10), (0, 10)], float)
NAMES = ("precision", "recall", "hmean", "spotting", "similarity")
TEXTS = ("Joint", "joint", "(YOU)", "YOU", "S.A.L.E", "sale", "'til", "Bob's", "BOB", "10%", "no", "-off-", "off", "café", "CAFÉ", "!", "")


# The rules once more, as loops over letters and pairs


def plain_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def plain_same(true: str, found: str) -> bool:
    marks, true, found = "!?.:,*\"()·[]/'", true.upper(), found.upper()
    if true == found:
        return True
    first, last = true[0] in marks, true[-1] in marks
    return (first and true[1:] == found) or (last and true[:-1] == found) or (first and last and true[1:-1] == found)


def plain_wanted(text: str) -> str | None:
    if text.endswith(("'s", "'S")):
        text = text[: len(text) - 2]
    while text.startswith("-"):
        text = text[1:]
    while text.endswith("-"):
        text = text[:-1]
    for mark in "'!?.:,*\"()·[]/":
        text = text.replace(mark, " ")
    text = text.strip()
    if " " in text or len(text) < 3 or any(ord(letter) in (0xD7, 0xF7, 0xB7) for letter in text):
        return None
    ranges = ((97, 122), (65, 90), (0xC0, 0x1BF), (0x1C4, 0x27F), (0x386, 0x3FF), (45, 45))
    return text if all(any(low <= ord(letter) <= high for low, high in ranges) for letter in text) else None


def plain_counts(found, words, ignore, right, similar):
    """Right, found, there; `right(word, detection)` says whether a pair that lies right is read right, `similar` notes it."""
    dropped = [any(skip and b.intersection(w).area > 0.5 * b.area for w, skip in zip(words, ignore, strict=True)) for b in found]
    used, hits = set(), 0
    for i, word in enumerate(words):
        for j, box in enumerate(found):
            if ignore[i] or dropped[j] or j in used or box.intersection(word).area <= 0.5 * box.union(word).area:
                continue
            used.add(j)
            hits += right(i, j)
            similar(i, j)
            break
    return hits, dropped.count(False), len(words) - sum(ignore)


def plain_scores(images) -> dict[str, float]:
    sums, ned = np.zeros((2, 3)), []
    for boxes, polygons, ignore, truths, read, lexicon in images:
        found, words = ([shapely.Polygon(polygon) for polygon in shapes] for shapes in (boxes, polygons))
        if lexicon:
            read = [min(lexicon, key=lambda word, text=text: plain_distance(word.upper(), text.upper())) for text in read]
        skip = [bool(flag) or text == "" for flag, text in zip(ignore, truths, strict=True)]

        def note(i, j, read=read, truths=truths):
            longest = max(len(read[j]), len(truths[i]))
            ned.append(1 - plain_distance(read[j], truths[i]) / longest if longest else 1.0)

        sums[0] += plain_counts(found, words, skip, lambda i, j, r=read, t=truths: plain_same(t[i], r[j]), note)
        wanted = [None if flag else plain_wanted(text) for text, flag in zip(truths, skip, strict=True)]
        unwanted = [text is None for text in wanted]
        sums[1] += plain_counts(found, words, unwanted, lambda i, j, r=read, w=wanted: w[i].upper() == r[j].upper(), lambda *_: None)
    results = []
    for hits, many, there in sums.tolist():
        p, r = hits / many if many else 0.0, hits / there if there else 0.0
        results += [p, r, 2 * p * r / (p + r) if hits else 0.0]
    return dict(zip(NAMES, [*results[:3], results[5], sum(ned) / len(ned) if ned else 0.0], strict=True))


def moved(polygon: np.ndarray, x: float, y: float) -> np.ndarray:
    return polygon + np.array((x, y))


def random_image(rng: random.Random) -> tuple:
    """Words in a row, each found a little beside its place, twice, over two of them, or not at all, and read from a few texts."""
    polygons, truths, boxes, read = [], [], [], []
    for place in range(rng.randrange(7)):
        polygons.append(moved(BOX, place * 45, rng.randrange(3)))
        truths.append(rng.choice(TEXTS))
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            boxes.append(moved(polygons[-1], rng.randrange(-16, 17), rng.randrange(-3, 4)))
            read.append(rng.choice((truths[-1], truths[-1].upper(), truths[-1].strip("()'!-"), rng.choice(TEXTS))))
    order = rng.sample(range(len(boxes)), len(boxes))
    lexicon = rng.sample(TEXTS[:-1], rng.randrange(1, 5)) if rng.random() < 0.3 else []
    return [boxes[i] for i in order], polygons, [rng.random() < 0.25 for _ in polygons], truths, [read[i] for i in order], lexicon


@pytest.mark.slow
def test_thousands_of_images_score_as_by_the_plain_rules():
    rng = random.Random(0)
    images = [random_image(rng) for _ in range(2000)]
    seen = set()
    for start in range(0, len(images), 3):
        some = images[start : start + 3]
        expected = plain_scores(some)
        assert end_to_end_scores(some) == pytest.approx(expected, abs=1e-12)
        seen |= set(expected.values())
    assert len(seen) > 150, "the images are too much alike to tell anything"
    assert end_to_end_scores(images) == pytest.approx(plain_scores(images), abs=1e-12)


# Worked by hand


def one(true: str, read: str, *, ignore: bool = False, lexicon=()) -> dict[str, float]:
    return end_to_end_scores([([BOX], [BOX], [ignore], [true], [read], lexicon)])


def test_a_word_read_right_scores_all_and_case_does_not_matter_but_for_the_edit_distance():
    assert one("Joint", "Joint") == dict.fromkeys(NAMES, 1.0)
    assert one("Joint", "JOINT") == {**dict.fromkeys(NAMES, 1.0), "similarity": pytest.approx(1 / 5)}


def test_a_word_that_is_found_and_misread_has_used_up_its_word():
    other = moved(BOX, 2, 0)
    found = end_to_end_scores([([BOX, other], [BOX], [False], ["Joint"], ["Joimt", "Joint"], ())])
    assert found == {"precision": 0, "recall": 0, "hmean": 0, "spotting": 0, "similarity": pytest.approx(0.8)}
    assert end_to_end_scores([([other, BOX], [BOX], [False], ["Joint"], ["Joint", "Joimt"], ())])["precision"] == 0.5


def test_half_of_the_area_is_not_enough():
    beside = moved(BOX, 40 / 3, 0)  # shares 2/3 of its area: an IoU of exactly one half
    assert end_to_end_scores([([np.rint(beside * 3)], [BOX * 3], [False], ["a"], ["a"], ())])["recall"] == 0
    assert end_to_end_scores([([moved(np.rint(beside * 3), -1, 0)], [BOX * 3], [False], ["a"], ["a"], ())])["recall"] == 1


def test_what_is_read_on_a_do_not_care_word_does_not_count():
    there = moved(BOX, 100, 0)
    found = end_to_end_scores([([BOX, there], [BOX, there], [True, False], ["###", "yes"], ["x", "yes"], ())])
    assert found == dict.fromkeys(NAMES, 1.0)
    assert one("", "x") == dict.fromkeys(NAMES, 0.0), "a word without a text is do-not-care"


@pytest.mark.parametrize(
    ("true", "found", "same"),
    [
        ("(YOU)", "you", True), ("(YOU)", "(you", True), ("(YOU)", "YOU)", True), ("(YOU)", "(YOU)", True), ("YOU", "(YOU)", False),
        ("((YOU", "YOU", False), ("Bob's", "Bobs", False), ("$5", "5", False), ("10.", "10", True), ("é", "É", True), ("!", "", True),
    ],
)  # fmt: skip
def test_a_true_text_may_lose_one_mark_at_each_end(true, found, same):
    assert same_text(true, found) is same


@pytest.mark.parametrize(
    ("true", "wanted"),
    [
        ("Bob's", "Bob"), ("ab's", ""), ("-off-", "off"), ("co-op", "co-op"), ("(SALE!)", "SALE"), ("S.A.L.E", ""), ("4th", ""), ("no", ""),
        ("café", "café"), ("a\xd7b", ""), ("", ""), ("'til", "til"), ("日本語", ""),
    ],
)  # fmt: skip
def test_what_of_a_word_is_spotted(true, wanted):
    assert spotted(true) == wanted


def test_a_word_that_is_not_spotted_is_do_not_care_there():
    there = moved(BOX, 100, 0)
    found = end_to_end_scores([([BOX, there], [BOX, there], [False, False], ["10%", "(Sale)"], ["wrong", "SALE"], ())])
    assert (found["hmean"], found["spotting"]) == (0.5, 1.0)


def test_a_lexicon_replaces_what_was_read_by_its_nearest_word():
    assert nearest("joimt", ["point", "JOINT", "joint"]) == "JOINT"
    assert nearest("ab", ["ax", "xb"]) == "ax"
    assert one("Joint", "Joimt", lexicon=["coat", "Joint"]) == dict.fromkeys(NAMES, 1.0)
    assert one("Joint", "Joint", lexicon=["coat"])["hmean"] == 0


def test_nothing_scores_nothing():
    assert end_to_end_scores([]) == end_to_end_scores([([], [], [], [], [], ())]) == dict.fromkeys(NAMES, 0.0)
    assert end_to_end_scores([([], [BOX], [False], ["a"], [], ())]) == dict.fromkeys(NAMES, 0.0)


def test_ground_truth_without_texts_is_refused():
    with pytest.raises(CompressError, match="has no texts"):
        end_to_end_scores([([BOX], [BOX], [False], [], ["a"], ())])
