from __future__ import annotations

import re
import string
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from compress.errors import CompressError
from compress.experiment import dry_run
from compress.recipe import experiment_name, load
from compress.tasks import TASKS
from compress.tasks.recognition import EvaluateRecognition

BASE = """
seed: 3
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 96}}
data: {format: synthetic, train: 8, val: 2, test: 2, size: 128}
evaluate: {short_side: 320, box_threshold: 0.5}
stages:
  - train: {name: baseline, epochs: 12}
  - prune: {name: pruned, ratio: 0.6}
  - train: {name: finetuned, epochs: 4}
  - quantize: {name: int8, from: pruned, train: {epochs: 1}}
  - export: {formats: [onnx]}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(CompressError) as caught:
        load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_stages_start_from_the_one_before_unless_said(tmp_path):
    recipe = load(write(tmp_path, "a.yml", BASE))
    parents = {stage.name: recipe.parent(stage) for stage in recipe.stages}
    assert parents == {"baseline": None, "pruned": "baseline", "finetuned": "pruned", "int8": "pruned", "export": "int8"}


def test_a_stage_after_an_export_starts_from_the_model_before_it(tmp_path):
    recipe = load(write(tmp_path, "a.yml", BASE + "  - train: {name: more, epochs: 1}\n"))
    assert recipe.parent(recipe.stage("more")) == "int8"


def test_what_is_dumped_reads_back_as_the_same_recipe(tmp_path):
    recipe = load(write(tmp_path, "a.yml", BASE), ["stages.baseline.epochs=2"])
    (tmp_path / "again").mkdir()
    again = load(write(tmp_path / "again", "a.yml", recipe.dump()))
    assert again == recipe
    assert again.stage("baseline").epochs == 2


def test_extends_merges_stages_by_name_and_replaces_another_format(tmp_path):
    write(tmp_path, "base.yml", BASE)
    (tmp_path / "real").mkdir()
    child = write(
        tmp_path / "real",
        "child.yml",
        """
        extends: ../base.yml
        data: {format: icdar2015, root: somewhere}
        evaluate: {short_side: 736}
        stages: {baseline: {epochs: 1200, optimizer: sgd}}
        """,
    )
    recipe = load(child)
    assert recipe.data.model_dump()["root"] == Path("somewhere")
    assert "size" not in recipe.data.model_dump()
    assert (recipe.evaluate.short_side, recipe.evaluate.model_extra) == (736, {"box_threshold": 0.5})
    assert (recipe.stage("baseline").epochs, recipe.stage("baseline").optimizer) == (1200, "sgd")
    assert recipe.stage("finetuned").epochs == 4
    assert [stage.name for stage in recipe.stages] == ["baseline", "pruned", "finetuned", "int8", "export"]


def test_a_recipe_that_extends_itself_is_refused(tmp_path):
    write(tmp_path, "a.yml", "extends: b.yml\n")
    assert "extends itself" in refused(write(tmp_path, "b.yml", "extends: a.yml\n"))


@pytest.mark.parametrize(
    "base",
    [
        "a.yml",
        "./a.yml",
        "link.yml",
        "../up/a.yml",
        "../../../../../../etc/passwd",
        "/etc/hostname",
        "..",
        "folder.yml",
        "none.yml",
        "[a.yml]",
    ],
)
def test_what_a_recipe_cannot_extend_is_refused(tmp_path, base):
    folder = tmp_path / "up"
    (folder / "folder.yml").mkdir(parents=True)
    (folder / "link.yml").symlink_to("a.yml")
    assert "a.yml" in refused(write(folder, "a.yml", f"extends: {base}\n")) or base in ("folder.yml", "none.yml")


def test_a_long_chain_of_recipes_is_refused(tmp_path):
    for number in range(500):
        write(tmp_path, f"{number}.yml", f"extends: {number + 1}.yml\n")
    assert "extend one another" in refused(tmp_path / "0.yml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed: 3", "sed: 3", ["line 2", "'sed'", "did you mean 'seed'"]),
        ("epochs: 12", "epoch: 12", ["line 7", "stages.baseline.epoch", "did you mean 'epochs'"]),
        ("epochs: 12", "epochs: twelve", ["line 7", "stages.baseline.epochs", "integer"]),
        ("epochs: 12", "epochs: 0", ["line 7", "greater than or equal to 1"]),
        ("ratio: 0.6", "ratio: 1.6", ["line 8", "stages.pruned.ratio", "less than 1"]),
        ("- prune:", "- prun:", ["line 8", "'prun'", "did you mean 'prune'"]),
        ("from: pruned", "from: prunned", ["line 10", "'prunned'", "did you mean 'pruned'"]),
        ("name: finetuned", "name: baseline", ["line 9", "two stages are called 'baseline'"]),
        ("backbone: mobilenet_v3_small", "backbone: mobilenet", ["line 3", "mobilenet_v3_small"]),
        ("channels: 96", "channel: 96", ["line 3", "channels"]),
        ("box_threshold: 0.5", "box_treshold: 0.5", ["line 5", "did you mean 'box_threshold'"]),
        ("box_threshold: 0.5", "box_threshold: 5", ["line 5", "box_threshold"]),
        ("format: synthetic", "format: synthetik", ["line 4", "did you mean 'synthetic'"]),
        ("size: 128", "size: 3", ["line 4", "data.size"]),
        ("train: 8,", "train: 8, train: 9,", ["line 4", "'train'", "twice"]),
        ("name: pruned", "name: ../x", ["stages", "name"]),
        ("name: pruned", "name: ''", ["line 8", "`name` of a stage must be a word"]),
        ("seed: 3", "seed:", ["line 2", "seed must be a whole number"]),
        ("seed: 3", "seed: 2020-13-45", ["line 2", "'2020-13-45' is neither text nor a number"]),
        ("seed: 3", "seed: =", ["line 2", "'=' is neither text nor a number"]),
        ("seed: 3", "seed: !secret 4", ["line 2", "'4' is neither text nor a number"]),
        ("seed: 3", "? [seed]\n: 3", ["line 2", "a key must be a word"]),
        ("format: synthetic", "format: [1]", ["line 4", "no data format '[1]'"]),
        ("evaluate: {short_side: 320, box_threshold: 0.5}", "evaluate: 4", ["line 5", "`evaluate` must be a mapping"]),
        ("seed: 3", "seed: 3\naugment: [1]", ["line 3", "`augment` must be a mapping"]),
        ("seed: 3", "seed: 3\naugment: {distort: 1}", ["line 3", "unknown key 'augment.distort'"]),
        ("seed: 3", "seed: 3\nlatency: {input: [1, 3, 720, 1280]}", ["line 3", "multiple of 32", "[1, 3, 704, 1280]"]),
        ("seed: 3", "seed: 3\nlatency: {input: [0, 3, 736, 1280]}", ["line 3", "greater than or equal to 1"]),
        ("seed: 3", "seed: 3\nlatency: {input: [1, 4, 736, 1280]}", ["line 3", "takes 3 channels"]),
        ("epochs: 12", "epochs: 12, expect: {max_drop: 2}", ["line 7", "stages.baseline.expect.max_drop", "write 2 % as 0.02"]),
        ("epochs: 12", "epochs: 12, expect: {min_hmean: 0.5}", ["line 7", "unknown key 'stages.baseline.expect.min_hmean'"]),
        ("train: {epochs: 1}}", "mode: ptq, train: {epochs: 1}}", ["line 10", "train has no effect with mode: ptq"]),
        ("train: {epochs: 1}}", "mode: ptq, control: true}", ["line 10", "control has no effect with mode: ptq"]),
        (", train: {epochs: 1}}", "}", ["line 10", "say how, such as `train: {epochs: 1"]),
        ("train: {epochs: 1}}", "epochs: 1}", ["line 10", "unknown key 'stages.int8.epochs'"]),
        ("train: {epochs: 1}}", "train: {epoch: 1}}", ["line 10", "stages.int8.train.epoch", "did you mean 'epochs'"]),
    ],
)
def test_what_a_run_would_stumble_over_is_refused_with_its_line(tmp_path, old, new, told):
    assert old in BASE
    message = refused(write(tmp_path, "a.yml", BASE.replace(old, new, 1)))
    for part in told:
        assert part in message, message


def test_a_first_stage_that_needs_a_model_is_refused(tmp_path):
    text = BASE.replace("  - train: {name: baseline, epochs: 12}\n", "")
    assert "needs a model to start from" in refused(write(tmp_path, "a.yml", text))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stages.basline.epochs=2", "did you mean 'baseline'"),
        ("stages.baseline.epoch=2", "did you mean 'epochs'"),
        ("sede=1", "did you mean 'seed'"),
        ("stages.baseline", "key=value"),
        ("stages.baseline=3", "which setting"),
        ("seed=[1", "not valid YAML"),
        ("seed=-1", "seed"),
    ],
)
def test_overrides_that_fit_nothing_are_refused(tmp_path, override, told):
    assert told in refused(write(tmp_path, "a.yml", BASE), override)


def test_overriding_the_format_drops_the_keys_of_the_old_one(tmp_path):
    recipe = load(write(tmp_path, "a.yml", BASE), ["data.format=icdar2015", "data.root=x"])
    assert recipe.data.format == "icdar2015"


@pytest.mark.parametrize(
    "text", ["", "- a\n", "a: [1\n", "seed: 1\nstages: 4\n", "seed: 1\nstages: []\n", "stages:\n  - {train: {}, prune: {}}\n"]
)
def test_files_that_are_no_recipe_are_refused(tmp_path, text):
    refused(write(tmp_path, "a.yml", text))


@pytest.mark.parametrize(
    "text",
    [
        "x: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"x{i}: &{c} [*{b}, *{b}, *{b}, *{b}, *{b}, *{b}, *{b}, *{b}]\n"
            for i, (b, c) in enumerate(zip("abcdefgh", "bcdefghi", strict=True))
        ),
        "x: " + "[" * 5000 + "]" * 5000,
        "x: &a [*a]",
    ],
    ids=["repeated", "nested", "endless"],
)
def test_a_few_lines_that_stand_for_very_many_values_are_refused(tmp_path, text):
    began = time.monotonic()
    assert "values" in refused(write(tmp_path, "a.yml", text))
    assert time.monotonic() - began < 1


def test_a_missing_recipe_is_named(tmp_path):
    assert "nowhere.yml" in refused(tmp_path / "nowhere.yml")


def test_yaml_that_builds_objects_is_not_obeyed(tmp_path):
    mark = tmp_path / "mark"
    text = BASE.replace("seed: 3", f"seed: !!python/object/apply:pathlib.Path.touch [{mark}]")
    with pytest.raises((CompressError, yaml.YAMLError)):
        load(write(tmp_path, "a.yml", text))
    assert not mark.exists()


def test_experiments_are_named_after_the_place_below_recipes(tmp_path):
    assert experiment_name(Path("recipes/icdar2015/x.yml")) == "icdar2015/x"
    assert experiment_name(Path("recipes/prune0.6.yml")) == "prune0.6"
    assert experiment_name(tmp_path / "mine.yml") == "mine"


RECIPES = Path(__file__).parents[2] / "recipes"
LINES = """
model: {name: angle}
data: {format: turned, of: {format: synthetic_lines, train: 8, val: 2, test: 2}}
augment: {noise: 1}
stages:
  - train: {name: baseline, epochs: 1}
