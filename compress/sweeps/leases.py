"""Who does a stage that trials on several machines need at once, where no file system that all of them see could lock it.

One :class:`Leases` for the sweep, kept by the machine that the command was given on, lends each place in the store to one trial at a
time. A trial's process writes what it wants into its folder; the worker that watches it (:class:`Requests`) asks for that again and again,
which also keeps a lease alive. A machine that is lost asks no longer, and what was lent to it lapses.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.files import remembered, write_json
from compress.progress import say

LAPSE = 20.0  # seconds without a word after which a lease ends
LOOK = 0.2  # seconds between two looks
WANTED, GIVEN = "wanted.json", "given.json"  # in a trial's folder: the place it wants and the request's own name; the request granted


class Leases:
    """Place -> who has it and when that was last heard."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lent: dict[str, tuple[str, float]] = {}

    def hold(self, place: str, holder: str) -> bool:
        """Lend a place to a holder, or lend it on; False while another one has it."""
        other, heard = self.lent.get(place, (holder, 0.0))
        if other != holder and self.clock() - heard < LAPSE:
            return False
        self.lent[place] = (holder, self.clock())
        return True

    def release(self, place: str, holder: str) -> None:
        """A holder needs a place no longer."""
        if self.lent.get(place, ("", 0.0))[0] == holder:
            del self.lent[place]


@contextmanager
def lent(folder: Path, place: str) -> Iterator[None]:
    """Until the block ends, this process, that of the trial in `folder`, has the place; waits for whoever has it."""
    request, began = secrets.token_hex(8), time.monotonic()
    write_json(folder / WANTED, [place, request])
    told = False
    while remembered(folder / GIVEN, str) != request:
        if not told and time.monotonic() - began > 5 * LOOK:
            say(f"{place}: a trial on another machine does this stage; waiting for it")
            told = True
        time.sleep(LOOK)
    try:
        yield
    finally:
        (folder / WANTED).unlink(missing_ok=True)


class Requests:
    """Asks for what the process of the trial in `folder` wants, and tells it when it has that."""

    def __init__(self, folder: Path, hold: Callable[[str], bool], release: Callable[[str], None]) -> None:
        self.folder, self.hold, self.release = folder, hold, release
        self.has: list[str] = []  # the place and the request for it
        for name in (WANTED, GIVEN):  # of a process that was killed
            (folder / name).unlink(missing_ok=True)

    def look(self) -> None:
        """See what is wanted now."""
        wanted = remembered(self.folder / WANTED, list[str]) or []
        if self.has and wanted != self.has:
            self.end()
        if wanted and self.hold(wanted[0]) and not self.has:
            self.has = wanted
            write_json(self.folder / GIVEN, wanted[1])

    def end(self) -> None:
        """Give back what it has."""
        if self.has:
            self.release(self.has[0])
            self.has = []
