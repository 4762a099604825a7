"""Stages that are not what they were: a flipped byte, a file cut off, an edited row is noticed, named and done again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import compress
from compress import experiment, rows
from compress.checkpoint import load
from compress.errors import CompressError
from compress.experiment import dry_run
from compress.files import read_json, read_lines, read_tensors, write_json
from compress.stage_folder import damaged_partial, prepare_partial
from compress.training import loop

pytestmark = pytest.mark.slow

HEAD = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 4, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages:
"""
TRAINED = "  - train: {name: baseline, epochs: 2, batch: 4, crop: 64}\n"
RECIPE = (
    HEAD
    + TRAINED
    + """
  - export: {name: files, formats: [onnx], check_images: 1}
  - quantize: {name: int8, mode: ptq, calibration: 1}
  - prune: {name: pruned, from: baseline, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64}
"""
)


def flip(path: Path, place: float = 0.5) -> None:
    """Turn one bit of a file around."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def written(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "small.yml"
    path.write_text(text)
    return path


def untimed(folder: Path) -> list[dict]:
    kept = [
        {name: value for name, value in row.items() if name not in ("latency_ms", "seconds")} for row in read_lines(folder / "ledger.jsonl")
    ]
    assert kept
    return kept


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The recipe and, in `out`, its experiment."""
    folder = tmp_path_factory.mktemp("done")
    compress.run(written(folder), out=folder / "out", quiet=True)
    return folder


@pytest.fixture
def copied(done, tmp_path) -> Path:
    shutil.copytree(done, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.fixture
def worked(monkeypatch) -> list[str]:
    """The stages that are done."""
    names, real = [], experiment.work

    def noted(run, stage, key):
        names.append(stage.name)
        real(run, stage, key)

    monkeypatch.setattr(experiment, "work", noted)
    return names


def test_rows_name_their_parent_as_the_recipe_does_now(copied):
    recipe, out = copied / "small.yml", copied / "out"
    assert {row["stage"]: row["parent"] for row in read_lines(out / "ledger.jsonl")}["files/onnx"] == "baseline"
    renamed = RECIPE.replace("name: baseline", "name: first").replace("from: baseline", "from: first")
    recipe.write_text(renamed)
    compress.run(recipe, out=out, quiet=True)
    assert {row["stage"]: row["parent"] for row in read_lines(out / "ledger.jsonl")}["files/onnx"] == "first"
    shutil.rmtree(out / "baseline")
    compress.run(recipe, ["latency.input=[1, 3, 32, 32]"], out=out, quiet=True)
    assert {row["stage"]: row["parent"] for row in read_lines(out / "ledger.jsonl")}["files/onnx"] == "first"


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("baseline/model.safetensors", flip),
        ("baseline/last/model.yml", flip),
        ("baseline/metrics.jsonl", flip),
        ("int8/quantization.json", flip),
        ("files/onnx/model.onnx", cut),
    ],
)
def test_what_is_damaged_is_named_and_done_again(copied, worked, capsys, file, harm):
    out, stage = copied / "out", file.split("/")[0]
    before, rows_before = (out / file).read_bytes(), untimed(out)
    harm(out / file)
    states = {line.partition(":")[0]: line.rpartition(": ")[2] for line in dry_run(copied / "small.yml", out=out)}
    assert states[stage] == "damaged"
    waiting = ("files", "int8", "pruned") if stage == "baseline" else ()
    assert {name for name, state in states.items() if state == "to do"} == set(waiting)
    compress.run(copied / "small.yml", out=out, quiet=True)
    assert worked == [stage]
    assert f"{file} is damaged" in capsys.readouterr().err
    assert (out / file).read_bytes() == before
    assert untimed(out) == rows_before
    assert (out / ".cache" / f"{stage}.damaged" / Path(file).relative_to(stage)).read_bytes() != before
    compress.run(copied / "small.yml", out=out, quiet=True)
    assert worked == [stage]


def test_a_damaged_stage_that_was_set_aside_is_not_taken_back(copied, worked, capsys):
    out, recipe = copied / "out", copied / "small.yml"
    compress.run(recipe, ["stages.pruned.criterion=l2"], out=out, quiet=True)
    (aside,) = [path for path in (out / ".cache").iterdir() if path.name.startswith("pruned-")]
    flip(aside / "model.safetensors")
    worked.clear()
    compress.run(recipe, out=out, quiet=True)
    assert worked == ["pruned"]
    assert "model.safetensors is damaged" in capsys.readouterr().err


