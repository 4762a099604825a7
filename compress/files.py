"""Files that appear whole or not at all, and readers that say clearly what is wrong with one."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import CompressError

if TYPE_CHECKING:
    from torch import Tensor

DIGEST = "sha256"  # key of a safetensors file's metadata
LARGEST = 1 << 30  # bytes of a file of a user's that is read as a whole


def write_text(path: Path, text: str) -> None:
    """A text file under a temporary name, renamed when whole."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_bytes(path: Path, what: str = "file", largest: int = LARGEST) -> bytes:
    """The content of a regular file of at most `largest` bytes. what: the word for it in messages.

    Raises CompressError for one that is missing or too large, and for folders, pipes and devices, which may have no end.
    """
    article = "an" if what[0] in "aeiou" else "a"
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise CompressError(f"{path} is a folder, not {article} {what}.")
        if not stat.S_ISREG(found.st_mode):
            raise CompressError(f"{path} is a pipe or a device, not {article} {what}; copy its content into a file.")
        if found.st_size > largest:
            raise CompressError(f"{path} is too large for {article} {what}: {found.st_size} bytes, and at most {largest} are read.")
        return path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise CompressError(f"{path} is a link to {path.readlink()}, and nothing is there.") from None
        raise CompressError(f"There is no {what} at {path}.") from None
    except OSError as error:
        raise CompressError(f"{path} cannot be read as {article} {what} ({error.strerror}).") from None


def is_folder(path: Path) -> bool:
    """Whether there is a folder; at a name that no file can have there is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def write_json(path: Path, value: Any) -> None:
    """A value as indented JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file of the workbench's own; None where it is missing or cut off, which its writer never leaves behind."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file; none where there is no file.

    Raises CompressError, naming the line, where it is damaged.
    """
    if not path.exists():
        return []
    values = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            values.append(json.loads(line))
        except ValueError:
            raise CompressError(f"{path}, line {number} is damaged: it is no JSON; restore it, or delete it and run again.") from None
    return values


def fingerprint(value: Any) -> str:
    """sha256, in hexadecimal, of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest(path: Path) -> str:
    """sha256, in hexadecimal, of a file. It is read once for each content, as far as size, time of change and inode tell."""
    found = path.stat()
    return digest_of(str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=10_000)
def digest_of(path: str, _size: int, _changed: int, _inode: int) -> str:
    """:func:`digest` of the file that is at `path` now."""
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256, in hexadecimal, over the names, types, shapes and values of tensors."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """safetensors under a temporary name, renamed when whole. The file says the digest of what is in it.

    Raises CompressError where the disk does not take it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file(tensors, temporary, metadata={DIGEST: tensors_digest(tensors)})
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise CompressError(f"{path} cannot be written: {error}; free some disk space and run again.") from None
    temporary.replace(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises CompressError where it is missing or damaged: cut off, or not what its digest says, if it has one.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise CompressError(f"{path.parent} is not a whole checkpoint: it has no {path.name}.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors, said = {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(DIGEST)  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CompressError(f"{path} is damaged ({error}); restore it, or run its stage again.") from None
    if said is not None and said != tensors_digest(tensors):
        raise CompressError(f"{path} is damaged (its digest is not that of its values); restore it, or run its stage again.")
    return tensors
