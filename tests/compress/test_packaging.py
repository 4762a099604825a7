"""What is installed: every folder of code has its place in the distribution."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_folder_of_code_is_installed():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    told = config["options"]["packages"].split()
    there = ["compress" + "".join(f".{part}" for part in path.parent.relative_to(ROOT / "compress").parts) for path in folders("compress")]
    there += [".".join(("compress", *path.parent.relative_to(ROOT).parts)) for path in folders("models")]
    assert sorted(told) == sorted(there)


def folders(top: str) -> list[Path]:
    """The `__init__.py` of every package below a folder of the repository."""
    return sorted((ROOT / top).rglob("__init__.py"))
