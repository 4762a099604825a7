"""Files that appear whole or not at all, and the readers that say clearly what is wrong with one.

Whatever the workbench reads from disk goes through here: nobody else parses JSON, YAML or safetensors. A reader takes the type that its
caller relies on, and names the file, the place in it and what is wrong there. YAML is read in `compress.yaml_text`.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from compress.errors import CompressError

if TYPE_CHECKING:
    from torch import Tensor

DIGEST = "sha256"  # key of a safetensors file's metadata
MOST_TEXT = 1 << 28  # bytes of a text file; the largest that is ever written, a ledger or a label file, has some megabytes


def write_text(path: Path, text: str) -> None:
    """A text file under a temporary name, renamed when whole."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """A file under a temporary name, renamed when whole. Where it cannot be written nothing of it is left."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


def read_bytes(path: Path, what: str = "file", largest: int = MOST_TEXT) -> bytes:
    """The content of a regular file of at most `largest` bytes. what: the word for it in messages. Raises CompressError as `check_file`."""
    check_file(path, what, largest)
    try:
        return path.read_bytes()
    except OSError as error:
        raise CompressError(f"{path} cannot be read as {with_article(what)} ({error.strerror or error}).") from None


def check_file(path: Path, what: str = "file", largest: int | None = None) -> None:
    """Refuse what cannot be read to its end.

    Raises CompressError for a file that is missing, or has more than `largest` bytes, and for folders, pipes and devices, at which a
    library that opens them would wait for ever.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise CompressError(f"{path} is a link to {path.readlink()}, and nothing is there.") from None
        raise CompressError(f"There is no {what} at {path}.") from None
    except (OSError, ValueError) as error:
        raise CompressError(f"{path} cannot be read as {with_article(what)} ({getattr(error, 'strerror', None) or error}).") from None
    if stat.S_ISDIR(found.st_mode):
        raise CompressError(f"{path} is a folder, not {with_article(what)}.")
    if not stat.S_ISREG(found.st_mode):
        raise CompressError(f"{path} is a pipe or a device, not {with_article(what)}; copy its content into a file.")
    if largest is not None and found.st_size > largest:
        raise CompressError(f"{path} is too large for {with_article(what)}: {found.st_size} bytes, and at most {largest} are read.")


def with_article(what: str) -> str:
    """`a file`, `an image`."""
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def is_folder(path: Path) -> bool:
    """Whether there is a folder; at a name that no file can have there is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def write_json(path: Path, value: Any) -> None:
    """A value as indented JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, without its byte-order mark. Raises CompressError as :func:`read_bytes` does, and for other text."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CompressError(f"{path} is damaged: it is no UTF-8 text ({error.reason} at byte {error.start}).") from None


@cache
def checker(kind: Any) -> TypeAdapter[Any]:
    """What holds JSON against a type. Numbers are numbers and text is text: nothing is converted."""
    return TypeAdapter(kind)


def read_json(path: Path, kind: Any = Any) -> Any:
    """What a JSON file holds, as `kind`: a type that pydantic knows, such as those in `compress.records`.

    Raises CompressError, naming the place in the file, where it is missing or damaged or holds something else.
    """
    return parse_json(read_bytes(path), kind, str(path))


def parse_json(text: str | bytes, kind: Any, origin: str) -> Any:
    """:func:`read_json` of a text. origin: what messages call it, a file or a line of one."""
    try:
        return checker(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise CompressError(f"{origin} is damaged: {first_fault(error)}; restore it, or delete it and make it again.") from None


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, and where: `points.3.loss: input should be a valid number`."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place, told = ".".join(str(part) for part in first["loc"])[:100], first["msg"].splitlines()[0].removeprefix("Value error, ")
    return f"{place}: {told[0].lower()}{told[1:]}" if place else told[0].lower() + told[1:]


def read_lines(path: Path, kind: Any = dict[str, Any]) -> list[Any]:
    """The values of a JSON-lines file; none where there is no file.

    Raises CompressError, naming the line and the place in it, where it is damaged or holds something else.
    """
    if not path.exists():
        return []
    lines = enumerate(read_bytes(path).split(b"\n"), 1)
    return [parse_json(line, kind, f"{path}, line {number}") for number, line in lines if line.strip()]


def remembered(path: Path, kind: Any) -> Any:
    """What an earlier call left in a JSON file of the workbench's own; None where that is missing or damaged, and is made again."""
    try:
        return read_json(path, kind)
    except CompressError:
        return None


def is_damaged(path: Path, kind: Any) -> bool:
    """Whether a JSON file is there and cannot be recalled."""
    return path.exists() and remembered(path, kind) is None


def fingerprint(value: Any) -> str:
    """sha256, in hexadecimal, of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest(path: Path) -> str:
    """sha256, in hexadecimal, of a file. It is read once for each content, as far as size, times of change and inode tell."""
    found = path.stat()
    return digest_of(str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@lru_cache(maxsize=10_000)
def digest_of(path: str, _size: int, _changed: int, _status_changed: int, _inode: int) -> str:
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
    check_file(path, "file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            tensors, said = {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(DIGEST)  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CompressError(f"{path} is damaged ({error}); restore it, or run its stage again.") from None
    if said is not None and said != tensors_digest(tensors):
        raise CompressError(f"{path} is damaged (its digest is not that of its values); restore it, or run its stage again.")
    return tensors


def digest_said(path: Path) -> str | None:
    """The digest of its tensors that a safetensors file says, unread; None where there is no file of :func:`write_tensors`."""
    from safetensors import SafetensorError, safe_open

    try:
        check_file(path)
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get(DIGEST)
    except (CompressError, SafetensorError, OSError):
        return None
