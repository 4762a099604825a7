"""One run at a time in a folder, and what is left of the lock of one that was killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from compress.errors import CompressError
from compress.processes import LOCK, only_run_in

HOLDER = """
import sys, time
from pathlib import Path
from compress.processes import only_run_in
with only_run_in(Path(sys.argv[1])):
    print("at work", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_and_the_next_one_is_not(tmp_path):
    with only_run_in(tmp_path), pytest.raises(CompressError, match=f"at work in {tmp_path}"), only_run_in(tmp_path):
        pass
    with only_run_in(tmp_path):
        pass


def test_a_lock_ends_with_what_happens_inside(tmp_path):
    with pytest.raises(ValueError, match="broken"), only_run_in(tmp_path):
        raise ValueError("broken")
    with only_run_in(tmp_path):
        pass


def test_a_killed_run_leaves_no_lock(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "at work\n"
        with pytest.raises(CompressError, match="at work"), only_run_in(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert (tmp_path / LOCK).exists()
    with only_run_in(tmp_path):
        pass


def test_other_processes_of_a_launch_share_the_folder_of_the_first(tmp_path, monkeypatch):
    with only_run_in(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with only_run_in(tmp_path):
            pass
