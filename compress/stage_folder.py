"""The folder of a stage: begun, complete, or set aside.

A stage is worked on in `<name>.partial`, which is renamed when it is complete, so a folder without that ending is whole. A complete
stage whose key no longer fits is set aside in `.cache` and taken from there should its key come back: nothing is trained twice.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from compress.files import read_json, write_json

MANIFEST = "manifest.json"


def state_of(folder: Path, name: str, key: str) -> str:
    """Whether the stage `name` of the experiment in `folder` is, under this key, `in the cache`, `begun` or `to do`."""
    places = (folder / name, set_aside_folder(folder, name, key))
    if any((read_json(place / MANIFEST) or {}).get("key") == key for place in places):
        return "in the cache"
    return "begun" if read_json(folder / f"{name}.partial" / "key.json") == key else "to do"


def find_cached(folder: Path, name: str, key: str) -> bool:
    """Whether the stage is complete under this key; one that was set aside is put back first."""
    if (read_json(folder / name / MANIFEST) or {}).get("key") == key:
        return True
    aside = set_aside_folder(folder, name, key)
    if not (aside / MANIFEST).exists():
        return False
    set_aside(folder, name)
    aside.rename(folder / name)
    return True


def set_aside_folder(folder: Path, name: str, key: str) -> Path:
    """Where a complete stage goes whose key no longer fits."""
    return folder / ".cache" / f"{name}-{key[:16]}"


def set_aside(folder: Path, name: str) -> None:
    """Move the stage's folder, if there is one, out of the way."""
    if not (folder / name).exists():
        return
    key = (read_json(folder / name / MANIFEST) or {}).get("key", "unknown")
    aside = set_aside_folder(folder, name, key)
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    (folder / name).rename(aside)


def prepare_partial(partial: Path, key: str) -> None:
    """Keep an unfinished folder of the same key to resume in, empty any other."""
    if partial.exists() and read_json(partial / "key.json") != key:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / "key.json", key)
