"""The store of finished stages: taken instead of done, one works while the other waits, and nothing half is ever seen."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
from pathlib import Path

import pytest

import compress
from compress import experiment, store
from compress.errors import CompressError
from compress.files import read_json, read_lines
from compress.stage_folder import MANIFEST, begun_aside, digests, is_complete

RECIPE = """
model: {name: db, backbone: {name: mobilenet_v3_small, width: 0.5}, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 8, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}
stages:
  - train: {name: baseline, epochs: 1, batch: 4, crop: 64}
  - prune: {name: pruned, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64}
"""
KEY = "a" * 64


def finished(folder: Path, key: str = KEY) -> Path:
    """A folder such as a finished stage leaves, with rows."""
    (folder / "last").mkdir(parents=True)
    for name in ("weights", "last/weights"):
        (folder / name).write_text(name)
    manifest = {"stage": folder.name, "kind": "train", "parent": None, "key": key, "files": digests(folder)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / "rows.json").write_text("[]")
    return folder


def test_what_was_given_is_taken_whole_under_its_key_alone(tmp_path):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    done = finished(tmp_path / "a" / "baseline")
    (done / "elapsed.json").write_text("1")
    store.give(place, done, KEY, "rows.json")
    assert store.take(place, tmp_path / "b", "baseline", KEY)
    assert digests(tmp_path / "b" / "baseline") == digests(done, leave_out=("elapsed.json",))
    assert not store.take(place, tmp_path / "c", "baseline", "b" * 64)
    assert not (tmp_path / "c").exists()
    assert [path.name for path in (tmp_path / "store").iterdir()] == [place.name]


def test_a_place_is_of_a_name_a_parent_and_a_key(tmp_path):
    places = {
        store.place_in(tmp_path, *words)
        for words in (("a", None, "1"), ("b", None, "1"), ("a", "p", "1"), ("a", None, "2"), ("a", None, "1"))
    }
    assert len(places) == 4


def test_a_damaged_entry_is_not_taken_and_is_replaced(tmp_path):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    done = finished(tmp_path / "a" / "baseline")
    store.give(place, done, KEY, "rows.json")
    (place / "weights").unlink()
    (place / "weights").write_text("other")
    assert not store.take(place, tmp_path / "b", "baseline", KEY)
    store.give(place, done, KEY, "rows.json")
    assert (place / "weights").read_text() == "weights"
    assert is_complete(place, KEY)


def test_one_that_is_cut_off_while_it_gives_leaves_nothing_that_is_taken(tmp_path, monkeypatch):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    done = finished(tmp_path / "a" / "baseline")

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "linked", cut_off)
    with pytest.raises(KeyboardInterrupt):
        store.give(place, done, KEY, "rows.json")
    assert not place.exists()
    assert not store.take(place, tmp_path / "b", "baseline", KEY)


def test_a_change_of_a_taken_stage_by_renaming_leaves_the_store_alone(tmp_path):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    store.give(place, finished(tmp_path / "a" / "baseline"), KEY, "rows.json")
    store.take(place, tmp_path / "b", "baseline", KEY)
    (tmp_path / "b" / "new").write_text("[1]")
    (tmp_path / "b" / "new").replace(tmp_path / "b" / "baseline" / "rows.json")
    assert (place / "rows.json").read_text() == "[]"


def test_what_is_in_the_way_is_not_replaced(tmp_path):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    store.give(place, finished(tmp_path / "a" / "baseline"), KEY, "rows.json")
    (tmp_path / "b" / "baseline").mkdir(parents=True)
    (tmp_path / "b" / "baseline" / "mine.txt").write_text("mine")
    with pytest.raises(CompressError, match="in the way"):
        store.take(place, tmp_path / "b", "baseline", KEY)
    assert (tmp_path / "b" / "baseline" / "mine.txt").read_text() == "mine"


def begun(folder: Path, key: str = KEY) -> Path:
    """A folder such as a stage that was cut off leaves."""
    folder.mkdir(parents=True)
    (folder / "key.json").write_text(json.dumps(key))
    (folder / "state").write_text(folder.parent.name)
    return folder


def test_what_one_began_another_goes_on_with_unless_it_has_begun_too(tmp_path):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    place.parent.mkdir()
    store.adopt(place, tmp_path / "a", "baseline", KEY)
    begun(tmp_path / "a" / "baseline.partial")
    begun(tmp_path / "b" / "baseline.partial", "c" * 64)
    store.adopt(place, tmp_path / "b", "baseline", KEY)
    assert (tmp_path / "b" / "baseline.partial" / "state").read_text() == "a"
    assert not (tmp_path / "a" / "baseline.partial").exists()
    begun(tmp_path / "d" / "baseline.partial")
    store.adopt(place, tmp_path / "d", "baseline", KEY)
    assert (tmp_path / "d" / "baseline.partial" / "state").read_text() == "d"
    assert (tmp_path / "b" / "baseline.partial").exists()
    store.give(place, finished(tmp_path / "d" / "baseline"), KEY, "rows.json")
    assert [path.name for path in (tmp_path / "store").iterdir()] == [place.name]


def test_what_was_begun_under_another_key_is_left_alone(tmp_path):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    place.parent.mkdir()
    store.adopt(place, tmp_path / "a", "baseline", KEY)
    begun(tmp_path / "a" / "baseline.partial", "c" * 64)
    store.adopt(place, tmp_path / "b", "baseline", KEY)
    assert (tmp_path / "a" / "baseline.partial").exists()
    assert not (tmp_path / "b").exists()


def holding(place: Path, begun, end) -> None:
    with store.alone_at(place):
        begun.set()
        end.wait(60)


def test_the_second_waits_for_the_first_and_a_killed_one_is_waited_for_no_longer(tmp_path):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    context = multiprocessing.get_context("fork")
    begun, end, entered = context.Event(), context.Event(), threading.Event()
    first = context.Process(target=holding, args=(place, begun, end))
    first.start()
    assert begun.wait(60)

    def second() -> None:
        with store.alone_at(place):
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not entered.wait(0.3), "the first still holds the lock"
    first.kill()
    assert entered.wait(10)
    thread.join()
    first.join()


def test_a_store_that_cannot_be_is_refused_before_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "r.yml").write_text(RECIPE)
    with pytest.raises(CompressError, match="cannot hold files"):
        compress.run(tmp_path / "r.yml", out=tmp_path / "out", store=tmp_path / "file", quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_experiments_share_stages_and_rows_and_times_come_later(tmp_path, monkeypatch):
    (tmp_path / "r.yml").write_text(RECIPE)
    done, work = [], experiment.work

    def noted(run, stage, key):
        done.append(stage.name)
        work(run, stage, key)

    monkeypatch.setattr(experiment, "work", noted)

    def go(out: str, *overrides: str, **options):
        return compress.run(tmp_path / "r.yml", overrides, out=tmp_path / out, store=tmp_path / "store", quiet=True, **options)

    first = go("a", timing="never")
    assert done == ["baseline", "pruned"]
    assert all(row.latency_ms == {} for row in first)
    assert go("b", timing="never") == first
    go("c", "stages.pruned.ratio=0.25", timing="never")
    assert done == ["baseline", "pruned", "pruned"]
    timed = go("b")
    assert all(row.latency_ms for row in timed if row.stage in ("baseline", "pruned"))
    assert [row.model_copy(update={"latency_ms": {}}) for row in timed] == first
    assert go("b", timing="never") == timed, "times that are there stay"
    assert done == ["baseline", "pruned", "pruned"]
    shutil.rmtree(tmp_path / "store")
    assert go("b") == timed
    assert read_json(tmp_path / "b" / "pruned" / MANIFEST)["key"] == read_lines(tmp_path / "a" / "ledger.jsonl")[-1]["key"]


def test_a_training_under_other_settings_is_kept_when_a_stage_is_taken(tmp_path):
    place = store.place_in(tmp_path / "store", "baseline", None, KEY)
    store.give(place, finished(tmp_path / "a" / "baseline"), KEY, "rows.json")
    partial = begun(tmp_path / "b" / "baseline.partial", "b" * 64)
    (partial / "training.pt").write_text("state")
    assert store.take(place, tmp_path / "b", "baseline", KEY)
    assert (begun_aside(partial, "b" * 64) / "training.pt").read_text() == "state"
