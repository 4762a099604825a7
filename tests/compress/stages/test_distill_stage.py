"""The stage `distill` on tiny networks: what its loss is made of, who learns, what is kept, and that a kill changes nothing."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from compress.checkpoint import Model, fresh, load, load_weights, save
from compress.errors import CompressError
from compress.files import read_lines, read_tensors
from compress.lab import Lab
from compress.models.contract import Input
from compress.recipe import load as load_recipe
from compress.stages.distill import Distill
from compress.tasks.detection import EvaluateDetection as Evaluate
from compress.training import loop
from compress.training.distillation import channel_wise, dilated, soft_dice
from compress.training.features import Adapters, paired_levels
from compress.training.lessons import lessons
from compress.training.modes import show_all_maps
from compress.training.peers import fresh_like, perturbed, second_student

pytestmark = pytest.mark.slow

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 8, val: 3, test: 2, size: 64}
evaluate: {short_side: 64, bin_threshold: 0.2, box_threshold: 0.1}
stages:
  - train: {name: baseline, epochs: 1}
"""
SCHEDULE = {"name": "distilled", "epochs": 2, "batch": 4, "crop": 64, "lr": 3e-3, "precision": "fp32"}
TEACHERS = {"wide": 1, "other": 2}
LEVELS = ("neck.smooths.*",)


def student(seed: int = 0, channels: int = 16, backbone: str = "mobilenet_v3_small") -> Model:
    torch.manual_seed(seed)
    return fresh({"name": "db", "backbone": backbone, "neck": {"name": "fpn", "channels": channels}}, Evaluate(short_side=64))


def teacher(name: str = "wide") -> Model:
    return student(TEACHERS[name], 24)


def twin(model: Model) -> Model:
    return model.with_network(copy.deepcopy(model.network))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.yml"
    path.write_text(RECIPE)
    return load_recipe(path)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def targets():
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(2, 1, 64, 64, generator=generator).round() for name in ("shrink", "shrink_mask", "threshold", "threshold_mask")
    }


def distill(folder: Path, recipe, opened=teacher, start: Model | None = None, **settings) -> Lab:
    lab = Lab(recipe, folder, torch.device("cpu"), opened, quiet=True)
    Distill(**{**SCHEDULE, **settings}).apply(start or student(), lab)
    return lab


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "elapsed.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_short_form_trains_exactly_as_its_formula(tmp_path, recipe):
    frozen = teacher()
    frozen.network.requires_grad_(False)
    show_all_maps(frozen.network)
    start = student()

    def objective(network, images, targets):
        outputs = network(images)
        task, parts = start.algorithm.loss(outputs, targets)
        with torch.no_grad():
            wanted = frozen.network(images)
        response = soft_dice(outputs["probability"], wanted["probability"]) + soft_dice(outputs["binary"], wanted["binary"])
        return (1 - 0.9) * task + 0.9 * response, {**parts, "response": response.detach()}

    lab = Lab(recipe, tmp_path / "plain", torch.device("cpu"), teacher, quiet=True)
    loop.fit(start, objective, Distill(**SCHEDULE, teacher="wide"), lab, label="plain", folder=lab.folder)
    distill(tmp_path / "stage", recipe, teacher="wide")
    assert contents(tmp_path / "stage") == contents(tmp_path / "plain")


def test_a_teacher_twice_is_the_teacher_once_and_another_beside_it_is_not(tmp_path, recipe):
    found = {}
    for name, teachers in (("one", "wide"), ("list", ["wide"]), ("twice", ["wide", "wide"]), ("two", ["wide", "other"])):
        distill(tmp_path / name, recipe, teacher=teachers, epochs=1, feature={"layers": LEVELS})
        found[name] = contents(tmp_path / name)
    assert found["one"] == found["list"] == found["twice"]
    assert found["one"] != found["two"]


