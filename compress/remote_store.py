"""A store that machines without a common file system share: a URL that fsspec opens, such as `s3://bucket/stages`.

Each machine has a store of its own, a folder (:mod:`compress.store`). A finished stage that this lacks is fetched from below the URL,
and one that was finished here is sent there, as one zip file `<place>.zip`. It is written under another name and then renamed, which
object stores do at once, so that half of it is never seen. What was fetched is held against the digests in the stage's manifest before
it counts. Who may do a stage, where several machines could, is decided by whoever gives `alone`: a URL has no locks.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.cache import cache_folder
from compress.errors import CompressError
from compress.files import fingerprint
from compress.progress import say
from compress.stage_folder import files_in, is_complete

# Until its block ends, nobody on another machine does the stage whose place is called so.
Alone = Callable[[str], AbstractContextManager[None]]


def with_anybody(place: str) -> AbstractContextManager[None]:  # noqa: ARG001
    """No lock: two machines that need the same stage at once both do it, and the first to end is the one that is kept."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Remote:
    """Where finished stages lie for all machines."""

    url: str
    alone: Alone = with_anybody


def is_url(place: str) -> bool:
    """Whether it is a URL, and no path."""
    return "://" in place


def folder_for(url: str) -> Path:
    """The folder in which this machine keeps what belongs to a URL."""
    return cache_folder() / "shared" / fingerprint(url)[:16]


@contextlib.contextmanager
def reached(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path in it. Whatever its library raises in the block is one sentence, a CompressError."""
    from fsspec.core import url_to_fs

    try:
        yield url_to_fs(url)
    except CompressError:
        raise
    except ImportError as error:
        raise CompressError(f"{url} needs a package that is not installed ({error}); install it on every machine.") from None
    except Exception as error:  # each file system has exceptions of its own
        told = " ".join(str(error).split())[:300] or type(error).__name__
        raise CompressError(f"{url} cannot be used ({told}); check its address and your rights there.") from None


def check_remote(url: str) -> None:
    """Refuse a URL that cannot be written below, after trying. Folders are made for it, but no bucket."""
    with reached(url) as (files, root):
        trial = f"{root}/.{secrets.token_hex(8)}.tmp"
        try:
            files.pipe_file(trial, b"compress")
        except FileNotFoundError:
            top = root.split("/", 1)[0] or "/"
            if not files.exists(top):
                raise CompressError(f"{url}: there is no '{top}'; make it, or give another URL.") from None
            files.makedirs(root, exist_ok=True)
            files.pipe_file(trial, b"compress")
        files.rm_file(trial)


def send_file(source: Path, url: str, name: str) -> None:
    """Put a file to `name` below the URL, whole or not at all, in the place of what is there."""
    with reached(url) as (files, root):
        target = f"{root}/{name}"
        temporary = f"{root}/.{secrets.token_hex(8)}.tmp"
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        files.put_file(str(source), temporary)
        files.mv(temporary, target)


def fetch_file(url: str, name: str, target: Path) -> bool:
    """Put what is at `name` below the URL into the file `target`, whole or not at all; whether there was anything."""
    temporary = target.with_name(f"{target.name}.tmp")
    with reached(url) as (files, root):
        try:
            files.get_file(f"{root}/{name}", str(temporary))
        except FileNotFoundError:
            temporary.unlink(missing_ok=True)
            return False
    temporary.replace(target)
    return True


@contextlib.contextmanager
def alone_everywhere(remote: Remote | None, place: Path | None) -> Iterator[None]:
    """Until the block ends, nobody on another machine does the stage of this place."""
    if remote is None or place is None:
        yield
        return
    with remote.alone(place.name):
        yield


def fetch(remote: Remote | None, place: Path | None, key: str) -> None:
    """Put the stage of this place into this machine's store where that lacks it and the URL has it.

    One that is not what its digests say is removed from below the URL, and is done again.
    """
    if remote is None or place is None or is_complete(place, key):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=place.parent) as temporary:
        archive, copy = Path(temporary) / "stage.zip", Path(temporary) / place.name
        if not fetch_file(remote.url, archive_of(place), archive):
            return
        if not unpacked(archive, copy) or not is_complete(copy, key):
            say(f"{place.name}: what lies at {remote.url} is damaged; it is removed, and the stage is done again")
            with reached(remote.url) as (files, root):
                files.rm_file(f"{root}/{archive_of(place)}")
            return
        if place.exists():  # damaged
            shutil.rmtree(place)
        copy.rename(place)


def send(remote: Remote | None, place: Path | None) -> None:
    """Put the stage of this place below the URL, unless it is there."""
    if remote is None or place is None:
        return
    with reached(remote.url) as (files, root):
        files.invalidate_cache()  # of listings: another machine may have sent it meanwhile
        if files.exists(f"{root}/{archive_of(place)}"):
            return
    with tempfile.TemporaryDirectory(prefix=".sent-", dir=place.parent) as temporary:
        archive = Path(temporary) / "stage.zip"
        with zipfile.ZipFile(archive, "w") as stored:  # weights do not become smaller
            for name in files_in(place):
                stored.write(place / name, name)
        send_file(archive, remote.url, archive_of(place))


def archive_of(place: Path) -> str:
    """The name below the URL of what belongs to a place."""
    return f"{place.name}.zip"


def unpacked(archive: Path, folder: Path) -> bool:
    """Unpack a zip file into a folder; whether it was a whole one. No file gets outside of the folder."""
    try:
        with zipfile.ZipFile(archive) as stored:
            stored.extractall(folder)
    except (zipfile.BadZipFile, EOFError, RuntimeError):  # the last for what is encrypted or packed in an unknown way
        return False
    return True
