"""What the documentation shows: its pages, the commands in them and in `--help`, and the blocks that are to be run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from compress.cli import app

ROOT = Path(__file__).parents[2]
RUNS = "<!-- runs -->"  # the line before a block that is run as it stands, in the order of its page
FENCE = re.compile(r"^```(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: where it begins, as `page:line`, its language and text, and whether it is marked to be run."""

    place: str
    language: str
    text: str
    runs: bool


def pages() -> list[Path]:
    """Every page that people read: all Markdown files of the repository but the tables and notes of published results."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    found += [path for folder in ("docs", "examples", "recipes") for path in sorted((ROOT / folder).rglob("*.md"))]
    return [*found, *sorted((ROOT / "experiments" / "published").rglob("*.md"))]


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    begin: int | None = None
    for number, line in enumerate(lines):
        fence = FENCE.match(line.strip())
        if fence is None:
            continue
        if begin is None:
            begin, language = number, fence[1]
        else:
            marked = begin > 0 and lines[begin - 1].strip() == RUNS
            yield Block(f"{name_of(page)}:{begin + 1}", language, "\n".join(lines[begin + 1 : number]), marked)
            begin = None


def commands(text: str) -> Iterator[list[str]]:
    """The words of every call of `compress` in lines of a shell, those through torchrun or `python -m` too."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        call: list[str] = []
        for word in [*lexer, ";"]:
            if word[0] not in "|&;<>":
                call.append(word)
                continue
            while call and "=" in call[0]:  # a variable of the environment
                del call[0]
            if call[:1] == ["compress"]:
                yield call[1:]
            elif "-m" in call and call[call.index("-m") + 1] == "compress":
                yield call[call.index("-m") + 2 :]
            call = []


def of_pages() -> Iterator[tuple[str, list[str]]]:
    """Place and words of every command in a shell's block of a page."""
    for page in pages():
        for block in blocks(page):
            if block.language == "bash":
                yield from ((block.place, words) for words in commands(block.text))


def of_prose() -> Iterator[tuple[str, list[str]]]:
    """The same of those that a page's text names in backquotes; arguments may be left out there."""
    for page in pages():
        for found in re.findall(r"`(compress [a-z][^`]*)`", page.read_text(encoding="utf-8")):
            yield from ((name_of(page), words) for words in commands(found))


def of_help() -> Iterator[tuple[str, list[str]]]:
    """Place and words of every example in `--help`."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, list[str]]]:
        for line in (command.help or "").splitlines():
            if line.strip().startswith(("compress ", "torchrun ")):
                yield from ((f"{name} --help", words) for words in commands(line.strip()))
        for child, found in getattr(command, "commands", {}).items():
            yield from walk(found, f"{name} {child}")

    yield from walk(typer.main.get_command(app), "compress")


def parsed(words: list[str], *, whole: bool = True) -> int:
    """Parse a command without doing anything; 0, or the status that it ends with where it cannot be given, or asks for help.

    whole: whether all arguments, and values of options, must be there.
    """
    command: Any = typer.main.get_command(app)
    context = None
    try:
        while True:
            context = command.make_context(command.name, list(words), parent=context)
            if not hasattr(command, "commands"):
                return 0
            # What is left for the command behind the group's own options.
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    except Exception as left:
        # Newer versions of typer carry their own copy of click: its exceptions are known by what they have.
        if not hasattr(left, "exit_code"):
            raise
        return 0 if type(left).__name__ in ("MissingParameter", "BadOptionUsage") and not whole else left.exit_code
