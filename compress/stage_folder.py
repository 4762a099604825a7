"""The folder of a stage: begun, complete, or set aside.

A stage is worked on in `<name>.partial`, which is renamed when it is complete, so a folder without that ending is whole. A complete
stage whose key no longer fits is set aside in `.cache` and taken from there should its key come back: nothing is trained twice. A folder
of which files have gone, such as one whose tables were committed without the weights, is not complete.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from compress.files import read_json, write_json

MANIFEST = "manifest.json"


def state_of(folder: Path, name: str, key: str) -> str:
    """Whether the stage `name` of the experiment in `folder` is, under this key, `in the cache`, `begun` or `to do`."""
    if is_complete(folder / name, key) or is_complete(set_aside_folder(folder, name, key), key):
        return "in the cache"
    return "begun" if read_json(folder / f"{name}.partial" / "key.json") == key else "to do"


def find_cached(folder: Path, name: str, key: str) -> bool:
    """Whether the stage is complete under this key; one that was set aside is put back first."""
    if is_complete(folder / name, key):
        return True
    aside = set_aside_folder(folder, name, key)
    if not is_complete(aside, key):
        return False
    set_aside(folder, name)
    aside.rename(folder / name)
    return True


def is_complete(place: Path, key: str) -> bool:
    """Whether `place` holds a stage of this key with all the files that it was left with; what is in them is for those who open them."""
    manifest = read_json(place / MANIFEST) or {}
    return manifest.get("key") == key and "files" in manifest and set(manifest["files"]) <= set(files_in(place))


def files_in(place: Path) -> list[str]:
    """Paths, inside `place`, of every file there."""
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def set_aside_folder(folder: Path, name: str, key: str) -> Path:
    """Where a complete stage goes whose key no longer fits."""
    return folder / ".cache" / f"{name}-{key[:16]}"


def set_aside(folder: Path, name: str) -> None:
    """Move the stage's folder, if there is one, out of the way; it goes where the same lies aside whole."""
    if not (folder / name).exists():
        return
    key = (read_json(folder / name / MANIFEST) or {}).get("key", "unknown")
    aside = set_aside_folder(folder, name, key)
    if is_complete(aside, key):
        shutil.rmtree(folder / name)
        return
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    (folder / name).rename(aside)


def prepare_partial(partial: Path, key: str) -> None:
    """Keep an unfinished folder of the same key to resume in, empty any other."""
    if partial.exists() and read_json(partial / "key.json") != key:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / "key.json", key)
