"""TorchScript on the CPU: a graph with its weights, read and run by torch's C++."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

import numpy as np

from compress.errors import CompressError
from compress.runtimes.pytorch import runner
from compress.runtimes.runtime import Runtime, as_floats, available_threads, read_description, telling

MOST_CODE = 1 << 24  # bytes; an exported network has some hundred kilobytes
# What an exported network never calls and a hostile file would: files (torch.save writes any path), operators outside of
# ATen (collectives among them), and code that runs while the file is being loaded.
FORBIDDEN = re.compile(r"\b(torch|aten)\s*\.\s*(save|load|from_file)\b|\bops\s*\.(?!\s*(aten|prim)\b)\s*\w+|__setstate__")


def open_torchscript(path: Path, threads: int | None, precision: str | None) -> Runtime:
    """See :func:`compress.runtimes.open_file`.

    `torch.jit.load` never starts Python and loads no Python pickle: the archive's `data.pkl` goes through a reader in C++ that builds
    tensors, numbers, strings and TorchScript classes alone. But TorchScript is a program: it can loop for ever, fill the memory,
    and write files (`torch.save(x, path)` in one does). So its code, which is text in the archive, is read first, and a file is
    refused that calls anything which touches files, operators outside of ATen, or code at loading.
    """
    import torch

    if precision not in (None, "f32"):
        raise CompressError(f"TorchScript has no precision '{precision}'; leave it out, or use OpenVINO.")
    refuse_forbidden(path)
    extra = {"compress": ""}
    with telling(f"{path} cannot be read as TorchScript; export it again"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, as all of TorchScript
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra).eval()
    described = extra["compress"]
    description = read_description(described.decode(errors="replace") if isinstance(described, bytes) else described, path)
    threads = available_threads(threads)
    call = runner(module, threads)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with telling(f"{path} does not run on images of {' x '.join(map(str, images.shape))}; export the model again"):
            return as_floats(call(images))

    return Runtime("torchscript", description["precision"], threads, description, run)


def refuse_forbidden(path: Path) -> None:
    """Read the code in the archive, without executing it, and refuse what no exported network calls."""
    with telling(f"{path} cannot be read as TorchScript; export it again"), zipfile.ZipFile(path) as archive:
        code = [entry for entry in archive.infolist() if entry.filename.endswith(".py")]
        if sum(entry.file_size for entry in code) > MOST_CODE:
            raise CompressError(f"{path} is not opened: it holds more code than any exported network.")
        sources = [archive.read(entry).decode() for entry in code]
    for source in sources:
        if found := FORBIDDEN.search(source):
            raise CompressError(f"{path} is not opened: its code calls '{found.group()}', which no exported network does.")
