"""What a bare installation lacks: packages that the extra `train` installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from compress.errors import CompressError

# The names that they are imported by.
TRAIN = frozenset({"accelerate", "fsspec", "matplotlib", "nncf", "safetensors", "scipy", "torch", "torch_pruning"})


@contextmanager
def told(what: str) -> Iterator[None]:
    """Until the block ends, a missing package of the extra is a CompressError, which says that `what` needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN:
            raise
        raise CompressError(f"{what} needs compress-ocr[train]; install it with `pip install 'compress-ocr[train]'`.") from None
