"""Characters and classes: a round trip, one numbering for CTC and attention, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from compress.models.alphabet import NAMED, Alphabet, alphabet_of, from_dictionary, of_texts, written_as


def test_texts_come_back_from_their_classes():
    alphabet = Alphabet("aZ9 é漢")
    for text in ("", "a", "aa", "9 Za", "漢é"):
        classes = alphabet.encoded(text)
        assert classes.dtype == np.int64
        assert alphabet.decoded(classes) == text
    np.testing.assert_array_equal(alphabet.encoded("aZ9 é漢"), [1, 2, 3, 4, 5, 6])


def test_characters_outside_are_left_out_and_named_once():
    alphabet = Alphabet("abc")
    np.testing.assert_array_equal(alphabet.encoded("axbxyc"), [1, 2, 3])
    assert alphabet.missing("axbxyc") == "xy"
    assert alphabet.missing("cab") == ""


def test_one_numbering_serves_both_heads():
    alphabet = Alphabet("abc")
    assert (alphabet.blank, alphabet.start, alphabet.end, alphabet.unknown) == (0, 4, 5, 6)
    assert alphabet.ctc_classes == alphabet.start
    assert alphabet.attention_classes == alphabet.unknown + 1
    for number in (0, 4, 5, 6, -1):
        with pytest.raises(ValueError, match=f"class {number} is no character"):
            alphabet.decoded([number])


def test_the_space_of_a_dictionary_may_be_there_twice():
    alphabet = Alphabet("a b ")
    assert alphabet.decoded([2, 4]) == "  "
    np.testing.assert_array_equal(alphabet.encoded(" "), [4])


@pytest.mark.parametrize(("characters", "told"), [("", "1 to"), ("aba", "'a' is in the alphabet twice"), ("a\tb", r"'\\t'")])
def test_what_cannot_be_an_alphabet_is_refused(characters, told):
    with pytest.raises(ValueError, match=told):
        Alphabet(characters)


def test_names_are_those_of_distinct_characters_and_the_longer_hold_the_shorter():
    sets = {name: set(characters) for name, characters in NAMED.items()}
    assert all(len(sets[name]) == len(NAMED[name]) for name in NAMED)
    assert sets["digits"] < sets["alphanumeric"] < sets["en"] < sets["en_full"]
    assert len(NAMED["en"]) == 95
    assert all(alphabet_of(name).characters == characters for name, characters in NAMED.items())


def test_a_model_section_says_which():
    assert alphabet_of({"characters": "xyz"}) == Alphabet("xyz")
    for wrong, told in [("en_fill", "did you mean 'en_full'"), ({"characters": "aa"}, "twice"), ({"letters": "a"}, "characters: abc")]:
        with pytest.raises(ValueError, match=told):
            alphabet_of(wrong)


def test_dictionaries_and_texts_give_alphabets():
    assert from_dictionary(["b", "a"]) == Alphabet("ba ")
    assert from_dictionary(["b", " ", "a"]) == Alphabet("b a")
    assert from_dictionary(["b"], space=False) == Alphabet("b")
    assert of_texts(["cab", "a c", ""]) == Alphabet(" abc")
    with pytest.raises(ValueError, match="line 2 holds 'ab'"):
        from_dictionary(["a", "ab"])
    with pytest.raises(ValueError, match="1 to"):
        of_texts([])


def test_it_survives_yaml():
    alphabet = Alphabet("a '\"#é漢:\\ ")
    assert alphabet_of(yaml.safe_load(yaml.safe_dump(written_as(alphabet)))) == alphabet