def test_edited_rows_are_measured_again(copied, worked, capsys, monkeypatch):
    out, measured, real = copied / "out", [], rows.measure_artefact
    before = untimed(out)
    known = read_json(out / "baseline" / "rows.json")
    known["rows"][0]["scores"]["hmean"] = 0.9
    write_json(out / "baseline" / "rows.json", known)

    def noted(*arguments, **options):
        measured.append(arguments[1].name)
        return real(*arguments, **options)

    monkeypatch.setattr(rows, "measure_artefact", noted)
    compress.run(copied / "small.yml", out=out, quiet=True)
    assert (worked, set(measured)) == ([], {"baseline"})
    assert "rows.json is damaged" in capsys.readouterr().err
    assert untimed(out) == before


@pytest.mark.parametrize("file", ["model.yml", "model.safetensors", "quantization.json"])
def test_a_damaged_checkpoint_is_not_loaded(copied, file):
    folder = copied / "out" / "int8"
    load(folder)
    path = folder / file
    before = path.read_bytes()
    path.write_bytes(before + b"\n" if file != "model.safetensors" else before)
    if file == "model.safetensors":
        flip(path, 0.9)
    with pytest.raises(CompressError, match=rf"{file} is damaged"):
        load(folder)
    path.write_bytes(before)
    load(folder)


def test_weights_say_themselves_that_they_are_damaged(copied):
    """Where there is no manifest: converted checkpoints, and stages that are not complete."""
    path = copied / "out" / "baseline" / "last" / "model.safetensors"
    shutil.move(path, copied / "model.safetensors")
    whole = read_tensors(copied / "model.safetensors")
    flip(copied / "model.safetensors", 0.9)
    with pytest.raises(CompressError, match=r"model\.safetensors is damaged"):
        read_tensors(copied / "model.safetensors")
    assert len(whole) > 100


def test_a_teacher_that_is_damaged_is_refused_before_any_work_and_one_of_a_recipe_is_done_again(copied, worked, capsys, tmp_path):
    teacher = copied / "out" / "baseline"
    text = HEAD + TRAINED + f"  - distill: {{name: student, teacher: {teacher}, epochs: 1, batch: 4, crop: 64}}\n"
    (tmp_path / "folder.yml").write_text(text)
    flip(teacher / "model.safetensors")
    with pytest.raises(CompressError, match=r"stage 'student': .*baseline/model\.safetensors is damaged"):
        compress.run(tmp_path / "folder.yml", out=tmp_path / "folder", quiet=True)
    assert not (tmp_path / "folder").exists()
    (copied / "teacher.yml").write_text(HEAD + TRAINED)
    (copied / "student.yml").write_text(text.replace(str(teacher), "teacher.yml"))
    shutil.copytree(copied / "out", tmp_path / "teacher")
    compress.run(copied / "student.yml", out=tmp_path / "student", quiet=True)
    assert worked == ["baseline", "baseline", "student"], "the student's first stage, its teacher, the student"
    assert "teacher/baseline/model.safetensors is damaged" in capsys.readouterr().err.replace("\n", "")


# What was cut off


def cut_off(monkeypatch, folder: Path) -> Path:
    """A training of two epochs that was cut off in the second; its partial folder."""
    recipe, real = written(folder, HEAD + TRAINED), loop.train_epoch

    def in_the_second_epoch(run, *rest):
        if run.epoch == 1:
            raise KeyboardInterrupt
        return real(run, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_epoch", in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            compress.run(recipe, out=folder / "out", quiet=True)
    return folder / "out" / "baseline.partial"


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("begun")
        cut_off(patched, folder)
    return folder


def empty(path: Path) -> None:
    path.write_bytes(b"")


def one_digit(path: Path) -> None:
    (entry,) = read_lines(path)
    path.write_text(json.dumps({**entry, "val_hmean": entry["val_hmean"] + 0.25}) + "\n")


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("training.pt", flip),
        ("training.pt", cut),
        ("training.pt", empty),
        ("model.safetensors", lambda path: flip(path, 0.9)),
        ("metrics.jsonl", cut),
        ("metrics.jsonl", one_digit),
        ("metrics.jsonl", Path.unlink),
    ],
)
def test_an_unfinished_stage_with_a_damaged_file_starts_again(begun, tmp_path, file, harm):
    partial = tmp_path / "baseline.partial"
    shutil.copytree(begun / "out" / "baseline.partial", partial)
    key = read_json(partial / "key.json")
    assert prepare_partial(partial, key) == []
    assert (partial / "training.pt").exists()
    harm(partial / file)
    (told,) = damaged_partial(partial)
    assert str(partial / file) in told
    assert prepare_partial(partial, key) == [told]
    assert [path.name for path in partial.iterdir()] == ["key.json"]


