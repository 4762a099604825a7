"""What would only fail after hours of training, or run for ever, is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.checkpoint import example_input, fresh, save
from compress.errors import CompressError
from compress.experiment import dry_run
from compress.quantization.folding import fold_batch_norms
from compress.quantization.nncf_torch import config_json, quantize
from compress.tasks.detection import EvaluateDetection

RECIPE = """
seed: 1
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 2, val: 1, test: 1, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages:
  - train: {name: baseline, epochs: 1, batch: 2, crop: 64}
  - prune: {name: pruned, ratio: 0.5, batches: 1, batch: 2, crop: 64}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "small.yml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("latency.input=[1, 3, 720, 1280]", "multiple of 32"),
        ("latency.input=[1, 3, -64, 64]", "greater than or equal to 1"),
        ("latency.input=[-1, 3, 64, 64]", "greater than or equal to 1"),
        ("latency.input=[0, 3, 64, 64]", "greater than or equal to 1"),
        ("latency.input=[1, 4096, 64, 64]", "less than or equal to 16"),
        ("latency.input=[1024, 3, 16384, 16384]", "megapixels are too many"),
        ("latency.threads=1000000", "less than or equal to 256"),
        ("latency.rounds=1e9", "integer"),
        ("stages.baseline.lr=10", "less than or equal to 1"),
        ("stages.baseline.lr=.nan", "stages.baseline.lr"),
        ("stages.baseline.lr=-1.0", "greater than 0"),
        ("stages.baseline.warmup=.inf", "finite"),
        ("stages.baseline.warmup=-1", "greater than or equal to 0"),
        ("stages.baseline.ema=1", "less than 1"),
        ("stages.baseline.freeze=[backbon]", "freeze: 'backbon' matches no layer"),
        ("stages.baseline.epochs=1000000000", "less than or equal to"),
        ("stages.baseline.batch=1000000000", "less than or equal to"),
        ("stages.baseline.crop=100", "multiple"),
        ("stages.baseline.crop=100000", "less than or equal to 4096"),
        ("stages.baseline.workers=100000", "less than or equal to 64"),
        ("stages.pruned.ratio=.nan", "stages.pruned.ratio"),
        ("stages.pruned.round_to=100000000", "stages.pruned.round_to"),
        ("stages.pruned.batches=0", "greater than or equal to 1"),
        ("model.neck.channels=100000", "channels"),
        ("model.neck.channels=0", "channels"),
        ("model.neck.channels=-3", "channels"),
        ("seed=", "seed must be a whole number"),
        ("seed=-1", "seed must be a whole number"),
        ("evaluate.short_side=0", "evaluate.short_side"),
        ("evaluate.short_side=100000000", "evaluate.short_side"),
        ("data.size=1000000", "data.size"),
        ("data.train=0", "data.train"),
    ],
)
def test_settings_that_nothing_could_come_of(recipe, tmp_path, override, told):
    with pytest.raises(CompressError) as refused:
        dry_run(recipe, [override], out=tmp_path / "out")
    assert told in str(refused.value)
    assert len(str(refused.value)) < 400
    assert not (tmp_path / "out").exists()


def test_a_quantized_checkpoint_is_refused_where_a_float_one_is_needed(recipe, tmp_path):
    model = fresh({"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 16}}, EvaluateDetection())
    images = example_input(model)
    fold_batch_norms(model.network, images)
    network = quantize(model.network, [images], images)
    save(model.with_network(network, config_json(network)), tmp_path / "int8")
    stages = RECIPE.partition("  - train:")[0]
    pruned = "  - prune: {name: pruned, ratio: 0.5, batches: 1, batch: 2, crop: 64}\n"
    trained = "  - train: {name: more, epochs: 1, batch: 2, crop: 64}\n"
    for between in ("", trained):
        recipe.write_text(f"{stages}  - load: {{name: loaded, checkpoint: {tmp_path / 'int8'}}}\n{between}{pruned}")
        with pytest.raises(CompressError, match=r"stage 'pruned': it needs a float model, and '(loaded|more)' is quantized"):
            dry_run(recipe, out=tmp_path / "out")
    recipe.write_text(stages + trained)
    with pytest.raises(CompressError, match=r"weights: .*int8 holds a quantized model; give the float one"):
        dry_run(recipe, [f"stages.more.weights={tmp_path / 'int8'}"], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"device": "gpu"}, "--device gpu is not known"),
        ({"store": "foo://bar"}, "foo"),
        ({"store": "file"}, "file"),
    ],
)
def test_a_dry_run_checks_the_device_and_the_store(recipe, tmp_path, options, told):
    (tmp_path / "file").write_text("")
    given = {key: str(tmp_path / value) if value == "file" else value for key, value in options.items()}
    with pytest.raises(CompressError, match=told):
        dry_run(recipe, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_list_and_a_model_that_an_override_gives_are_not_blamed_on_the_file(recipe, tmp_path):
    with pytest.raises(CompressError, match=r"^-o latency\.input=\[1, 3, 64\]: latency\.input\.3"):
        dry_run(recipe, ["latency.input=[1, 3, 64]"], out=tmp_path / "out")
    with pytest.raises(CompressError, match=r"^small\.yml, line 3 with -o model\.neck\.channels=-3: "):
        dry_run(recipe, ["model.neck.channels=-3"], out=tmp_path / "out")


def test_a_batch_of_one_image_without_anything_to_normalise_over(recipe, tmp_path):
    with pytest.raises(CompressError, match="stage 'baseline': a batch of one image cannot be normalised"):
        dry_run(recipe, ["stages.baseline.batch=1", "stages.baseline.crop=32"], out=tmp_path / "out")


@pytest.mark.parametrize("name", ["''", "' '", ".", "..", "a/b", "/a", "true", "null", "[1]", "CON\\0", "a" * 300])
def test_names_of_stages_that_no_folder_can_have(recipe, tmp_path, name):
    recipe.write_text(RECIPE.replace("name: baseline", f"name: {name}" if "\\" not in name else f'name: "{name}"'))
    with pytest.raises(CompressError, match="name"):
        dry_run(recipe, out=tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_largest_learning_rate_trains_or_says_that_the_loss_is_not_finite(recipe, tmp_path, optimizer):
    import compress

    told = "not finite"
    try:
        compress.run(recipe, ["stages.baseline.lr=1.0", f"stages.baseline.optimizer={optimizer}"], out=tmp_path / "out", quiet=True)
    except CompressError as refused:
        told = str(refused)
    assert "not finite" in told
