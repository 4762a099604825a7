"""Seeded mutations of files: what a bad disk, a careless editor or another program may make of one."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
VALUES = (
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1.5",
    b'"text"',
    b"[]",
    b"{}",
    b"[1, [2]]",
    b'{"a": 1}',
    b"NaN",
    b".inf",
    b"2026-11-28",
    b"=",
    b"*a",
    b"!!python/name:os.system",
)
NUMBERS = (
    b"-1",
    b"0",
    b"1e999",
    b"-1e999",
    b"nan",
    b"9" * 25,
    b"1" * 5000,
    b"9223372036854775808",
    b"2147483648",
    b"1e-320",
    b"0.5",
    "\u2460".encode(),
    b"0x10",
    b"1_000",
)
ENCODINGS = ("utf-16", "utf-32", "gbk", "latin-1", "utf-8-sig", "cp037")


def flip_bits(data: bytes, random: Random) -> bytes:
    """One to eight bits turned around."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8) if data else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut_off(data: bytes, random: Random) -> bytes:
    """The beginning alone."""
    return data[: random.randrange(len(data) + 1)]


def cut_out(data: bytes, random: Random) -> bytes:
    """A stretch is missing."""
    first = random.randrange(len(data) + 1)
    return data[:first] + data[first + random.randint(1, 200) :]


def doubled(data: bytes, random: Random) -> bytes:
    """A stretch stands there twice."""
    first = random.randrange(len(data) + 1)
    last = first + random.randint(1, 200)
    return data[:last] + data[first:]


def line_doubled(data: bytes, random: Random) -> bytes:
    """A line stands there twice, the second time anywhere."""
    lines = data.splitlines(keepends=True) or [b""]
    lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
    return b"".join(lines)


def line_deleted(data: bytes, random: Random) -> bytes:
    """A line is missing."""
    lines = data.splitlines(keepends=True) or [b""]
    del lines[random.randrange(len(lines))]
    return b"".join(lines)


def lines_swapped(data: bytes, random: Random) -> bytes:
    """Two lines have changed places."""
    lines = data.splitlines(keepends=True) or [b""]
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def another_number(data: bytes, random: Random) -> bytes:
    """A number is another one: huge, negative, not finite, of digits that are none."""
    return replaced(data, list(NUMBER.finditer(data)), random.choice(NUMBERS), random)


def another_type(data: bytes, random: Random) -> bytes:
    """What stands behind a colon or a comma is of another type."""
    return replaced(data, list(re.finditer(rb"(?<=[:,=\t])[^,:\n\r\]}\t]+", data)), b" " + random.choice(VALUES), random)


def replaced(data: bytes, places: list[re.Match[bytes]], by: bytes, random: Random) -> bytes:
    """One of the places replaced; a stretch deleted where there is none."""
    if not places:
        return cut_out(data, random)
    place = random.choice(places)
    return data[: place.start()] + by + data[place.end() :]


def other_encoding(data: bytes, random: Random) -> bytes:
    """The text in another encoding; of what is no text, the bytes taken for Latin-1."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.encode(random.choice(ENCODINGS), errors="replace")


def empty(_data: bytes, _random: Random) -> bytes:
    """Nothing."""
    return b""


def noise(data: bytes, random: Random) -> bytes:
    """Other bytes altogether."""
    return random.randbytes(min(len(data), random.randint(1, 4096)))


def zeros(data: bytes, random: Random) -> bytes:
    """A stretch that a disk never wrote."""
    first = random.randrange(len(data) + 1)
    length = min(random.choice((16, 512, 4096)), len(data) - first)
    return data[:first] + bytes(length) + data[first + length :]


def windows_lines(data: bytes, _random: Random) -> bytes:
    """Lines that end as on Windows."""
    return data.replace(b"\n", b"\r\n")


def brackets(data: bytes, random: Random) -> bytes:
    """A value nested far too deep."""
    first = random.randrange(len(data) + 1)
    return data[:first] + random.choice((b"[", b'{"a":', b"(", b"- ")) * 100_000 + data[first:]


def grown(data: bytes, random: Random) -> bytes:
    """A word of a hundred thousand characters."""
    first = random.randrange(len(data) + 1)
    return data[:first] + random.choice((b"a", b"1", b" ", b"\n", "\u4e2d".encode())) * 100_000 + data[first:]


Mutation = Callable[[bytes, Random], bytes]
ANYWHERE: tuple[Mutation, ...] = (flip_bits, flip_bits, cut_off, cut_out, doubled, empty, noise, zeros)
OF_TEXT: tuple[Mutation, ...] = (
    line_doubled,
    line_deleted,
    lines_swapped,
    *(another_number,) * 3,
    *(another_type,) * 4,
    other_encoding,
    windows_lines,
    brackets,
    grown,
)


def mutated(data: bytes, seed: str) -> tuple[str, bytes]:
    """A mutation's name and what it makes of the content of a file; the same for the same seed. Text is mutated as text more often."""
    random = Random(seed)
    mutation = random.choice(ANYWHERE if b"\0" in data else (*ANYWHERE, *OF_TEXT, *OF_TEXT))
    return mutation.__name__, mutation(data, random)
