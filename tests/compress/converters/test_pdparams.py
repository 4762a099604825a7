"""Reading .pdparams files: arrays come back, and nothing but arrays is read."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from paddle_style import write_pdparams

from compress.converters.pdparams import read_pdparams
from compress.errors import CompressError


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path: str) -> None:
    Path(path).touch()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["alone", "beside", "inside"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, protocol, place) -> None:
    mark = tmp_path / "mark"
    for call in (Calls(os.system, f"touch {mark}"), Calls(eval, f"open({str(mark)!r}, 'w')"), Calls(touch, str(mark))):
        held = {
            "alone": call,
            "beside": {"a.weight": np.ones(3, np.float32), "b.weight": call},
            "inside": {"a.weight": np.array([call], object)},
        }
        path = tmp_path / "hostile.pdparams"
        path.write_bytes(pickle.dumps(held[place], protocol=protocol))
        with pytest.raises(CompressError, match=r"hostile\.pdparams is not read: it is damaged, or holds more than arrays"):
            read_pdparams(path)
        assert not mark.exists()
    pickle.loads(path.read_bytes())  # which runs it: the files above would have done harm
    assert mark.exists()


SHAPES = [(2**40,), (2**62, 4), (-1,), (3, 5), ("a",), (1.0,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_array_that_lies_about_its_shape_is_refused(tmp_path, shape) -> None:
    class Liar:
        def __reduce__(self):
            made, arguments, state = np.ones(4, np.float32).__reduce__()
            return made, arguments, (state[0], shape, *state[2:])

    path = tmp_path / "liar.pdparams"
    path.write_bytes(pickle.dumps({"a": Liar()}))
    with pytest.raises(CompressError, match=r"liar\.pdparams is not read"):
        read_pdparams(path)


@pytest.mark.parametrize("content", [[1, 2], "text", {"a": 1}, {"a": {"b": np.ones(1)}}, {1: np.ones(1)}, {"a": np.array(["text"])}])
def test_anything_but_named_arrays_is_refused(tmp_path, content) -> None:
    path = tmp_path / "other.pdparams"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CompressError, match=r"other\.pdparams"):
        read_pdparams(path)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i8", "|u1", "|b1"])
def test_arrays_of_numbers_come_back(tmp_path, dtype) -> None:
    arrays = {"a": np.arange(12).reshape(3, 4).astype(dtype), "b": np.asfortranarray(np.eye(3)).astype(dtype, order="F")}
    found = read_pdparams(write_pdparams(tmp_path / "a.pdparams", arrays, protocol=2))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}r\xff\xff\xff\x07.",  # an empty dict, remembered as number 134,217,727
        b"\x80\x04\x8e\xff\xff\xff\xff\x01\0\0\0.",
        b"\x80\x04\x95\xff\xff\xff\xff\x01\0\0\0.",
        b"\x80\x02T\xff\xff\xff\x7f.",
        b"",
    ],
)
def test_nine_bytes_do_not_ask_for_gigabytes(tmp_path, content):
    (tmp_path / "bomb.pdparams").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CompressError, match=r"bomb\.pdparams is not read"):
        read_pdparams(tmp_path / "bomb.pdparams")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1e6
