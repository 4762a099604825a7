"""What is installed: every folder of code and of recipes has its place in the distribution, and every package its extra."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from compress.extras import TRAIN

ROOT = Path(__file__).parents[2]
# Folder of the repository -> the package that it is installed as.
TOPS = {"compress": "compress", "models": "compress.models", "recipes": "compress.recipes"}


@pytest.fixture(scope="module")
def config() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_every_folder_of_code_is_installed(config):
    there = []
    for top, package in TOPS.items():
        folders = {path.parent for path in (ROOT / top).rglob("*.py")}
        assert all((folder / "__init__.py").exists() for folder in folders)
        there += [".".join((package, *folder.relative_to(ROOT / top).parts)) for folder in folders]
    assert sorted(config["options"]["packages"].split()) == sorted(there)
    mapped = dict(line.split(" = ") for line in config["options"]["package_dir"].strip().splitlines())
    assert mapped == {package: top for top, package in TOPS.items() if top != package}


def test_every_file_beside_the_code_is_installed(config):
    """Styles, the packaged model, recipes, the marker of types."""
    for package, patterns in config["options.package_data"].items():
        top = {package: top for top, package in TOPS.items()}.get(package)
        folder = ROOT / (top or package.replace(".", "/"))
        assert all(list(folder.glob(pattern)) for pattern in re.split(r",\s*", patterns)), package
    matched = {
        path
        for package, patterns in config["options.package_data"].items()
        for pattern in re.split(r",\s*", patterns)
        for path in (ROOT / {"compress.recipes": "recipes"}.get(package, package.replace(".", "/"))).glob(pattern)
    }
    others = {path for top in TOPS for path in (ROOT / top).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".md")}
    assert others == matched


def test_what_is_said_to_be_of_the_extra_is_what_it_installs(config):
    extra = re.findall(r"^([\w-]+)", config["options.extras_require"]["train"], re.MULTILINE)
    assert {name.replace("-", "_") for name in extra} == TRAIN
    always = re.findall(r"^([\w-]+)", config["options"]["install_requires"], re.MULTILINE)
    assert not TRAIN & {name.replace("-", "_") for name in always}
    assert "compress-ocr[train]" in config["options.extras_require"]["test"].split()
