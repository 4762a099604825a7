"""Paddle's `.pdparams`: a pickle of a dict of arrays. It is read without any of the calls that a pickle asks for.

Every name in it is looked up in a short table of stand-ins, which check what they are given and hold plain bytes; arrays are made of
them afterwards. Paddle writes pickle protocols 2 to 4.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from compress.converters.names import Tensors
from compress.errors import CompressError
from compress.files import read_bytes

KINDS = "fiub"  # floating, integer, unsigned, boolean
LARGEST = 1 << 33  # bytes; the largest of PP-OCR's has 0.5e9
NAME_TABLE = "StructuredToParameterName@@"  # Paddle's own list of names, beside the arrays


class DType:
    """Stands for `numpy.dtype`: a code such as "f4", and a byte order that comes with the state."""

    def __init__(self, code: str, *_flags: bool) -> None:
        if not (isinstance(code, str) and len(code) == 2 and code[0] in KINDS and code[1] in "1248"):
            raise pickle.UnpicklingError(f"arrays of {code!r}")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|")):
            raise pickle.UnpicklingError("an array with fields")
        self.code = state[1] + self.code


class Array:
    """Stands for `numpy.ndarray` and for the function that makes an empty one; filled by its state."""

    def __init__(self, *_empty: Any) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, by_columns, data = state
        if not (isinstance(dtype, DType) and isinstance(data, bytes) and isinstance(shape, tuple)):
            raise pickle.UnpicklingError("an array of objects")
        kind = np.dtype(dtype.code)
        if not all(isinstance(side, int) and side >= 0 for side in shape) or math.prod(shape) * kind.itemsize != len(data):
            raise pickle.UnpicklingError("an array whose shape does not fit its bytes")
        self.values = np.frombuffer(data, kind).reshape(shape, order="F" if by_columns else "C")


class Latin1(bytes):
    """Stands for `_codecs.encode`, by which protocol 2 writes bytes."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]  # plain bytes take its place
        if encoding != "latin1" or not isinstance(text, str):
            raise pickle.UnpicklingError(f"bytes in {encoding!r}")
        return text.encode("latin1")

    def __setstate__(self, _state: Any) -> None:
        raise pickle.UnpicklingError("bytes with a state")


STAND_INS = {
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): Latin1,
    ("numpy", "dtype"): DType,
    ("numpy", "ndarray"): Array,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
}


class Reader(pickle.Unpickler):
    """Builds numbers, text, lists, tuples, dicts and stand-ins, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return STAND_INS[module, name]


def read_pdparams(path: Path) -> Tensors:
    """Names to arrays of floating-point numbers.

    Raises CompressError where the file is cut off, is no pickle, or asks for anything but arrays.
    """
    data = read_bytes(path, "file of parameters", LARGEST)
    try:
        check_places(data)
        loaded = Reader(io.BytesIO(data)).load()
    except MemoryError:
        raise CompressError(f"{path} asks for more memory than there is; it is damaged.") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise CompressError(
            f"{path} is not read: it is damaged, or holds more than arrays ({type(error).__name__}: {error}); fetch it again."
        ) from None
    if not isinstance(loaded, dict):
        raise CompressError(f"{path} holds no mapping from names to arrays, but a {type(loaded).__name__}.")
    tensors = {name: array_of(value) for name, value in loaded.items() if name != NAME_TABLE}
    wrong = [name for name, value in tensors.items() if value is None or not isinstance(name, str)]
    if wrong:
        raise CompressError(f"{path} holds {wrong[0]!r}, which is no array; give the file of the parameters, not of the optimizer.")
    return {name: value for name, value in tensors.items() if value is not None}


def check_places(data: bytes) -> None:
    """Refuse a pickle that numbers what it remembers beyond its own length, for which memory would be set aside: 2 GB by 9 bytes.

    Raises UnpicklingError, and ValueError for what is cut off.
    """
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == "LONG_BINPUT" and isinstance(argument, int) and argument > len(data):
            raise pickle.UnpicklingError(f"it remembers {argument} things in {len(data)} bytes")


def array_of(value: Any) -> np.ndarray | None:
    """The array that a value is, or that it holds beside its name, as newer versions of Paddle write it."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    return value.values if isinstance(value, Array) else None