def test_bits_flipped_anywhere_in_the_state_of_a_training_are_noticed_or_mean_nothing(begun, tmp_path):
    import torch

    partial = tmp_path / "baseline.partial"
    shutil.copytree(begun / "out" / "baseline.partial", partial)
    whole, before = (partial / "training.pt").read_bytes(), torch.load(partial / "training.pt", weights_only=True)
    noticed = 0
    for part in range(1, 40):
        (partial / "training.pt").write_bytes(whole)
        flip(partial / "training.pt", part / 40)
        if damaged_partial(partial):
            noticed += 1
        else:
            after = torch.load(partial / "training.pt", weights_only=True)
            assert all(torch.equal(one, other) for one, other in zip(leaves(before), leaves(after), strict=True))
    assert noticed > 30


def leaves(values) -> list:
    """The tensors in nested containers."""
    import torch

    if isinstance(values, torch.Tensor):
        return [values]
    inside = values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else ()
    return [leaf for value in inside for leaf in leaves(value)]


def test_a_training_that_starts_again_ends_in_the_same_weights(begun, done, tmp_path, capsys):
    shutil.copytree(begun, tmp_path / "begun")
    flip(tmp_path / "begun" / "out" / "baseline.partial" / "training.pt")
    compress.run(tmp_path / "begun" / "small.yml", out=tmp_path / "begun" / "out", quiet=True)
    assert "training.pt is damaged; the stage starts again" in capsys.readouterr().err.replace("\n", " ")
    for file in ("model.safetensors", "last/model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "begun" / "out" / "baseline" / file).read_bytes() == (done / "out" / "baseline" / file).read_bytes()


@pytest.mark.parametrize("when", ["moving the old one", "moving the new one"])
def test_after_a_fault_at_the_very_end_nothing_is_trained_again(copied, monkeypatch, when):
    """The partial folder can be taken up until the stage is in its place."""
    out, recipe, real = copied / "out", copied / "small.yml", Path.rename

    def fails(path, target):
        old = path == out / "pruned"
        if old if when == "moving the old one" else path == out / "pruned.partial":
            raise OSError(28, "No space left on device")
        return real(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fails)
        with pytest.raises(OSError, match="No space"):
            compress.run(recipe, ["stages.pruned.criterion=l2"], out=out, quiet=True)
    monkeypatch.setattr("compress.stages.prune.Prune.apply", lambda *_: pytest.fail("the stage was done again"))
    compress.run(recipe, ["stages.pruned.criterion=l2"], out=out, quiet=True)
    assert read_json(out / "pruned" / "manifest.json")["config"]["criterion"] == "l2"
    assert not (out / "pruned" / "key.json").exists()
    assert not list(out.glob("*.partial"))


# What is not a stage's


@pytest.mark.parametrize("name", ["baseline", "int8.partial"])
def test_a_folder_that_no_stage_has_left_is_in_the_way(tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    mine = tmp_path / "out" / name / "thesis.txt"
    mine.write_text("mine")
    with pytest.raises(CompressError, match=rf"{name} is in the way of the stage"):
        compress.run(written(tmp_path), out=tmp_path / "out", quiet=True)
    assert mine.read_text() == "mine"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_a_users_recipe_is_not_replaced_by_the_one_that_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yml").write_text(RECIPE)
    with pytest.raises(CompressError, match=r"recipe\.yml would be replaced"):
        compress.run("recipe.yml", out=".", quiet=True)
    (tmp_path / "a_file").write_text("")
    with pytest.raises(CompressError, match="a_file is no folder"):
        compress.run("recipe.yml", out="a_file", quiet=True)
    assert (tmp_path / "recipe.yml").read_text() == RECIPE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_file", "recipe.yml"]


def test_the_rows_of_stages_to_come_stay_in_the_ledger_of_a_run_that_is_cut_off(copied, monkeypatch):
    out, real = copied / "out", experiment.do_stage
    before = [row["stage"] for row in read_lines(out / "ledger.jsonl")]

    def cut_off_after_the_first(run, stage, *, again):
        if stage.name != "baseline":
            raise KeyboardInterrupt
        real(run, stage, again=again)

    monkeypatch.setattr(experiment, "do_stage", cut_off_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        compress.run(copied / "small.yml", out=out, timing="again", quiet=True)
    assert [row["stage"] for row in read_lines(out / "ledger.jsonl")] == before
