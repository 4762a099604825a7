"""A recipe so small that a whole chain takes seconds, and one run of it that many tests look at."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TINY = HERE / "end_to_end" / "tiny.yml"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Drawn pictures are kept for the session, not in the home of whoever runs the tests."""
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _no_listener_left():
    """torch's data loader leaves a handler for ended children behind; what the next test starts is none of its business."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data for development, where there are some."""
    folder = Path(os.environ.get("COMPRESS_SHARED", HERE.parent.parent / "shared"))
    if not (folder / "data" / "icdar2015").exists():
        pytest.skip(f"no real data at {folder}; set COMPRESS_SHARED to a folder with data/icdar2015")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The experiment's folder of one whole, uninterrupted run of the tiny recipe."""
    import compress

    folder = tmp_path_factory.mktemp("experiments") / "tiny"
    compress.run(TINY, out=folder, quiet=True)
    return folder