"""


def test_the_model_says_the_task_and_the_task_what_is_in_the_sections(tmp_path):
    recipe = load(write(tmp_path, "a.yml", LINES))
    defaults = recipe.data.default_augment()
    assert recipe.augment == defaults.model_copy(update={"noise": 1})
    assert recipe.evaluate == TASKS["classification"].evaluate()
    assert recipe.latency.input == (1, 3, 48, 192), "that of a usual line"
    assert load(write(tmp_path, "b.yml", BASE)).latency.input == (1, 3, 736, 1280)
    assert load(write(tmp_path, "again.yml", recipe.dump())).model_dump(exclude={"name"}) == recipe.model_dump(exclude={"name"})


@pytest.mark.parametrize("key", ["data", "stages.baseline.data"])
def test_data_of_another_task_are_refused_with_what_fits(tmp_path, key):
    told = refused(write(tmp_path, "a.yml", LINES), f"{key}={{format: synthetic}}")
    assert "data of the format synthetic are for detection, but the model is for classification; use turned or" in told


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(set(RECIPES.rglob("*.yml")) - set(RECIPES.glob("sweeps/*"))), ids=lambda path: path.stem)
def test_every_recipe_that_comes_with_the_workbench_is_valid(path, tmp_path, monkeypatch):
    for folder in re.findall(r"alphabet: {checkpoint: (checkpoints/[^}]+)}", path.read_text()):  # which `compress convert` would have made
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.yml").write_text("model: {name: svtr_lcnet, alphabet: en}")
        monkeypatch.chdir(tmp_path)
    recipe = load(path)
    assert recipe.stages
    # Others need their data, or all images of other recipes. With a few synthetic ones layers, maps and teachers are checked too.
    if recipe.data.format == "synthetic" and all(stage.kind != "assemble" for stage in recipe.stages):
        lines = dry_run(path, ["data.train=2", "data.val=1", "data.test=1"], out=tmp_path)
        assert [line.split(":")[0] for line in lines] == [stage.name for stage in recipe.stages]


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("experiments/**/recipe.yml")), ids=lambda path: path.parent.name)
def test_recipes_of_committed_experiments_can_be_read(path):
    assert load(path).stages


@pytest.mark.slow
def test_the_english_recogniser_starts_from_another_alphabet_without_a_guide(tmp_path, monkeypatch):
    """The recipe's stages fit the checkpoint of PP-OCRv4's recogniser as it is converted, which has no guide."""
    import torch

    from compress.checkpoint import example_input, fresh, save
    from compress.converters.families import FAMILIES
    from compress.quantization.folding import fold_batch_norms
    from compress.training.weights import as_in

    family = next(family for family in FAMILIES if family.title == "PP-OCRv4 or v5 mobile recogniser")
    recipe = RECIPES / "ppocr" / "rec_en_v4.yml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    for split in ("train", "val", "test"):
        cv2.imwrite(str(tmp_path / "words" / f"{split}.png"), np.full((48, 96, 3), 200, np.uint8))
        (tmp_path / "words" / f"{split}.txt").write_text(f"{split}.png\tword\n")
    converted = fresh({**family.config, "alphabet": {"characters": "漢字" + string.ascii_letters}}, EvaluateRecognition())
    fold_batch_norms(converted.network, example_input(converted))  # as they are in PaddleOCR's file
    loaded = as_in(fresh({**converted.config, "guide": "nrtr"}, EvaluateRecognition()), converted, "converted").network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in converted.network.state_dict().items())
    save(converted, tmp_path / "checkpoints" / "ch_PP-OCRv4_rec")
    lines = dry_run(recipe, ["data.root=words"], out=tmp_path / "out")
    assert [line.split(":")[0] for line in lines] == ["chinese", "english", "recogniser", "files", "int8", "files_int8"]
    assert load(recipe).stage("recogniser").freeze == ("backbone",)


def test_students_of_pp_ocr_start_from_converted_weights():
    from compress.converters.families import FAMILIES

    family = next(family for family in FAMILIES if family.title == "PP-OCRv3 mobile detector")
    recipe = load(Path(__file__).parents[2] / "recipes" / "ppocr" / "det_cml.yml")
    assert recipe.model == family.config
    # Task, teacher and the other student in equal shares.
    cml = recipe.stage("cml")
    assert 1 - cml.weight == cml.weight == cml.mutual.weight


def test_a_teacher_is_found_beside_the_file_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    for folder in (tmp_path, tmp_path / "real"):
        write(folder, "teacher.yml", BASE)
    write(tmp_path, "base.yml", BASE + "  - distill: {name: student, from: pruned, teacher: teacher.yml, epochs: 1}\n")
    inherits = write(tmp_path / "real", "inherits.yml", "extends: ../base.yml\n")
    says = write(tmp_path / "real", "says.yml", "extends: ../base.yml\nstages: {student: {teacher: teacher.yml}}\n")
    monkeypatch.chdir(tmp_path / "real")
    assert Path(load(inherits).stage("student").teacher).resolve() == tmp_path / "teacher.yml"
    assert Path(load(says).stage("student").teacher).resolve() == tmp_path / "real" / "teacher.yml"


def test_formats_that_cannot_hold_the_model_are_refused_with_their_line(tmp_path):
    path = write(tmp_path, "a.yml", BASE.replace("formats: [onnx]", "formats: [onnx, torchscript]"))
    told = refused(path)
    assert "a.yml, line 11" in told
    assert "'int8' is quantized and torchscript cannot hold int8" in told
    assert load(write(tmp_path, "b.yml", BASE.replace("formats: [onnx]", "from: pruned, formats: [onnx, torchscript]")))


def test_a_format_without_a_row_does_not_stand_alone(tmp_path):
    float_export = BASE.replace("formats: [onnx]", "from: pruned, formats: [torch_export]")
    assert "never opened" in refused(write(tmp_path, "a.yml", float_export))
    assert load(write(tmp_path, "b.yml", float_export.replace("[torch_export]", "[torch_export, onnx]")))


def test_torch_compile_is_a_runtime_that_one_asks_for(tmp_path):
    path = write(tmp_path, "a.yml", BASE)
    assert "torch.compile" not in load(path).latency.runtimes
    assert load(path, ["latency.runtimes=[torch.compile]"]).latency.runtimes == ("torch.compile",)


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("quantize: {name: again, mode: ptq}", "'again' (quantize) needs a float model, and 'int8' has quantized what it starts from"),
        ("prune: {name: again, ratio: 0.5}", "'again' (prune) needs a float model"),
        ("simplify: {name: again}", "'again' (simplify) needs a float model"),
        ("train: {name: again, epochs: 1, group_sparsity: 0.001}", "'again' (train) needs a float model"),
        ("distill: {name: again, epochs: 1, mutual: {}}", "'again' (distill) needs a float model"),
    ],
)
def test_what_needs_a_float_model_does_not_start_from_a_quantized_one(tmp_path, stage, told):
    assert told in refused(write(tmp_path, "a.yml", BASE + f"  - {stage}\n"))
    trained_on = BASE + "  - train: {name: more, from: int8, epochs: 1}\n"
    assert told in refused(write(tmp_path, "b.yml", trained_on + f"  - {stage}\n"))
    assert load(write(tmp_path, "c.yml", BASE + f"  - {stage.replace('again', 'again, from: pruned')}\n"))


def test_a_format_that_cannot_hold_int8_is_refused_after_training_in_int8_too(tmp_path):
    text = BASE + "  - train: {name: more, from: int8, epochs: 1}\n  - export: {name: script, formats: [torchscript]}\n"
    assert "'int8' is quantized and torchscript cannot hold int8" in refused(write(tmp_path, "a.yml", text))


def test_weights_are_for_a_stage_that_starts_from_no_other(tmp_path):
    told = refused(write(tmp_path, "a.yml", BASE.replace("finetuned, epochs: 4", "finetuned, epochs: 4, weights: other")))
    assert "a.yml, line 9" in told
    assert "'finetuned' starts from 'pruned'; `weights` are for a stage that starts from no other" in told


def test_a_limit_on_a_latency_that_nothing_takes_is_refused(tmp_path):
    text = BASE.replace("baseline, epochs: 12", "baseline, epochs: 12, expect: {max_latency_ms: 5}")
    assert load(write(tmp_path, "a.yml", text))
    told = refused(write(tmp_path, "b.yml", text + "latency: {runtimes: []}\n"))
    assert "'baseline' is timed in none of latency.runtimes; name one there, or put max_latency_ms on a stage that exports it" in told
    quantized = BASE.replace("from: pruned, train", "from: pruned, expect: {max_latency_ms: 5}, train")
    assert load(write(tmp_path, "c.yml", quantized + "latency: {runtimes: [torch]}\n"))
    told = refused(write(tmp_path, "d.yml", quantized + "latency: {runtimes: [onnxruntime, openvino]}\n"))
    assert "'int8' is timed in none of latency.runtimes; name torch there" in told
