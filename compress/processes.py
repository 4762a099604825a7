"""Processes of one run: those of a `torchrun`, of which one writes, and those that must keep out of each other's folder."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from compress.errors import CompressError, suggestion

Decision = TypeVar("Decision")
DEVICES = ("auto", "cpu", "cuda")
LOCK = ".lock"  # in the folder of every experiment
PATIENCE = timedelta(days=30)  # for the one process that measures or quantizes while the others wait


def main_process() -> bool:
    """Whether this process writes; the others that were started with it only train."""
    return int(os.environ.get("RANK", "0")) == 0


def several_processes() -> bool:
    """Whether `torchrun` or `accelerate launch` has started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def process_count() -> int:
    """How many processes are in the group of :func:`together`; 1 outside of it."""
    if not several_processes():
        return 1
    from accelerate import PartialState

    return PartialState().num_processes


@contextlib.contextmanager
def together(wanted: str) -> Iterator[None]:
    """Until the block ends, this process and those that were started with it are a group on the device `wanted`, one of `DEVICES`.

    accelerate must be told when the processor is meant: left to itself it finds no GPU, and takes every process for the only one.
    """
    if not several_processes():
        yield
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=device_name(wanted) == "cpu", timeout=PATIENCE)
    try:
        yield
    finally:
        PartialState._reset_state()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def wait_for_everyone() -> None:
    """A barrier where several processes run."""
    if several_processes():
        from accelerate import PartialState

        PartialState().wait_for_everyone()


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Refuse a second run in the same folder while one is at work; the end of a process, by whatever cause, ends its lock too."""
    if not main_process():
        yield
        return
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise CompressError(f"Another run is at work in {folder}; wait for it, or give this one another folder with --out.") from None
    try:
        yield
    finally:
        lock.release()


def end_with_parent() -> None:
    """End this process, one of several that another has started, as soon as that one has gone: killed, it can tell nobody."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches both; only the parent has something to say of it

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def agreed(decide: Callable[[], Decision]) -> Decision:
    """What the main process decides, in every process."""
    if not several_processes():
        return decide()
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([decide() if main_process() else None])[0]


def check_device(wanted: str) -> None:
    """Refuse what is no name of a device."""
    if wanted not in DEVICES:
        raise CompressError(f"--device {wanted} is not known{suggestion(wanted, DEVICES)}")


def device_name(wanted: str) -> str:
    """torch's name of a device of `DEVICES`: `cpu`, or the GPU of this process, `cuda:0`, and so on where several processes train."""
    import torch

    check_device(wanted)
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CompressError("--device cuda: torch sees no GPU here; use --device cpu.")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
