"""When a stage counts as complete, and what is never touched."""

from __future__ import annotations

import os

import pytest
import torch

from compress.errors import CompressError
from compress.files import digest, read_json, write_json
from compress.stage_folder import (
    MANIFEST,
    check_free,
    check_whole,
    digests,
    find_cached,
    partial_folder,
    prepare_partial,
    set_aside,
    set_damaged_aside,
    state_of,
)

KEY, OTHER = "a" * 64, "b" * 64


def finished(folder, name="stage", key=KEY, text="weights"):
    place = folder / name
    (place / "last").mkdir(parents=True)
    for file in ("model.safetensors", "last/model.safetensors"):
        (place / file).write_text(text)
    write_json(place / MANIFEST, {"key": key, "files": digests(place)})
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
    assert set_damaged_aside(tmp_path, "stage", KEY) == []


@pytest.mark.parametrize("file", ["model.safetensors", "last/model.safetensors"])
def test_a_changed_file_is_damage_and_one_more_is_none(tmp_path, file):
    place = finished(tmp_path)
    (place / "rows.json").write_text("{}")
    (place / "tuned.json").write_text("{}")
    assert find_cached(tmp_path, "stage", KEY)
    (place / file).write_text("Weights")
    assert state_of(tmp_path, "stage", KEY) == "damaged"
    assert not find_cached(tmp_path, "stage", KEY)
    (told,) = set_damaged_aside(tmp_path, "stage", KEY)
    assert str(place / file) in told
    assert not place.exists()
    assert (tmp_path / ".cache" / "stage.damaged" / file).read_text() == "Weights"
    assert state_of(tmp_path, "stage", KEY) == "to do"


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


def test_a_folder_that_no_stage_has_left_is_neither_moved_nor_deleted(tmp_path):
    (tmp_path / "stage").mkdir()
    check_free(tmp_path, "stage")
    (tmp_path / "stage" / "mine.txt").write_text("mine")
    with pytest.raises(CompressError, match="in the way"):
        check_free(tmp_path, "stage")
    with pytest.raises(CompressError, match="in the way"):
        set_aside(tmp_path, "stage")
    assert (tmp_path / "stage" / "mine.txt").read_text() == "mine"


def test_files_are_held_against_the_manifest_of_the_stage_that_they_lie_in(tmp_path):
    place = finished(tmp_path)
    check_whole(place, ("model.safetensors",))
    check_whole(place / "last", ("model.safetensors", "model.yml"))
    check_whole(tmp_path, ("model.safetensors",))
    (place / "last" / "model.safetensors").write_text("other")
    check_whole(place, ("model.safetensors",))
    for damaged in (place / "last", place / "last" / "model.safetensors"):
        with pytest.raises(CompressError, match=r"last/model\.safetensors is damaged"):
            check_whole(damaged, ("model.safetensors",) if damaged.is_dir() else ())


def test_a_file_is_read_once_for_each_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first, opened = digest(path), []
    real = type(path).open
    with monkeypatch.context() as patched:
        patched.setattr(type(path), "open", lambda self, *rest: (opened.append(self), real(self, *rest))[1])
        assert digest(path) == first
    assert opened == []
    path.write_bytes(b"two")
    assert digest(path) != first
    (tmp_path / "new").write_bytes(b"one")
    os.utime(tmp_path / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "new").rename(path)
    assert digest(path) == first, "another file of the same size and time"


def begun(folder, key, *, trained=True):
    """A stage of this key whose training was cut off."""
    partial = partial_folder(folder, "stage")
    told = prepare_partial(partial, key)
    if trained:
        torch.save({"progress": {"epoch": 3}, "metrics": {}, "key": key}, partial / "training.pt")
    return told


def test_what_was_trained_under_other_settings_is_kept_until_they_come_back(tmp_path):
    assert begun(tmp_path, KEY) == []
    (told,) = begun(tmp_path, OTHER)
    assert "its settings are others than when it was begun; what was trained is kept in" in told
    assert [state_of(tmp_path, "stage", key) for key in (KEY, OTHER, "c" * 64)] == ["begun", "begun", "to do"]
    moved, back = prepare_partial(partial_folder(tmp_path, "stage"), KEY)
    assert "kept in" in moved
    assert back == "goes on with what was begun with these settings before"
    assert torch.load(partial_folder(tmp_path, "stage") / "training.pt")["key"] == KEY
    assert state_of(tmp_path, "stage", OTHER) == "begun"


def test_what_was_begun_and_not_trained_is_not_kept(tmp_path):
    begun(tmp_path, KEY, trained=False)
    assert begun(tmp_path, OTHER) == []
    assert state_of(tmp_path, "stage", KEY) == "to do"
    assert not (tmp_path / ".cache").exists()
