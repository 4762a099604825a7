"""Memory stays flat however many images of however many sizes are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "published" / "ocr" / "memory.py"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images_read():
    # Shown small, so that it takes seconds: what would creep is kept for each size of images.
    command = [sys.executable, str(SCRIPT), "--images", "160", "--short-side", "96"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "second half" in ran.stdout
