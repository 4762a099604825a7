"""What a person sees while long work runs: a bar on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False, soft_wrap=True)
Item = TypeVar("Item")
SILENCE = 60.0  # seconds that long work may say nothing in a log


@dataclass
class Bar:
    """One piece of work: `advance` counts what is done, `say` shows where it is.

    total: how many images in all. done: how many before this start (a resumed stage). quiet: say nothing at all.
    """

    label: str
    total: int
    done: int = 0
    progress: Progress | None = None
    quiet: bool = False
    started: float = field(default_factory=time.perf_counter)
    seen: int = 0
    note: str = ""
    told: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if self.progress is not None:
            self.task = self.progress.add_task(self.label, total=self.total, completed=self.done, note="", rate="")

    @property
    def rate(self) -> float:
        """Images per second since this start."""
        return self.seen / max(1e-9, time.perf_counter() - self.started)

    def advance(self, images: int, note: str = "") -> None:
        """Count `images` more as done."""
        self.seen += images
        self.done += images
        self.note = note or self.note
        if self.progress is not None:
            self.progress.update(self.task, advance=images, note=self.note, rate=f"{self.rate:.1f} img/s")
        elif time.perf_counter() - self.told > SILENCE and self.done < self.total:
            self.say(f"{self.done} of {self.total}")

    def reach(self, done: int, total: int) -> None:
        """So many of so many, from work that counts for itself."""
        self.total = total
        if self.progress is not None:
            self.progress.update(self.task, total=total)
        self.advance(done - self.done)

    def say(self, text: str) -> None:
        """A lasting line: on a terminal above the bar, elsewhere with rate and time left."""
        if self.quiet:
            return
        self.told = time.perf_counter()
        left = (self.total - self.done) / max(self.rate, 1e-9)
        tail = "" if self.progress is not None else f", {self.rate:.1f} img/s, {left:.0f} s left"
        say(f"{self.label}: {text}{tail}")


def counted(items: Iterable[Item], bar: Bar) -> Iterator[Item]:
    """The items, each counted when the next is asked for."""
    for item in items:
        yield item
        bar.advance(1)


def say(text: str) -> None:
    """A lasting line about long work, if there is anything to tell; in a log, which is no terminal, with the time of day."""
    if text:
        console.print(f"  {text}" if console.is_terminal else f"{time.strftime('%H:%M:%S')} {text}", markup=False)


def quiet() -> bool:
    """Whether nothing is told about work that goes on."""
    return console.quiet


def be_quiet() -> None:
    """Show no bar and no line about work that goes on, until the process ends. Warnings and results stay."""
    console.quiet = True


@contextmanager
def bar(label: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Bar]:
    """Show work on `total` images until the block ends."""
    if quiet or console.quiet or not sys.stderr.isatty():
        yield Bar(label, total, done, quiet=quiet)
        return
    columns = (
        TextColumn("  {task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(label, total, done, progress)
