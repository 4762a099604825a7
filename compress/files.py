"""Files that appear whole or not at all, and readers that say clearly what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import CompressError

if TYPE_CHECKING:
    from torch import Tensor


def write_text(path: Path, text: str) -> None:
    """A text file under a temporary name, renamed when whole."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


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
    """The values of a JSON-lines file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """safetensors under a temporary name, renamed when whole.

    Raises CompressError where the disk does not take it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file(tensors, temporary)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise CompressError(f"{path} cannot be written: {error}; free some disk space and run again.") from None
    temporary.replace(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises CompressError where it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise CompressError(f"{path.parent} is not a whole checkpoint: it has no {path.name}.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CompressError(f"{path} is damaged ({error}); restore it, or run its stage again.") from None
