"""A recipe so small that a whole chain takes seconds, and one run of it that many tests look at."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock

HERE = Path(__file__).parent
TINY = HERE / "end_to_end" / "tiny.yml"


# A fault of the workbench fails a test with its traceback, in commands that a test starts too.
os.environ["COMPRESS_TRACEBACK"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is loaded, and for what tests start: processes that each take all cores keep each other waiting.
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole chains are slow, and what is not slow is fast. The files that take longest begin first, so that no process is left with one."""
    for item in items:
        if "end_to_end" in item.path.parts:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


@pytest.fixture(scope="session")
def common(tmp_path_factory) -> Path:
    """A folder of this session that all its processes see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _own_cache(common):
    """Synthetic images are kept for the session, not in the home of whoever runs the tests."""
    os.environ["COMPRESS_CACHE"] = str(common / "cache")


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
def tiny_run(common) -> Path:
    """The experiment's folder of one whole, uninterrupted run of the tiny recipe, which the first process to ask for it makes."""
    import compress

    folder, done = common / "experiments" / "tiny", common / "tiny.done"
    with FileLock(common / "tiny.lock"):
        if not done.exists():
            compress.run(TINY, out=folder, quiet=True)
            done.touch()
    return folder
