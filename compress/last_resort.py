"""One sentence for an exception that nothing below has put into words, so that no traceback ever reaches the terminal."""

from __future__ import annotations

import errno
import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path

NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)
NO_SUCH_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
# What torch, OpenVINO and ONNX Runtime say of a failed allocation; each has exceptions of its own.
OUT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "out of memory",
)
# Where this is set, exceptions are raised as they are: for tests, and for whoever works on the code.
RAISE = "COMPRESS_TRACEBACK"


def sentence_for(error: Exception) -> str:
    """What a person is told of `error`. One that nobody has foreseen is saved, with its traceback, and the sentence says where.

    Raises `error` itself where the environment variable COMPRESS_TRACEBACK is set.
    """
    if isinstance(error, OSError) and error.errno in NOT_WRITTEN:
        return f"{error.filename or 'A file'} cannot be written ({os.strerror(error.errno)}); mend that and run again: it resumes."
    if isinstance(error, OSError) and error.errno in NO_SUCH_PLACE and error.filename:
        return f"{error.filename} cannot be used ({os.strerror(error.errno)}); give another path."
    if killed_worker(error):
        return "A process that prepares samples was killed, often for lack of memory; take fewer workers and run again: it resumes."
    if isinstance(error, RuntimeError) and "Connection closed by peer" in str(error):
        return "Another process of this run has ended; what it says is the cause: mend that and run again: it resumes."
    if out_of_memory(error):
        return "There is not enough memory for this; take a smaller batch, crop or image, or fewer workers, and run again."
    if os.environ.get(RAISE):
        raise error
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    saved = save_traceback(error)
    return f"Something went wrong that should not have ({what}); the details are in {saved}, which helps whoever mends it."


def killed_worker(error: BaseException) -> bool:
    """Whether torch says that one of the processes that prepare samples has gone. It says so wherever the signal finds it."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python or in a runtime."""
    return isinstance(error, MemoryError) or any(told in str(error).lower() for told in OUT_OF_MEMORY)


def save_traceback(error: Exception) -> Path:
    """The file into which the traceback was written, in the system's folder for temporary files."""
    head = f"{' '.join(sys.argv)}\nPython {platform.python_version()}, {platform.platform()}\n\n"
    with tempfile.NamedTemporaryFile(
        "w", prefix="compress-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(head + "".join(traceback.format_exception(error)))
    return Path(file.name)
