"""Lines half of which are upside down."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from compress.data.lines.synthetic import SyntheticLines
from compress.data.lines.turned import Turned, upside_down
from compress.models.contract import Label


def lines(**fields) -> SyntheticLines:
    return SyntheticLines(format="synthetic_lines", **({"train": 40, "val": 20, "test": 2} | fields))


def test_images_are_those_of_the_lines_or_those_rotated():
    data = Turned(format="turned", of=lines())
    assert data.splits() == ("train", "val", "test")
    for split in ("train", "val"):
        turned, plain = data.open(split, 4), lines().open(split, 4)
        for sample, line in zip(turned, plain, strict=True):
            expected = line.image if sample.truth == Label("0") else np.rot90(line.image, 2)
            np.testing.assert_array_equal(sample.image, expected)
            assert sample.image.flags["C_CONTIGUOUS"]
            assert sample.name == line.name
        assert {sample.truth.name for sample in turned} == {"0", "180"}


def test_about_half_are_turned_by_seed_split_and_index_alone():
    flags = {(seed, split): [upside_down(seed, split, index) for index in range(1000)] for seed in (0, 1) for split in ("train", "val")}
    assert all(440 < sum(found) < 560 for found in flags.values())
    assert len({tuple(found) for found in flags.values()}) == 4
    few, many = (Turned(format="turned", of=lines(val=count)).open("val", 0) for count in (5, 20))
    assert [sample.truth for sample in few] == [sample.truth for sample in many][:5]
    assert [sample.truth.name == "180" for sample in many] == flags[0, "val"][:20]


def test_digests_tell_the_lines_and_the_seed_apart():
    digests = [
        Turned(format="turned", of=lines(**fields)).open("val", seed).digest for fields, seed in (({}, 0), ({}, 1), ({"height": 32}, 0))
    ]
    assert len({*digests, lines().open("val", 0).digest}) == 4
    assert Turned(format="turned", of=lines()).open("val", 0).digest == digests[0]


def test_a_split_goes_to_another_process_without_its_pixels():
    split = Turned(format="turned", of=lines()).open("val", 0)
    image = split[3].image
    stored = pickle.dumps(split)
    assert len(stored) < 20_000
    np.testing.assert_array_equal(pickle.loads(stored)[3].image, image)


def test_what_is_no_data_set_of_lines_is_refused():
    for wrong in ({"format": "icdar2015", "root": "x"}, {"format": "turned", "of": {}}, {}, "lines"):
        with pytest.raises(ValidationError):
            Turned(format="turned", of=wrong)
