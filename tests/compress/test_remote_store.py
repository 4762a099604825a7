"""A store behind a URL: whole stages come and go, damage is noticed, and what cannot be reached is one sentence."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

import compress
from compress import experiment, remote_store
from compress.errors import CompressError
from compress.files import fingerprint
from compress.remote_store import Remote, check_remote, fetch, fetch_file, send, send_file
from compress.stage_folder import MANIFEST, digests, is_complete

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


def finished(folder: Path) -> Path:
    """A folder such as a finished stage leaves."""
    (folder / "last").mkdir(parents=True)
    for name in ("weights", "last/weights"):
        (folder / name).write_text(name)
    manifest = {"stage": folder.name, "kind": "train", "parent": None, "key": KEY, "files": digests(folder)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def endpoint():
    """The address of a stand-in for Amazon's object store."""
    if not all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask")):
        pytest.skip("no stand-in for an object store: pip install 'moto[server]' s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(params=["file", "s3"])
def url(request, tmp_path, monkeypatch) -> str:
    """A URL with nothing below it: of a folder, or of a bucket."""
    if request.param == "file":
        return f"file://{tmp_path}/bucket/stages"
    endpoint = request.getfixturevalue("endpoint")
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    import s3fs

    bucket = f"bucket-{fingerprint(str(tmp_path))[:16]}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/stages"


def listing(url: str) -> list[str]:
    with remote_store.reached(url) as (files, root):
        files.invalidate_cache()
        return sorted(path.rpartition("/")[2] for path in files.find(root)) if files.exists(root) else []


def test_what_one_machine_sends_another_fetches_whole(url, tmp_path):
    remote = Remote(url)
    check_remote(url)
    here, there = finished(tmp_path / "one" / "baseline-1"), tmp_path / "two" / "baseline-1"
    fetch(remote, there, KEY)
    assert not there.exists()
    send(remote, here)
    assert listing(url) == ["baseline-1.zip"]
    fetch(remote, there, KEY)
    assert digests(there) == digests(here)
    assert [path.name for path in there.parent.iterdir()] == ["baseline-1"]


def test_what_was_sent_stays_as_it_is(url, tmp_path):
    check_remote(url)
    send(Remote(url), finished(tmp_path / "one" / "baseline-1"))
    other = finished(tmp_path / "two" / "baseline-1")
    (other / "rows.json").write_text("[]")
    send(Remote(url), other)
    fetch(Remote(url), tmp_path / "three" / "baseline-1", KEY)
    assert not (tmp_path / "three" / "baseline-1" / "rows.json").exists()


@pytest.mark.parametrize("damage", ["cut off", "another file", "no zip"])
def test_what_is_damaged_is_not_taken_and_can_be_sent_anew(url, tmp_path, damage):
    remote, here, there = Remote(url), finished(tmp_path / "one" / "baseline-1"), tmp_path / "two" / "baseline-1"
    check_remote(url)
    if damage == "another file":
        wrong = shutil.copytree(here, tmp_path / "wrong" / "baseline-1")
        (wrong / "weights").write_text("other")
        send(remote, wrong)
    else:
        send(remote, here)
        archive = tmp_path / "archive"
        assert fetch_file(url, "baseline-1.zip", archive)
        archive.write_bytes(archive.read_bytes()[:-30] if damage == "cut off" else b"something else")
        send_file(archive, url, "baseline-1.zip")
    fetch(remote, there, KEY)
    assert not there.exists()
    assert listing(url) == []
    send(remote, here)
    fetch(remote, there, KEY)
    assert is_complete(there, KEY)


def test_one_that_is_cut_off_while_it_sends_leaves_nothing_that_is_fetched(tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    url = f"file://{tmp_path}/stages"
    check_remote(url)

    def half(_self, source, target, **_options):
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFileSystem, "put_file", half)
    with pytest.raises(KeyboardInterrupt):
        send(Remote(url), finished(tmp_path / "one" / "baseline-1"))
    assert not any(name.endswith(".zip") for name in listing(url))
    fetch(Remote(url), tmp_path / "two" / "baseline-1", KEY)
    assert not (tmp_path / "two" / "baseline-1").exists()


def test_files_of_an_archive_stay_in_its_folder(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as stored:
        stored.writestr("../outside", "x")
        stored.writestr("/absolute", "x")
    assert remote_store.unpacked(tmp_path / "x.zip", tmp_path / "deep" / "folder")
    assert not (tmp_path / "deep" / "outside").exists()
    assert sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir()) == ["absolute", "outside"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nothing://bucket/x", "Protocol not known: nothing"),
        ("adl://store/x", "needs a package that is not installed"),
        ("file:///proc/nowhere/x", "cannot be used"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_sentence_before_work(tmp_path, url, told):
    if url.startswith("adl") and importlib.util.find_spec("adlfs"):
        pytest.skip("adlfs is installed")
    if url.startswith("file") and not os.access("/proc/self", os.R_OK):
        pytest.skip("no /proc here")
    (tmp_path / "r.yml").write_text(RECIPE)
    with pytest.raises(CompressError, match=told) as caught:
        compress.run(tmp_path / "r.yml", out=tmp_path / "out", store=url, quiet=True)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["s3"], indirect=True)
@pytest.mark.usefixtures("url")
def test_no_bucket_is_made():
    with pytest.raises(CompressError, match="there is no 'elsewhere'"):
        check_remote("s3://elsewhere/stages")


def test_a_server_that_does_not_answer_is_one_sentence(monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()  # of those that other tests have connected
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "ENDPOINT_URL": "http://127.0.0.1:1", "MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(CompressError, match=r"s3://bucket/x cannot be used \(.*127\.0\.0\.1:1"):
        check_remote("s3://bucket/x")


@pytest.mark.slow
def test_experiments_of_two_machines_share_stages_and_rows(tmp_path, monkeypatch):
    (tmp_path / "r.yml").write_text(RECIPE)
    done, work, url = [], experiment.work, f"file://{tmp_path}/stages"

    def noted(run, stage, key):
        done.append(stage.name)
        work(run, stage, key)

    monkeypatch.setattr(experiment, "work", noted)

    def go(machine: str, *overrides: str):
        monkeypatch.setattr(experiment, "folder_for", lambda _: tmp_path / machine / "store")
        return compress.run(tmp_path / "r.yml", overrides, out=tmp_path / machine / "run", store=url, quiet=True, timing="never")

    first = go("one")
    assert done == ["baseline", "pruned"]
    assert go("two") == first
    go("three", "stages.pruned.ratio=0.25")
    assert done == ["baseline", "pruned", "pruned"]
    assert len(listing(url)) == 3
    assert digests(tmp_path / "two" / "run" / "baseline") == digests(tmp_path / "one" / "run" / "baseline")
