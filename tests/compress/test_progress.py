"""What is told while long work runs, and what is not."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from compress import progress
from compress.cli import app


@pytest.fixture
def console(monkeypatch):
    """The console of this test alone, so that none stays quiet after it."""
    from rich.console import Console

    found = Console(stderr=True, highlight=False, soft_wrap=True)
    monkeypatch.setattr(progress, "console", found)
    return found


@pytest.mark.usefixtures("console")
def test_a_line_in_a_log_has_the_time_of_day(capsys):
    progress.say("baseline: train")
    assert re.fullmatch(r"\d\d:\d\d:\d\d baseline: train\n", capsys.readouterr().err)


def test_a_line_on_a_terminal_has_none(console, capsys, monkeypatch):
    monkeypatch.setattr(type(console), "is_terminal", True)
    progress.say("baseline: train")
    assert capsys.readouterr().err == "  baseline: train\n"


@pytest.mark.usefixtures("console")
def test_quiet_tells_nothing_of_work_that_goes_on(capsys):
    result = CliRunner().invoke(app, ["--quiet", "recipes"])
    assert result.exit_code == 0
    assert "db_mv3_prune0.6_distill" in result.output
    progress.say("baseline: train")
    with progress.bar("evaluating", 2) as bar:
        bar.advance(1)
        bar.say("epoch 1")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("console")
def test_long_work_is_not_silent_in_a_log(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    with progress.bar("importance", 3) as bar:
        assert list(progress.counted("abc", bar)) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [re.search(r"importance: \d of 3, [\d.]+ img/s, \d+ s left$", line) is not None for line in lines] == [True, True]
    monkeypatch.setattr(progress, "SILENCE", 60.0)
    with progress.bar("importance", 3) as bar:
        bar.advance(1)
    assert capsys.readouterr().err == "", "short work is"


def test_the_version_is_that_of_the_installed_package():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"compress {version('compress-ocr')}\n")
