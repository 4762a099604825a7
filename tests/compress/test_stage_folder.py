"""When a stage counts as complete."""

from __future__ import annotations

import pytest

from compress.files import read_json, write_json
from compress.stage_folder import MANIFEST, find_cached, set_aside, state_of

KEY, OTHER = "a" * 64, "b" * 64


def finished(folder, name="stage", key=KEY, text="weights"):
    place = folder / name
    (place / "last").mkdir(parents=True)
    for file in ("model.safetensors", "last/model.safetensors"):
        (place / file).write_text(text)
    write_json(place / MANIFEST, {"key": key, "files": ["last/model.safetensors", "model.safetensors"]})
    return place


def test_a_whole_folder_is_complete_under_its_key_alone(tmp_path):
    finished(tmp_path)
    assert state_of(tmp_path, "stage", KEY) == "in the cache"
    assert state_of(tmp_path, "stage", OTHER) == "to do"
    assert find_cached(tmp_path, "stage", KEY)
    assert not find_cached(tmp_path, "stage", OTHER)


@pytest.mark.parametrize("file", ["model.safetensors", "last/model.safetensors"])
def test_a_folder_without_its_weights_is_not(tmp_path, file):
    """Such as a clone of a repository in which the manifest is kept and the weights are not."""
    (finished(tmp_path) / file).unlink()
    assert state_of(tmp_path, "stage", KEY) == "to do"
    assert not find_cached(tmp_path, "stage", KEY)


def test_more_files_and_changed_ones_do_not_matter(tmp_path):
    place = finished(tmp_path)
    (place / "rows.json").write_text("{}")
    (place / "model.safetensors").write_text("tuned since")
    assert find_cached(tmp_path, "stage", KEY)


def test_what_is_set_aside_comes_back(tmp_path):
    finished(tmp_path)
    set_aside(tmp_path, "stage")
    finished(tmp_path, key=OTHER)
    assert find_cached(tmp_path, "stage", KEY)
    assert read_json(tmp_path / "stage" / MANIFEST)["key"] == KEY
    assert find_cached(tmp_path, "stage", OTHER)


def test_a_folder_without_weights_never_takes_the_place_of_a_whole_one(tmp_path):
    finished(tmp_path)
    set_aside(tmp_path, "stage")
    (finished(tmp_path, text="") / "model.safetensors").unlink()
    assert find_cached(tmp_path, "stage", KEY)
    assert (tmp_path / "stage" / "model.safetensors").read_text() == "weights"