def test_all_terms_together_are_their_weighted_sum_for_both_students(images, targets):
    stage = Distill(
        **SCHEDULE,
        teacher=["wide", "other"],
        weight=0.7,
        response={"maps": {"probability": 2.0, "binary": 0.5}, "dilate": 2},
        feature={"weight": 3.0, "tau": 2.0, "layers": LEVELS},
        mutual={"weight": 0.25, "maps": {"binary": 1.5}},
    )
    pair, teachers = [student(0), student(5)], [teacher("wide"), teacher("other")]
    levels = paired_levels(pair[0], teachers[0], LEVELS, LEVELS)
    adapters = Adapters(levels, 2)
    before = [twin(one) for one in pair]
    for one in (*pair, *before):
        one.network.train()
    loss, parts = lessons(stage, pair, teachers, levels)([pair[0].network, pair[1].network, adapters], images, targets)

    with torch.no_grad():
        maps, features = zip(*(plain_run(one, images) for one in before), strict=True)
        for one in teachers:
            show_all_maps(one.network)
        taught, wanted = plain_run(teachers[0], images)
        also, _ = plain_run(teachers[1], images)
        expected = 0.0
        for mine, peers, own, prefix in ((0, 1, 0, ""), (1, 0, 1, "peer_")):
            task, _ = before[0].algorithm.loss(maps[mine], targets)
            mean = {name: dilated((taught[name] + also[name]) / 2, 2) for name in ("probability", "binary")}
            response = 2 * soft_dice(maps[mine]["probability"], mean["probability"]) + 0.5 * soft_dice(maps[mine]["binary"], mean["binary"])
            pairs = zip(adapters.students[own], features[mine], wanted, strict=True)
            feature = sum(channel_wise(adapt(level), goal, 2.0) for adapt, level, goal in pairs) / 4
            mutual = 1.5 * soft_dice(maps[mine]["binary"], maps[peers]["binary"])
            assert float(parts[prefix + "response"]) == pytest.approx(float(response), rel=1e-5)
            assert float(parts[prefix + "feature"]) == pytest.approx(float(feature), rel=1e-4)
            assert float(parts[prefix + "mutual"]) == pytest.approx(float(mutual), rel=1e-5)
            expected += float(0.3 * task + 0.7 * response + 3 * feature + 0.25 * mutual)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def plain_run(model: Model, images: torch.Tensor):
    kept = []
    handles = [smooth.register_forward_hook(lambda _module, _inputs, output: kept.append(output)) for smooth in model.network.neck.smooths]
    maps = model.network(images)
    for handle in handles:
        handle.remove()
    return maps, kept


def test_the_gradient_reaches_the_students_and_the_adapters_alone(images, targets):
    stage = Distill(**SCHEDULE, teacher="wide", feature={"layers": LEVELS}, mutual={})
    pair, teachers = [student(0), student(5)], [teacher()]
    levels = paired_levels(pair[0], teachers[0], LEVELS, LEVELS)
    adapters = Adapters(levels, 2)
    statistics = copy.deepcopy(teachers[0].network.state_dict())
    for one in pair:
        one.network.train()
    loss, _ = lessons(stage, pair, teachers, levels)([*(one.network for one in pair), adapters], images, targets)
    loss.backward()
    for module in (*(one.network for one in pair), adapters):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
        assert any(parameter.grad.abs().sum() > 0 for parameter in module.parameters())
    assert all(parameter.grad is None for parameter in teachers[0].network.parameters())
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in teachers[0].network.state_dict().items())
    assert not any(module.training for module in teachers[0].network.children())


