"""Recipes whose stages name other models: teachers that are recipes, checkpoints or stages, and peers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import compress
from compress import checkpoint, experiment
from compress.description import save_tuned
from compress.errors import CompressError
from compress.files import read_lines
from compress.plan import plan
from compress.recipe import load
from compress.session import make_lab, prepare, tree

pytestmark = pytest.mark.slow

SMALL = """
model: {name: db, backbone: BACKBONE, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 4, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages:
  - train: {name: NAME, epochs: 1, batch: 4, crop: 64}
"""
SCHEDULE = "epochs: 1, batch: 4, crop: 64"
STUDENTS = f"""
  - prune: {{name: pruned, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64}}
  - distill: {{name: both, from: pruned, teacher: [one.yml, two.yml], feature: {{}}, {SCHEDULE}}}
  - distill: {{name: again, from: pruned, teacher: one.yml, {SCHEDULE}}}
  - distill: {{name: own, from: pruned, teacher: baseline, {SCHEDULE}}}
  - distill: {{name: pair, from: pruned, mutual: {{peer: again}}, {SCHEDULE}}}
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    small = SMALL.replace("BACKBONE", "mobilenet_v3_small").replace("NAME", "baseline")
    (folder / "student.yml").write_text(small + STUDENTS.lstrip("\n"))
    (folder / "one.yml").write_text(SMALL.replace("BACKBONE", "resnet18").replace("NAME", "teacher"))
    (folder / "two.yml").write_text("extends: one.yml\nseed: 1\n")
    return folder


@pytest.fixture(scope="module")
def done(recipes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("experiments") / "student"
    compress.run(recipes / "student.yml", out=folder, quiet=True)
    return folder


def test_every_teacher_stands_once_in_the_table_and_the_peer_has_a_row(done):
    rows = {row["stage"]: row for row in read_lines(done / "ledger.jsonl")}
    names = [name for name in rows if not name.endswith("/last")]
    assert names[:5] == ["baseline", "pruned/raw", "pruned", "teacher", "teacher/two"]
    assert names[5:9] == ["both", "again", "own", "pair"]
    assert names[9:] in (["pair/peer"], ["pair/student"])
    assert rows["teacher"]["params"] == rows["teacher/two"]["params"] > rows["baseline"]["params"]
    assert [Path(rows[name]["artefact"]).parts[-2] for name in ("teacher", "teacher/two")] == ["one", "two"]
    assert rows["pair"]["params"] == rows[names[9]]["params"] == rows["pruned"]["params"]
    assert not list(done.glob("*/training.pt"))


def test_nothing_is_done_again_and_a_changed_peer_or_teacher_changes_what_names_it(done, recipes, tmp_path, monkeypatch):
    for name in ("student", "one", "two"):
        shutil.copytree(done.parent / name, tmp_path / name)
    worked, real = [], experiment.work

    def noted(what, stage, key):
        worked.append(stage.name)
        real(what, stage, key)

    monkeypatch.setattr(experiment, "work", noted)
    compress.run(recipes / "student.yml", out=tmp_path / "student", quiet=True)
    assert worked == []
    compress.run(recipes / "student.yml", ["stages.again.weight=0.5"], out=tmp_path / "student", quiet=True)
    assert worked == ["again", "pair"]


def test_a_dry_run_knows_what_depends_on_stages_and_what_on_teachers(done, recipes):
    lines = experiment.dry_run(recipes / "student.yml", ["stages.pruned.ratio=0.4"], out=done)
    states = {line.partition(":")[0]: line.rpartition(": ")[2] for line in lines}
    assert states == {
        "baseline": "in the cache",
        "pruned": "to do",
        "both": "to do",
        "again": "to do",
        "own": "to do",
        "pair": "to do",
    }
    lines = experiment.dry_run(recipes / "student.yml", out=done)
    states = {line.partition(":")[0]: line.rpartition(": ")[2] for line in lines}
    assert states == {
        "baseline": "in the cache",
        "pruned": "in the cache",
        "both": "in the cache",
        "again": "in the cache",
        "own": "in the cache",
        "pair": "in the cache",
    }


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stages.own.teacher=basline", "did you mean 'baseline'"),
        ("stages.own.teacher=pair", "'pair' is neither an earlier stage"),
        ("stages.own.teacher=[baseline, nowhere]", "'nowhere' is neither an earlier stage that gives a model, a recipe"),
        ("stages.own.teacher=nowhere.yml", "nowhere.yml"),
        ("stages.own.teacher=[]", "stages.own.teacher: name a recipe, a checkpoint folder or an earlier stage"),
        ("stages.own.response.maps.binry=1", "did you mean 'binary'"),
        ("stages.own.response.dilat=2", "did you mean 'dilate'"),
        ("stages.both.feature.layers=[nek.*]", "stage 'both': feature.layers: 'nek.*' matches no layer"),
        ("stages.both.feature.teacher_layers=[nek.*]", "stage 'both': feature: in the teacher 'nek.*' matches no layer"),
        ("stages.pair.mutual.peer=agian", "did you mean 'again'"),
        ("stages.pair.mutual.peer=one.yml", "is a recipe"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_any_work(recipes, tmp_path, override, told):
    with pytest.raises(CompressError) as caught:
        compress.run(recipes / "student.yml", [override], out=tmp_path / "out", quiet=True)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_paths_are_found_beside_the_file_that_names_them_and_stages_are_no_paths(recipes, tmp_path, monkeypatch):
    below = recipes / "below"
    below.mkdir()
    (recipes / "baseline").mkdir()
    (recipes / "weights").mkdir()
    (below / "child.yml").write_text(
        "extends: ../student.yml\nstages: {pair: {mutual: {peer: ../weights}}, own: {teacher: [pruned, ../one.yml]}}\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = load(below / "child.yml")
    assert recipe.stage("both").teachers == (str(recipes / "one.yml"), str(recipes / "two.yml"))
    assert recipe.stage("pair").mutual.peer == str(recipes / "weights")
    assert recipe.stage("own").teachers == ("pruned", str(recipes / "one.yml"))
    assert load(recipes / "student.yml").stage("own").teacher == "baseline"
    monkeypatch.chdir(recipes)
    assert load(below / "child.yml", ["stages.own.teacher=[baseline, ./two.yml]"]).stage("own").teachers == ("baseline", "two.yml")


def test_a_recipe_with_all_terms_reads_back_as_itself(recipes, tmp_path):
    recipe = load(recipes / "student.yml", ["stages.own.response={maps: {binary: 2}, dilate: 2}", "stages.own.mutual={weight: 0.5}"])
    (tmp_path / "student.yml").write_text(recipe.dump())
    assert load(tmp_path / "student.yml") == recipe


# The tree of recipes


def chain(folder: Path, **teachers: str) -> None:
    """A recipe for each name, whose last stage is taught by another."""
    for name, teacher in teachers.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        small = SMALL.replace("BACKBONE", "mobilenet_v3_small").replace("NAME", "baseline")
        lesson = f"  - distill: {{name: student, teacher: {teacher}, {SCHEDULE}}}\n" if teacher else ""
        (folder / f"{name}.yml").write_text(small + lesson)


@pytest.mark.parametrize(
    ("teachers", "told"),
    [
        ({"a": "a.yml"}, r"a\.yml -> a\.yml"),
        ({"a": "b.yml", "b": "a.yml"}, r"a\.yml -> b\.yml -> a\.yml"),
        ({"a": "b.yml", "b": "c.yml", "c": "b.yml"}, r"b\.yml -> c\.yml -> b\.yml"),
        ({"a": "[b.yml, ./a.yml]", "b": ""}, r"a\.yml -> a\.yml"),
    ],
)
def test_recipes_that_need_each_other_are_refused_by_name_before_any_work(tmp_path, teachers, told):
    chain(tmp_path, **teachers)
    for ask in (compress.run, experiment.dry_run, plan):
        with pytest.raises(CompressError, match=told):
            ask(tmp_path / "a.yml", out=tmp_path / "out" / "a")
    assert not (tmp_path / "out").exists()


def test_recipes_of_one_name_have_folders_of_their_own_wherever_all_of_them_lie(tmp_path):
    for root in (tmp_path / "here", tmp_path / "there"):
        chain(root, teach="[a/teach.yml, b/teach.yml, c/other.yml]")
        for name in ("a/teach", "b/teach", "c/other"):
            chain(root, **{name: ""})
    sessions = [prepare(tmp_path / root / "teach.yml", out=tmp_path / "out" / "student") for root in ("here", "there")]
    folders = [[its.folder.name for its in session.others.values()] for session in sessions]
    assert folders[0] == folders[1]
    assert folders[0][0] == "teach"
    assert folders[0][1].startswith("teach-")
    assert folders[0][2] == "other"
    assert sessions[0].folder.name == "student"
    taken = prepare(tmp_path / "here" / "teach.yml", out=tmp_path / "out" / "teach")
    assert len({taken.folder, *(its.folder for its in taken.others.values())}) == 4


def test_the_order_of_teachers_does_not_move_their_folders(tmp_path):
    for name in ("a/teach", "b/teach"):
        chain(tmp_path, **{name: ""})
    chain(tmp_path, one="[a/teach.yml, b/teach.yml]", other="[b/teach.yml, a/teach.yml]")
    places = [
        {its.path: its.folder for its in prepare(tmp_path / f"{name}.yml", out=tmp_path / "out" / "x").others.values()}
        for name in ("one", "other")
    ]
    assert places[0] == places[1]


def test_stages_taught_by_two_recipes_of_one_name_are_two(tmp_path):
    """Teachers of other seeds: what each of them teaches is another model, measured under the name of its experiment."""
    for name, seed in (("a/teach", 1), ("b/teach", 2)):
        chain(tmp_path, **{name: ""})
        (tmp_path / f"{name}.yml").write_text(f"seed: {seed}\n" + (tmp_path / f"{name}.yml").read_text())
    small = SMALL.replace("BACKBONE", "mobilenet_v3_small").replace("NAME", "baseline")
    lessons = "".join(f"  - distill: {{name: by_{name}, from: baseline, teacher: {name}/teach.yml, {SCHEDULE}}}\n" for name in ("a", "b"))
    (tmp_path / "student.yml").write_text(small + lessons)
    rows = compress.run(tmp_path / "student.yml", out=tmp_path / "out" / "student", quiet=True)
    weights = [(tmp_path / "out" / "student" / name / "model.safetensors").read_bytes() for name in ("by_a", "by_b")]
    assert weights[0] != weights[1]
    taught = [row for row in rows if row.kind == "teacher"]
    assert taught[0].stage == "teacher"
    assert taught[1].stage.startswith("teacher/teach-")
    assert [row.seed for row in taught] == [1, 2]
    assert len({row.artefact for row in taught}) == 2


def test_a_recipe_that_two_others_need_is_run_once(tmp_path, monkeypatch):
    chain(tmp_path, a="[b.yml, c.yml]", b="c.yml", c="")
    session = prepare(tmp_path / "a.yml", out=tmp_path / "out" / "a")
    assert session.others[next(iter(session.others))].others.keys() <= session.others.keys()
    assert [its.path.stem for its in tree(session)] == ["c", "b", "a"]
    run, real = [], experiment.do_session

    def noted(run_, *rest):
        run.append(run_.session.path.stem)
        return real(run_, *rest)

    monkeypatch.setattr(experiment, "do_session", noted)
    compress.run(tmp_path / "a.yml", out=tmp_path / "out" / "a", quiet=True)
    assert run == ["a", "b", "c"]


def test_what_is_wrong_with_a_teachers_recipe_is_said_before_the_student_trains(tmp_path):
    chain(tmp_path, a="b.yml", b="")
    (tmp_path / "b.yml").write_text((tmp_path / "b.yml").read_text() + "  - prune: {name: pruned, ratio: 0.5, protect: [nek.*]}\n")
    with pytest.raises(CompressError, match=r"teacher b\.yml: stage 'pruned': 'nek\.\*' matches no layer"):
        compress.run(tmp_path / "a.yml", out=tmp_path / "out" / "a", quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def on_words(tmp_path) -> Path:
    """`files.yml` takes the model of `words.yml`, which adds words to the images of the other two and starts from that of `plain.yml`."""
    for name, data, stage in (
        ("plain", "{format: icdar2015, root: here}", "train: {name: baseline, epochs: 1}"),
        ("words", "{format: words_added, of: {format: icdar2015, root: here}}", "load: {name: more, checkpoint: plain.yml}"),
        ("files", "{format: icdar2015, root: here}", "load: {name: last, checkpoint: words.yml}"),
    ):
        (tmp_path / f"{name}.yml").write_text(f"model: {{name: db}}\ndata: {data}\nstages:\n  - {stage}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("first", "given", "roots"),
    [
        ("files", "data.root=there", {"files": "there", "words": "there", "plain": "there"}),
        ("words", "data.of.root=there", {"words": "there", "plain": "there"}),
        ("words", "data.copies=3", {"words": "here", "plain": "here"}),
        ("files", "data={format: icdar2017, root: there}", {"files": "there", "words": "there", "plain": "there"}),
        ("words", "data.of={format: totaltext, root: there}", {"words": "there", "plain": "there"}),
    ],
)
def test_photographs_are_exchanged_in_every_recipe_with_words_added_or_without(on_words, first, given, roots):
    found = {its.recipe.name: its.recipe.data for its in tree(prepare(on_words / f"{first}.yml", [given]))}
    assert {name: str(getattr(data, "of", data).root) for name, data in found.items()} == roots
    formats = {getattr(data, "of", data).format for data in found.values()}
    assert len(formats) == 1
    assert found["words"].copies == (3 if "copies" in given else 1)


def test_a_teacher_is_without_what_was_tuned_beside_it(recipes, done, tmp_path):
    folder = tmp_path / "teacher"
    shutil.copytree(done / "baseline", folder)
    shown = checkpoint.load(folder).evaluate.how_shown()
    save_tuned(folder, {"settings": {"bin_threshold": 0.4}, "shown": shown, "val_score": 0.5})
    assert checkpoint.load(folder).tuned
    found = prepare(recipes / "student.yml", out=done)
    assert make_lab(found, tmp_path, found.recipe.stage("own")).open_teacher(str(folder)).tuned == {}
