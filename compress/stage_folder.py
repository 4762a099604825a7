"""The folder of a stage: begun, complete, damaged, or set aside.

A stage is worked on in `<name>.partial`, which is renamed when it is complete, so a folder without that ending is whole. Its manifest
holds the digest of every file. A complete stage whose key no longer fits is set aside in `.cache` and taken from there should its key
come back, and so is an unfinished one that was trained: nothing is trained twice. A folder of which files have gone, such as one whose
tables were committed without the weights, is not complete; one with a file that is not what its digest says is damaged, and set aside
too. Nothing is moved or deleted but folders that a stage has left, which are known by their manifest, or by the key that lies in an
unfinished one.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.errors import CompressError
from compress.files import check_file, digest, fingerprint, read_lines, read_tensors, remembered, write_json
from compress.records import Epoch, Key, Mark

MANIFEST, KEY = "manifest.json", "key.json"
DONE, BEGUN, DAMAGED, TO_DO = "in the cache", "begun", "damaged", "to do"
# Of a training: what it needs to go on after it was cut off, the time spent so far, and a line for each epoch.
STATE, ELAPSED, METRICS = "training.pt", "elapsed.json", "metrics.jsonl"
LAST_EPOCH = 10**9
# A stage's artefacts lie at most so many folders below its manifest: `int8/control/last`.
DEEPEST = 3


def state_of(folder: Path, name: str, key: str) -> str:
    """Whether the stage `name` of the experiment in `folder` is, under this key, `in the cache`, `begun`, `damaged` or `to do`."""
    places = (folder / name, set_aside_folder(folder, name, key))
    if any(is_complete(place, key) for place in places):
        return DONE
    partial = partial_folder(folder, name)
    if key in (key_of_partial(partial), key_of_partial(begun_aside(partial, key))):
        return BEGUN
    return DAMAGED if any(damage(place, key) for place in places) else TO_DO


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
    """Whether `place` holds a stage of this key with all the files that it was left with, as it was left."""
    return key_of(place) == key and not missing(place) and not damaged_files(place)


def damage(place: Path, key: str) -> str | None:
    """The first file of a stage of this key that is there but is not what it was; None for a stage that is sound, and for no stage."""
    return next(iter(damaged_files(place)), None) if key_of(place) == key and not missing(place) else None


def mark_of(place: Path) -> Mark | None:
    """What a stage that was done at `place` is known by; None where there is none, or its manifest is damaged."""
    return remembered(place / MANIFEST, Mark)


def key_of(place: Path) -> str | None:
    """The key under which the stage at `place` was done; None where there is no stage."""
    mark = mark_of(place)
    return mark["key"] if mark else None


def key_of_partial(partial: Path) -> str | None:
    """The key of the stage that was begun in `partial`; None where none was."""
    return remembered(partial / KEY, Key)


def digests_of(place: Path) -> dict[str, str]:
    """Path inside `place` -> sha256, of every file that the stage left there."""
    mark = mark_of(place)
    return mark.get("files", {}) if mark else {}


def missing(place: Path) -> bool:
    """Whether any of the stage's files has gone, or none are known."""
    known = digests_of(place)
    return not known or not all((place / file).is_file() for file in known)


def damaged_files(place: Path) -> list[str]:
    """Those of the stage's files that are there but are not what they were."""
    return [file for file, said in digests_of(place).items() if (place / file).is_file() and digest(place / file) != said]


def check_whole(place: Path, names: Sequence[str] = ()) -> None:
    """Refuse files that are not what the manifest of the stage they belong to says; where there is no manifest, nothing is known.

    place: an exported file, or the folder of a checkpoint, in which `names` are looked at. Raises CompressError.
    """
    files = [place / name for name in names] or sorted(place.parent.glob(f"{place.stem}.*"))
    home = next((above for above in (place, *place.absolute().parents[:DEEPEST]) if (above / MANIFEST).is_file()), None)
    known = digests_of(home) if home else {}
    for file in files:
        if home is None:
            continue
        said = known.get(file.absolute().relative_to(home.absolute()).as_posix())
        if said is not None and file.is_file() and digest(file) != said:
            told = f"it is not what {home / MANIFEST} says that its stage left"
            raise CompressError(f"{file} is damaged: {told}; restore it, or run the recipe again, which does the stage again.")


def digests(place: Path, leave_out: Sequence[str] = ()) -> dict[str, str]:
    """Path inside `place` -> sha256, of every file there but those that are named."""
    return {file: digest(place / file) for file in files_in(place) if file not in leave_out}


def files_in(place: Path) -> list[str]:
    """Paths, inside `place`, of every file there."""
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def partial_folder(folder: Path, name: str) -> Path:
    """Where the stage is worked on."""
    return folder / f"{name}.partial"


def set_aside_folder(folder: Path, name: str, key: str) -> Path:
    """Where a complete stage goes whose key no longer fits."""
    return folder / ".cache" / f"{name}-{key[:16]}"


