"""A sweep file: what its keys mean, and what is refused in one sentence before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.errors import CompressError
from compress.sweeps import settings
from compress.sweeps.points import points
from compress.sweeps.trials import Job, new_trial, overrides_of, values_of

ROOT = Path(__file__).parents[3]
RECIPE = """
model: {name: db, backbone: {name: mobilenet_v3_small, width: 0.5}, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 8, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
stages:
  - train: {name: baseline, epochs: 2, batch: 4, crop: 64}
  - prune: {name: pruned, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64}
  - export: {name: files, formats: [onnx]}
"""


@pytest.fixture
def sweep(tmp_path):
    """Reads a sweep of the small recipe whose other lines are given."""
    (tmp_path / "small.yml").write_text(RECIPE)

    def read(text: str) -> settings.Sweep:
        (tmp_path / "sweep.yml").write_text(f"recipe: small.yml\n{text}\n")
        return settings.read(tmp_path / "sweep.yml")

    return read


def test_a_grid_is_every_combination_in_the_order_of_the_file(sweep):
    read = sweep("space:\n  stages.pruned.ratio: {from: 0.2, to: 0.4, step: 0.1}\n  stages.pruned.criterion: [l1, l2]")
    found = [tuple(values_of(read, point).values()) for point in points(read)]
    assert found == [(ratio, name) for ratio in (0.2, 0.3, 0.4) for name in ("l1", "l2")]


def test_a_range_of_whole_numbers_with_a_step_gives_whole_numbers(sweep):
    read = sweep("space:\n  stages.baseline.epochs: {from: 2, to: 9, step: 3}")
    assert read.space["stages.baseline.epochs"] == (2, 5, 8)
    assert all(isinstance(value, int) for value in read.space["stages.baseline.epochs"])


@pytest.mark.slow  # Ray is loaded
def test_random_points_are_different_within_their_ranges_and_the_same_again(sweep):
    pytest.importorskip("ray")
    text = (
        "search: random\ntrials: 40\nspace:\n  stages.pruned.ratio: {from: 0.2, to: 0.4}\n  stages.baseline.epochs: {from: 1, to: 3}\n"
        "  stages.baseline.lr: {from: 1.0e-4, to: 1.0e-2, log: true}\n  stages.pruned.criterion: [l1, l2]"
    )
    found = points(sweep(text))
    assert found == points(sweep(text))
    assert found != points(sweep(f"{text}\nseed: 1"))
    assert len({str(point) for point in found}) == 40
    assert {point["stages.baseline.epochs"] for point in found} == {1, 2, 3}, "both ends count"
    assert {point["stages.pruned.criterion"] for point in found} == {0, 1}
    assert all(0.2 <= point["stages.pruned.ratio"] <= 0.4 and 1e-4 <= point["stages.baseline.lr"] <= 1e-2 for point in found)
    assert 5 < sum(point["stages.baseline.lr"] < 1e-3 for point in found) < 35, "as many below the middle factor as above"


@pytest.mark.slow  # Ray is loaded
def test_a_space_with_fewer_points_than_trials_gives_each_once(sweep):
    pytest.importorskip("ray")
    found = points(sweep("search: random\ntrials: 20\nspace:\n  stages.pruned.ratio: [0.2, 0.3, 0.4]"))
    assert sorted(point["stages.pruned.ratio"] for point in found) == [0, 1, 2]


def test_a_trial_is_named_after_what_its_recipe_says(sweep, tmp_path):
    read = sweep("space:\n  stages.pruned.ratio: [0.3, 0.5]")
    job = Job(read, (), tmp_path, str(tmp_path), Path.cwd())
    names = [new_trial(job, point, None)["trial"] for point in points(read)]
    assert len(set(names)) == 2
    assert [new_trial(job, point, None)["trial"] for point in points(read)] == names
    assert new_trial(job, points(read)[0], 1)["trial"] not in names
    (tmp_path / "small.yml").write_text(RECIPE.replace("epochs: 2", "epochs: 3"))
    assert new_trial(job, points(read)[0], None)["trial"] not in names


def test_values_of_all_kinds_reach_the_recipe(sweep, tmp_path):
    read = sweep("space:\n  stages.baseline.crop: [64, [64, 96]]\n  stages.pruned.protect: [[], ['head.*']]")
    job = Job(read, ("seed=3",), tmp_path, str(tmp_path), Path.cwd())
    loaded = settings.recipes.load(Path(read.recipe), overrides_of(job, values_of(read, points(read)[3]), 7))
    assert loaded.stage("baseline").crop == (64, 96)
    assert loaded.stage("pruned").protect == ("head.*",)
    assert loaded.seed == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("space: {}", r"`space` is empty"),
        ("space:\n  stages.pruned.ratio: []", r"line 3: space\.stages\.pruned\.ratio: give a list"),
        ("space:\n  stages.pruned.ratoi: [0.5]", r"line 3: space.*did you mean 'ratio'"),
        ("space:\n  stages.prune.ratio: [0.5]", r"there is no stage 'prune'.*did you mean 'pruned'"),
        ("space:\n  stages.pruned.ratio: [2, 3]", r"space\.stages\.pruned\.ratio: .*less than 1"),
        ("space:\n  stages.pruned.ratio: {from: 0.5, to: 0.2}", r"nothing lies between 0\.5 and 0\.2"),
        ("space:\n  stages.pruned.ratio: {from: 0.2, to: 0.5}", r"a grid needs a list, or a `step`"),
        ("search: random\ntrials: 2\nspace:\n  stages.baseline.lr: {from: 0.0, to: 0.5, log: true}", "above 0"),
        ("search: tpe\nspace:\n  stages.pruned.ratio: [0.5]", r"line \d+: search: tpe needs `trials`"),
        ("trials: 4\nspace:\n  stages.pruned.ratio: [0.5]", "leave `trials` out"),
        ("search: nsga2\ntrials: 4\nseeds: [0, 1]\nspace:\n  stages.pruned.ratio: [0.5]", "takes one seed"),
        ("space:\n  seed: [0, 1]", "write seeds as `seeds"),
        ("space:\n  stages.pruned.ratio: [0.5]\nlimits: {max_drop: 2}", r"write 2 % as 0\.02"),
        ("space:\n  stages.pruned.ratio: [0.5]\nlimits: {max_latency_ms: 0}", r"limits\.max_latency_ms: input should be greater than 0"),
        ("space:\n  stages.pruned.ratio: [0.5]\nlimits: {max_byte: 5}", "did you mean 'max_bytes'"),
        ("space:\n  stages.pruned.ratio: [0.5]\nobjectives: [speed]", "objectives.0: input should be 'score'"),
        ("space:\n  stages.pruned.ratio: [0.5]\nrow: file/onnx", "no stage 'file'.*did you mean 'files'"),
        ("space:\n  stages.pruned.ratio: [0.5]\nstop: {asha: {stage: pruned}}", "no stage 'pruned' trains"),
        ("space:\n  stages.pruned.ratio: [0.5]\nstop: {asha: {grace: 2}}", "no trial would be stopped early"),
        ("spcae:\n  stages.pruned.ratio: [0.5]", "did you mean 'space'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence_with_its_place(sweep, text, told):
    with pytest.raises(CompressError, match=told) as caught:
        sweep(text)
    assert len(str(caught.value).splitlines()) == 1


def test_a_value_that_some_trials_cannot_run_with_is_left_to_them(sweep):
    assert sweep("space:\n  stages.pruned.ratio: [0.5, 2]").space == {"stages.pruned.ratio": (0.5, 2)}


@pytest.mark.parametrize("name", ["latency_budget", "mini", "ratios", "seeds"])
def test_the_sweeps_that_come_with_the_workbench_fit_their_recipes(name):
    read = settings.read(ROOT / "recipes" / "sweeps" / f"{name}.yml")
    assert read.row == ("files/onnx" if name == "mini" else "files_int8/openvino")
    assert read.search != "grid" or len(points(read)) * max(1, len(read.seeds)) in (6, 11, 14)


PIPELINE = """
model: {name: reader}
data: {format: synthetic, train: 2, val: 2, test: 2, size: 96}
stages:
  - assemble: {name: files, detector: detector, recogniser: recogniser}
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("space:\n  evaluate.drop_score: [0.0, 0.5]\nobjectives: [macs]", "line 4: objectives: .* of a pipeline are not counted"),
        ("space:\n  stages.files.detector.ratio: [0.5]", r"stages\.files\.detector: input should be a valid string"),
        ("space:\n  stages.baseline.lr: [0.5]", "there is no stage 'baseline'"),
    ],
)
def test_of_a_pipeline_its_own_keys_are_varied(sweep, tmp_path, text, told):
    (tmp_path / "small.yml").write_text(PIPELINE)
    read = sweep("space:\n  evaluate.drop_score: [0.0, 0.5]\n  stages.files.detector: [detector, other.yml]")
    assert len(points(read)) == 4
    with pytest.raises(CompressError, match=told):
        sweep(text)
