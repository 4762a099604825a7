"""Commands in processes of their own, within bounds of time and memory; they are forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 20  # for a command, on a machine that does other work too
MEMORY = 3 << 30  # bytes that a command may write to; with all runtimes loaded it begins at 1 GB
PRELOADED = "preloaded"  # the module beside this one


@dataclass(frozen=True)
class Outcome:
    """What a command did. status: as a shell has it, negative for a signal, None where it did not end in time."""

    status: int | None
    out: str
    err: str

    @property
    def fault(self) -> str:
        """What is wrong with how it ended: nothing where it did its work, or refused it in one sentence."""
        told = [line for line in self.err.splitlines() if line.startswith("compress: ")]
        if self.status is None:
            return "hangs"
        if "Traceback" in self.err:
            return self.last_line
        if self.status not in (0, 1, 2) or "Something went wrong" in self.err:
            return f"ends with status {self.status}: {self.err[-300:]}"
        if self.status == 1 and not told and "problem" not in self.out:
            return f"says nothing: {self.err[-300:]}"
        return next((f"no sentence: {line[-300:]}" for line in told if line[-1] not in ".?" or len(line) > 3100), "")

    @property
    def last_line(self) -> str:
        """Where the traceback ends, and in what."""
        lines = self.err.strip().splitlines()
        places = [line.strip() for line in lines if line.strip().startswith("File ") and ("/compress/" in line or "/models/" in line)]
        return f"{lines[-1][:200]} at {places[-1] if places else '?'}"


class Runner:
    """`compress` in a folder; output goes into files beside it."""

    def __init__(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([PRELOADED])
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), before)))
        try:
            forkserver.ensure_running()
        finally:
            os.environ["PYTHONPATH"] = before

    def run(self, words: list[str], folder: Path, seconds: float = SECONDS, memory: int = MEMORY) -> Outcome:
        """`compress WORDS` with `folder` as its working folder."""
        out, err = folder.with_name(f"{folder.name}.out"), folder.with_name(f"{folder.name}.err")
        process = self.context.Process(target=command, args=(words, folder, out, err, memory))
        process.start()
        process.join(seconds)
        status = process.exitcode
        if status is None:
            process.kill()
            process.join()
        return Outcome(status, out.read_text(errors="replace"), err.read_text(errors="replace"))


def command(words: list[str], folder: Path, out: Path, err: Path, memory: int) -> None:
    """What the process does."""
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["COMPRESS_TRACEBACK"] = "1"
    sys.argv = ["compress", *words]
    from compress.cli import main

    main()