def check_free(folder: Path, name: str) -> None:
    """Refuse to work where the folders that the stage needs are there and are not a stage's."""
    for place, mark in ((folder / name, MANIFEST), (partial_folder(folder, name), KEY)):
        if (place.exists() or place.is_symlink()) and not is_ours(place, mark):
            told = f"{place} is in the way of the stage '{name}', and without a whole {mark} it is not a stage's"
            raise CompressError(f"{told}; move it, or give the experiment another folder with --out.")


def is_ours(place: Path, mark: str) -> bool:
    """Whether a stage has left the folder `place`: it carries the file `mark`, with a key in it, or nothing yet."""
    if not place.is_dir() or place.is_symlink():
        return False
    key = key_of(place) if mark == MANIFEST else key_of_partial(place)
    return key is not None or all(file.name == f"{mark}.tmp" for file in place.iterdir())


def set_aside(folder: Path, name: str) -> None:
    """Move the stage's folder, if there is one, out of the way; it goes where the same lies aside whole."""
    place = folder / name
    if not place.exists():
        return
    check_free(folder, name)
    key = key_of(place) or "unknown"
    aside = set_aside_folder(folder, name, key)
    if is_complete(aside, key):
        shutil.rmtree(place)
        return
    replace(place, aside)


def set_damaged_aside(folder: Path, name: str, key: str) -> list[str]:
    """Move what is damaged of the stage of this key where it is never taken from; returns what was moved, in a sentence each."""
    told = []
    for place in (folder / name, set_aside_folder(folder, name, key)):
        if file := damage(place, key):
            aside = folder / ".cache" / f"{place.name}.damaged"
            replace(place, aside)
            told.append(f"{place / file} is damaged: it is not what {MANIFEST} says; the stage was moved to {aside} and is done again")
    return told


def replace(place: Path, aside: Path, mark: str = MANIFEST) -> None:
    """Move a stage's folder to where stages are set aside, in the place of the one that lies there. mark: the file it is known by."""
    if aside.exists():
        if not is_ours(aside, mark):
            raise CompressError(f"{aside} is in the way, and without a whole {mark} it is not a stage's; move it.")
        shutil.rmtree(aside)
    aside.parent.mkdir(exist_ok=True)
    place.rename(aside)


def prepare_partial(partial: Path, key: str) -> list[str]:
    """Keep an unfinished folder of the same key to resume in, and put aside what was trained under any other.

    Returns what was found damaged and what was moved, in a sentence each.
    """
    told = []
    if partial.exists() and key_of_partial(partial) != key and (aside := clear_partial(partial)):
        told.append(f"its settings are others than when it was begun; what was trained is kept in {aside}, for when they come back")
    aside = begun_aside(partial, key)
    if not partial.exists() and key_of_partial(aside) == key:
        aside.rename(partial)
        told.append("goes on with what was begun with these settings before")
    if partial.exists() and (damaged := damaged_partial(partial)):
        told += damaged
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / KEY, key)
    return told


def clear_partial(partial: Path) -> Path | None:
    """Move an unfinished stage that was trained to where such are kept, and return that; delete any other."""
    key = key_of_partial(partial)
    if key is None or not any(partial.rglob(STATE)):
        shutil.rmtree(partial, ignore_errors=True)
        return None
    aside = begun_aside(partial, key)
    replace(partial, aside, KEY)
    return aside


def begun_aside(partial: Path, key: str) -> Path:
    """Where an unfinished stage goes whose key no longer fits."""
    return partial.parent / ".cache" / f"{partial.name}-{key[:16]}"


def damaged_partial(partial: Path) -> list[str]:
    """What of an unfinished stage cannot be trusted, in a sentence each; the stage then starts again.

    Checked are the files that say themselves what they must hold: weights, and the state of a training, which knows its metrics too; where
    the stage was finished and had only to be moved, all of them.
    """
    found = [partial / file for file in damaged_files(partial)]
    for path in sorted(partial.rglob("*.safetensors")):
        try:
            read_tensors(path)
        except CompressError:
            found.append(path)
    for path in sorted(partial.rglob(STATE)):
        found += damaged_training(path)
    found += [path for path in sorted(partial.rglob(METRICS)) if metrics_digest(path, LAST_EPOCH) is None]
    return [f"{path} is damaged; the stage starts again from its beginning" for path in dict.fromkeys(found)]


def damaged_training(path: Path) -> list[Path]:
    """The state of a training at `path` where it is damaged, else those of its lists of metrics that are."""
    state = read_state(path)
    if not isinstance(state, dict) or not {"progress", "metrics"} <= state.keys():
        return [path]
    epoch, metrics = state["progress"]["epoch"], state["metrics"]
    return [path.parent / file for file, said in metrics.items() if metrics_digest(path.parent / file, epoch) != said]


def read_state(path: Path) -> Any:
    """The state of a training; None where it cannot be read or its checksums do not hold. Tensors and plain values are all it builds."""
    import torch

    try:
        check_file(path)
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever a damaged archive makes its readers raise
        return None


def metrics_digest(path: Path, epoch: int) -> str | None:
    """sha256 over the metrics of all epochs up to `epoch`; None where they cannot be read."""
    try:
        return fingerprint([entry for entry in read_lines(path, Epoch) if entry["epoch"] <= epoch])
    except CompressError:
        return None
