"""A store: finished stages that several experiments share, one folder for each.

An experiment takes a stage from there before it does it, and leaves there what it has done, with its rows. Who does a stage holds its lock,
so that of two experiments that need the same stage at once one works and the other waits; the end of a process, by whatever cause, ends
its lock too. A folder appears whole or not at all. It is named after the stage, and after a digest of the key, under which the stage was
done, and of the name of its parent: a manifest and rows name both. Several machines share a store that lies on a file system which all of
them see and which locks files across them, such as NFS 4; for those that see no such thing there is :mod:`compress.remote_store`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from compress.files import fingerprint, remembered, write_json
from compress.outputs import check_folder
from compress.processes import main_process
from compress.progress import say
from compress.stage_folder import ELAPSED, KEY, check_free, clear_partial, is_complete, key_of_partial, partial_folder, set_aside


def check_store(store: Path | None) -> None:
    """Refuse a store that cannot be written into."""
    if store is None:
        return
    check_folder(store)


def place_in(store: Path, name: str, parent: str | None, key: str) -> Path:
    """Where the store keeps the stage called `name` that starts from the one called `parent`."""
    return store / f"{name}-{fingerprint([parent, key])[:32]}"


@contextlib.contextmanager
def alone_at(place: Path | None) -> Iterator[None]:
    """Until the block ends, nobody else does the stage of this place; waits for whoever does. Without a store there is nobody."""
    if place is None or not main_process():
        yield
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f"{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{place.name}: another experiment does this stage; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def take(place: Path | None, folder: Path, name: str, key: str) -> bool:
    """Put the stage `name`, if the store has it whole, into the experiment in `folder`; whether it had."""
    if place is None or not is_complete(place, key):
        return False
    with copied(place, folder) as copy:
        check_free(folder, name)
        set_aside(folder, name)
        partial = partial_folder(folder, name)
        if key_of_partial(partial) == key:  # begun here, and finished elsewhere meanwhile
            shutil.rmtree(partial)
        clear_partial(partial)
        copy.rename(folder / name)
    return True


def adopt(place: Path | None, folder: Path, name: str, key: str) -> None:
    """Go on in the experiment in `folder` with what another one began of this stage before it was cut off; note who works on it now.

    Called by who holds the lock of the place.
    """
    if place is None:
        return
    mine, note = partial_folder(folder, name).resolve(), begun_note(place)
    other = remembered(note, str)
    if other and key_of_partial(Path(other)) == key and key_of_partial(mine) != key:
        check_free(folder, name)
        clear_partial(mine)
        shutil.move(other, mine)
    write_json(note, str(mine))


def begun_note(place: Path) -> Path:
    """The file that says where a stage of this place was begun."""
    return place.with_name(f"{place.name}.json")


def give(place: Path | None, done: Path, key: str, rows: str) -> None:
    """Leave the complete stage in the folder `done`, its rows in the file called `rows`, in the store. What is there whole stays.

    Called by who holds the lock of the place.
    """
    if place is None:
        return
    if is_complete(place, key):
        if not (place / rows).exists():
            shutil.copyfile(done / rows, place / f"{rows}.tmp")
            (place / f"{rows}.tmp").replace(place / rows)
        return
    with copied(done, place.parent) as copy:
        if place.exists():  # damaged
            shutil.rmtree(place)
        copy.rename(place)
    begun_note(place).unlink(missing_ok=True)


@contextlib.contextmanager
def copied(source: Path, beside: Path) -> Iterator[Path]:
    """A copy of a folder that is not seen yet, below the folder `beside`; gone when the block ends, unless it was moved."""
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=beside) as temporary:
        copy = Path(temporary) / source.name
        shutil.copytree(source, copy, copy_function=linked, ignore=shutil.ignore_patterns(KEY, ELAPSED, "*.tmp"))
        yield copy


def linked(source: str, target: str) -> None:
    """The same file under a second name where that can be, else a copy: files of stages are never written to, only replaced."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