def test_a_student_learns_from_its_peer_but_not_through_it(images, targets):
    """The gradient of one student is that of its own loss with the other's maps as constants."""
    stage, pair = Distill(**SCHEDULE, mutual={"weight": 2.0}), [student(0), student(5)]
    for one in pair:
        one.network.train()
    alone = twin(pair[0])
    with torch.no_grad():
        constant = twin(pair[1]).network.train()(images)
    lessons(stage, pair, [], None)([one.network for one in pair], images, targets)[0].backward()
    maps = alone.network(images)
    task, _ = alone.algorithm.loss(maps, targets)
    (task + 2 * (soft_dice(maps["probability"], constant["probability"]) + soft_dice(maps["binary"], constant["binary"]))).backward()
    for (name, parameter), plain in zip(pair[0].network.named_parameters(), alone.network.parameters(), strict=True):
        assert torch.allclose(parameter.grad, plain.grad, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize(
    "settings",
    [
        {"teacher": "wide", "feature": {"layers": LEVELS}, "ema": 0.9},
        {"mutual": {}, "clip": 1.0},
        {"teacher": ["wide", "other"], "response": {"dilate": 2}, "feature": {}, "mutual": {"peer": "fresh"}, "ema": 0.9},
    ],
    ids=["adapters", "peer", "all"],
)
def test_a_resumed_stage_ends_in_the_same_bytes(tmp_path, recipe, monkeypatch, settings):
    distill(tmp_path / "whole", recipe, **settings)
    real, states = loop.train_epoch, []

    def cut_off_in_epoch_2(run, *rest):
        if run.epoch == 1:
            states.append(len(run.modules))
            raise KeyboardInterrupt
        return real(run, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_epoch", cut_off_in_epoch_2)
        with pytest.raises(KeyboardInterrupt):
            distill(tmp_path / "cut", recipe, **settings)
    state = torch.load(tmp_path / "cut" / loop.STATE, weights_only=True)
    assert len(state["modules"]) == states[0] == 1 + ("feature" in settings) + ("mutual" in settings)
    distill(tmp_path / "cut", recipe, **settings)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_two_finished_students_are_not_trained_again(tmp_path, recipe, monkeypatch):
    distill(tmp_path, recipe, mutual={}, epochs=1)
    before = contents(tmp_path)
    monkeypatch.setattr(loop, "train_epoch", lambda *_: pytest.fail("trained again"))
    distill(tmp_path, recipe, mutual={}, epochs=1)
    assert contents(tmp_path) == before


def test_adapters_are_in_no_checkpoint_and_learn(tmp_path, recipe, monkeypatch):
    trained = []
    real = loop.fit_together

    def noted(models, beside, *rest, **more):
        trained.extend((module, copy.deepcopy(module.state_dict())) for module in beside)
        real(models, beside, *rest, **more)

    monkeypatch.setattr(loop, "fit_together", noted)
    distill(tmp_path, recipe, teacher="wide", feature={}, epochs=1)
    assert read_tensors(tmp_path / "model.safetensors").keys() == student().network.state_dict().keys()
    ((adapters, before),) = trained
    assert len(before) == 4
    assert all(not torch.equal(tensor, before[name]) for name, tensor in adapters.state_dict().items())


@pytest.mark.parametrize("hmeans", [(0.2, 0.6), (0.6, 0.2), (0.4, 0.4)], ids=["peer", "student", "equal"])
def test_the_better_student_is_kept_and_the_other_has_its_row(tmp_path, recipe, monkeypatch, hmeans):
    calls = []

    def score(*_):
        calls.append(1)
        hmean = hmeans[len(calls) % 2 - 1]
        return {"precision": hmean, "recall": hmean, "hmean": hmean}

    monkeypatch.setattr(Lab, "evaluate", score)
    lab = distill(tmp_path, recipe, mutual={}, epochs=1)
    better, other = ("peer", "student") if hmeans[1] > hmeans[0] else ("student", "peer")
    for name in ("model.safetensors", "model.yml", "metrics.jsonl", "last/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / better / name).read_bytes()
    assert (tmp_path / "student" / "model.safetensors").read_bytes() != (tmp_path / "peer" / "model.safetensors").read_bytes()
    assert [(row["suffix"], row["path"], row["val_score"]) for row in lab.artefacts] == [
        ("", ".", max(hmeans)),
        ("last", "last", max(hmeans)),
        (other, other, min(hmeans)),
        (f"{other}/last", f"{other}/last", min(hmeans)),
    ]
    assert {"peer_mutual", "mutual", "peer_binary"} <= read_lines(tmp_path / "metrics.jsonl")[0].keys()


def test_clipping_one_student_does_not_depend_on_the_other(tmp_path, recipe):
    """With the smallest weight of the mutual term, each student trains as if alone, though both are clipped."""
    distill(tmp_path / "pair", recipe, mutual={"weight": 1e-12}, clip=0.5, epochs=1)
    start = student()
    lab = Lab(recipe, tmp_path / "alone", torch.device("cpu"), teacher, quiet=True)
    alone = Distill(**{**SCHEDULE, "epochs": 1}, mutual={}, clip=0.5)
    loop.fit(start, lambda network, *rest: start.algorithm.loss(network(rest[0]), rest[1]), alone, lab, label="a", folder=lab.folder)
    one, other = (read_tensors(tmp_path / name / "model.safetensors") for name in ("pair/student", "alone"))
    assert all(torch.allclose(tensor, other[name], atol=1e-5) for name, tensor in one.items())


def narrowed(model: Model) -> Model:
    """As pruning leaves it: fewer channels in one of the inner layers."""
    weights = model.network.state_dict()
    for name in [name for name in weights if name.startswith(("probability.conv.", "threshold.conv."))]:
        weights[name] = weights[name][:3] if weights[name].dim() else weights[name]
    for branch in ("probability", "threshold"):
        weights[f"{branch}.up1.0.weight"] = weights[f"{branch}.up1.0.weight"][:3]
    load_weights(model.network, weights, Path("memory"))
    return model


@pytest.mark.parametrize("make", [perturbed, fresh_like])
def test_a_second_student_has_the_widths_of_a_pruned_one_and_weights_by_the_seed(make, images):
    model = narrowed(student())
    one, again, other = make(model, 3), make(model, 3), make(model, 4)
    here, twin, apart = (peer.network.state_dict() for peer in (one, again, other))
    assert {name: tensor.shape for name, tensor in here.items()} == {name: t.shape for name, t in model.network.state_dict().items()}
    assert all(torch.equal(tensor, twin[name]) for name, tensor in here.items())
    assert not torch.equal(here["probability.conv.0.weight"], apart["probability.conv.0.weight"])
    assert not torch.equal(here["probability.conv.0.weight"], model.network.state_dict()["probability.conv.0.weight"])
    one.network.eval()(images)


def test_the_perturbation_is_a_tenth_of_each_tensors_spread_and_spares_norms():
    model = student()
    before, after = model.network.state_dict(), perturbed(model, 0).network.state_dict()
    wide = [name for name, tensor in before.items() if tensor.dim() > 1 and tensor.numel() > 2000]
    assert len(wide) > 10
    for name in wide:
        assert float((after[name] - before[name]).std() / before[name].std()) == pytest.approx(0.1, rel=0.1)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items() if tensor.dim() <= 1)


def test_a_checkpoint_is_a_peer_if_its_widths_are_the_students(tmp_path):
    model, same = narrowed(student()), narrowed(student(5))
    save(same, tmp_path / "same")
    save(student(5), tmp_path / "wider")
    peer = second_student(model, str(tmp_path / "same"), 0, load)
    assert torch.equal(peer.network.state_dict()["neck.smooths.0.0.weight"], same.network.state_dict()["neck.smooths.0.0.weight"])
    with pytest.raises(CompressError, match="wider has other layers or widths than the student"):
        second_student(model, str(tmp_path / "wider"), 0, load)
    with pytest.raises(CompressError, match="same is the student itself"):
        second_student(same, str(tmp_path / "same"), 0, load)
    model.quantization = "{}"
    with pytest.raises(CompressError, match="starts from a float model"):
        second_student(model, "perturbed", 0, load)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "name a `teacher`, or `mutual`"),
        ({"mutual": {}, "feature": {}}, "`response` and `feature` need a `teacher`"),
        ({"mutual": {}, "response": {"dilate": 2}}, "`response` and `feature` need a `teacher`"),
        ({"teacher": "wide", "weight": 0}, "the teacher has no part in the loss"),
        ({"teacher": "wide", "response": {"maps": {"binry": 1}}}, "response.maps: there is no map 'binry' to copy; did you mean 'binary'"),
        ({"mutual": {"maps": {"threshold": 1}}}, "mutual.maps: there is no map 'threshold' to copy"),
        ({"teacher": "wide", "feature": {"layers": ["nek.smooths.*"]}}, "feature.layers: 'nek.smooths.*' matches no layer"),
        ({"mutual": {"peer": "other.yml"}}, "mutual.peer: other.yml is a recipe"),
    ],
)
def test_what_the_student_has_not_is_refused_before_any_work(settings, told):
    with pytest.raises(CompressError) as caught:
        Distill(**SCHEDULE, **settings).check(student())
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"feature": {"teacher_layers": ["backbone.layer5"]}}, "in the teacher 'backbone.layer5' matches no layer; did you mean 'backbone"),
        ({"feature": {"layers": ["neck.smooths.0"], "teacher_layers": ["backbone.layer*"]}}, "cannot be held against 4 of the teacher"),
        ({"mutual": {"peer": "teacher"}}, "mutual.peer: teacher is of another architecture"),
    ],
)
def test_what_the_teacher_has_not_is_refused_before_any_work(settings, told):
    stage = Distill(**SCHEDULE, teacher="teacher", **settings)
    stage.check(student())
    with pytest.raises(CompressError) as caught:
        stage.check_others(student(), {"teacher": student(0, 16, "resnet18")})
    assert told in str(caught.value)


