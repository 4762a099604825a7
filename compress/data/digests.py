"""sha256 of files, remembered from run to run by what the file system says about them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from compress.data.cache import cache_folder
from compress.files import digest, remembered, write_json

# Size, times of change of content and of inode (which nobody can set back) in nanoseconds, inode, sha256.
Known = dict[str, tuple[int, int, int, int, str]]
UNREADABLE = "unreadable"  # in the place of a digest: the image's reader says what is wrong


def file_digests(paths: Sequence[Path]) -> list[str]:
    """sha256, in hexadecimal, of each file's content; `unreadable` for what is no regular file or cannot be read.

    A file is read once, and again when its size, its times of change or its inode are others. What is known of a folder's files lies in
    the cache folder; where that cannot be written, files are read each time.
    """
    folders: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        folders[path.parent].add(path.name)
    known = {folder: digests_in(folder, sorted(names)) for folder, names in folders.items()}
    return [known[path.parent][path.name] for path in paths]


def digests_in(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Name -> sha256 of the files in one folder."""
    kept = cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"
    before: Known = remembered(kept, Known) or {}
    found: Known = {}
    digests = {}
    for name in names:
        key = os.fsencode(name).decode("latin-1")  # a name need not be text
        try:
            status = (folder / name).stat()
            if not stat.S_ISREG(status.st_mode):
                raise OSError
            facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            same = key in before and before[key][:4] == facts
            digests[name] = before[key][4] if same else digest(folder / name)
            found[key] = (*facts, digests[name])
        except OSError:
            digests[name] = UNREADABLE
    if any(before.get(key) != value for key, value in found.items()):
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, before | found)
    return digests