def test_features_of_any_layers_can_be_compared_without_the_response(tmp_path, recipe):
    """Weight 0: the task and the features alone; the backbone's last block against one with another name and width."""
    feature = {"layers": ["backbone.blocks.10"], "teacher_layers": ["backbone.layer4"], "weight": 2.0}
    distill(tmp_path, recipe, lambda _: student(1, 16, "resnet18"), teacher="any", weight=0, feature=feature, epochs=1)
    entry = read_lines(tmp_path / "metrics.jsonl")[0]
    assert "response" not in entry
    task = 10 * entry["threshold"] + entry["probability"] + entry["binary"]
    assert entry["loss"] == pytest.approx(task + 2 * entry["feature"], rel=1e-4)


def test_a_teacher_is_shown_images_as_it_was_trained_to_see_them(images, targets):
    """The same images, in 0..1, whatever each of the two models takes away from them and divides them by."""
    other = teacher()
    seen = []
    other.network.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    swapped = dataclasses.replace(student().algorithm, input=Input(mean=(0.406, 0.456, 0.485), std=(0.225, 0.224, 0.3)))
    pupil = dataclasses.replace(student(), algorithm=swapped)
    stage = Distill(teacher="wide", **SCHEDULE)
    lessons(stage, [pupil], [other], None)([pupil.network], images, targets)
    lessons(stage, [student()], [other], None)([student().network], images, targets)

    def in_0_to_1(given, algorithm):
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (algorithm.input.mean, algorithm.input.std))
        return given * std + mean

    torch.testing.assert_close(in_0_to_1(seen[0], other.algorithm), in_0_to_1(images, swapped))
    assert seen[1] is images


def test_a_weight_of_one_number_is_not_perturbed_into_none():
    model = fresh({"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn_asf", "channels": 32}}, Evaluate())
    peer = perturbed(model, 1)
    assert all(bool(tensor.isfinite().all()) for tensor in peer.network.state_dict().values())
