from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from compress.checkpoint import fresh, save
from compress.errors import CompressError
from compress.lab import Lab
from compress.recipe import load
from compress.stages.train import Train
from compress.training import loop

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[2] / "end_to_end" / "tiny.yml"


class CutOffError(Exception):
    pass


def train(folder: Path, stage: Train) -> dict[str, torch.Tensor]:
    lab = Lab(load(TINY), folder, torch.device("cpu"), lambda _: None, quiet=True)
    stage.apply(None, lab)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "elapsed.json"
    }


@pytest.mark.parametrize(
    "settings",
    [{"ema": 0.9, "freeze": ["backbone"]}, {"optimizer": "sgd", "clip": 1.0, "sparsity": 1e-4, "evaluate_every": 2}],
    ids=["adamw+ema, frozen backbone", "sgd"],
)
def test_a_resumed_stage_ends_in_the_same_bytes_as_an_uninterrupted_one(tmp_path, monkeypatch, settings):
    stage = Train(name="baseline", epochs=4, batch=8, crop=96, lr=1e-2, **settings)
    whole = train(tmp_path / "whole", stage)
    real = loop.train_epoch

    def cut_off_in_epoch_3(run, *rest):
        if run.epoch == 2:
            raise CutOffError
        return real(run, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_epoch", cut_off_in_epoch_3)
        with pytest.raises(CutOffError):
            train(tmp_path / "cut", stage)
    assert (tmp_path / "cut" / loop.STATE).exists()
    assert train(tmp_path / "cut", stage) == whole


def test_a_finished_training_is_not_done_again(tmp_path, monkeypatch):
    stage = Train(name="baseline", epochs=1, batch=8, crop=96)
    first = train(tmp_path, stage)
    monkeypatch.setattr(loop, "train_epoch", lambda *_: pytest.fail("trained again"))
    assert train(tmp_path, stage) == first


def test_training_lowers_the_loss_and_sparsity_lowers_the_scales(tmp_path):
    from compress.files import read_lines

    def scales(folder: Path) -> float:
        from compress.checkpoint import load as load_checkpoint

        norms = [m for m in load_checkpoint(folder / "last").network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        return sum(float(norm.weight.detach().abs().sum()) for norm in norms)

    plain, sparse = (Train(name="a", epochs=3, batch=8, crop=96, lr=1e-2, optimizer="sgd", sparsity=value) for value in (0.0, 1e-1))
    train(tmp_path / "plain", plain)
    train(tmp_path / "sparse", sparse)
    losses = [entry["loss"] for entry in read_lines(tmp_path / "plain" / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    assert scales(tmp_path / "sparse") < 0.99 * scales(tmp_path / "plain")


def test_norms_keep_their_statistics_from_the_share_of_the_steps_that_freezes_them(tmp_path):
    from compress.files import read_tensors

    def statistics(share: float, epochs: int) -> dict[str, torch.Tensor]:
        folder = tmp_path / f"{share}_{epochs}"
        train(folder, Train(name="a", epochs=epochs, batch=8, crop=96, lr=1e-2, decay="constant", freeze_norms=share))
        tensors = read_tensors(folder / "last" / "model.safetensors")
        return {name: tensor for name, tensor in tensors.items() if "running_" in name}

    never, late, always = statistics(1, 2), statistics(0.5, 2), statistics(0, 2)
    one_epoch = statistics(1, 1)
    assert all(torch.equal(tensor, torch.full_like(tensor, float("running_var" in name))) for name, tensor in always.items())
    assert all(torch.equal(late[name], one_epoch[name]) for name in late)
    assert any(not torch.equal(never[name], late[name]) for name in late)


def test_frozen_layers_keep_weights_and_statistics_and_the_others_learn(tmp_path):
    from compress.files import read_tensors

    train(tmp_path, Train(name="a", epochs=2, batch=8, crop=96, lr=1e-2, ema=0.5, freeze=("backbone", "neck.smooths.*")))
    torch.manual_seed(load(TINY).seed)
    before = fresh(load(TINY).model, load(TINY).evaluate).network.state_dict()
    after = read_tensors(tmp_path / "last" / "model.safetensors")
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    frozen = {name for name in after if name.startswith(("backbone.", "neck.smooths."))}
    assert len(frozen) > 10
    assert not moved & frozen
    assert any(name.startswith("neck.laterals") for name in moved)
    assert any("running_mean" in name for name in moved)


def test_layers_to_freeze_must_be_there_and_others_must_be_left():
    from compress.training.frozen import check_frozen

    network = fresh(load(TINY).model, load(TINY).evaluate).network
    check_frozen(network, ("backbone",))
    with pytest.raises(CompressError, match=r"freeze: 'backbon' matches no layer; did you mean 'backbone'"):
        check_frozen(network, ("backbon",))
    with pytest.raises(CompressError, match=r"freeze: the patterns match every layer that could be trained"):
        check_frozen(network, ("*",))


def test_a_loss_that_is_not_finite_stops_the_stage_with_a_sentence(tmp_path):
    lab = Lab(load(TINY), tmp_path, torch.device("cpu"), lambda _: None, quiet=True)
    model = fresh(lab.recipe.model, lab.recipe.evaluate)

    def diverging(network, images, targets):
        loss, parts = model.algorithm.loss(network(images), targets)
        return loss * float("nan"), parts

    with pytest.raises(CompressError, match=r"loss of 'a' is not finite in epoch 1"):
        loop.fit(model, diverging, Train(name="a", epochs=2, batch=8, crop=96), lab, label="a", folder=tmp_path)


def test_a_full_disk_is_said_and_the_state_before_it_kept(tmp_path, monkeypatch):
    stage = Train(name="baseline", epochs=3, batch=8, crop=96)
    whole = train(tmp_path / "whole", stage)
    real, calls = torch.save, []

    def second_time_full(state, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(state, path)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", second_time_full)
        with pytest.raises(CompressError, match="free some disk space"):
            train(tmp_path / "full", stage)
    assert not list((tmp_path / "full").glob("*.tmp"))
    assert train(tmp_path / "full", stage) == whole
    shutil.rmtree(tmp_path / "full")


def test_initial_weights_of_torchvisions_names_load_and_others_are_refused(tmp_path):
    from compress.tasks.detection import EvaluateDetection as Evaluate
    from compress.training.weights import start_from

    config = {"name": "db", "backbone": "resnet18", "neck": {"name": "fpn", "channels": 32}}
    donor, model = fresh(config, Evaluate()), fresh(config, Evaluate())
    weights = {**donor.network.backbone.state_dict(), "fc.weight": torch.zeros(10, 512)}
    torch.save(weights, tmp_path / "resnet18.pth")
    start_from(model, str(tmp_path / "resnet18.pth"))
    assert torch.equal(model.network.backbone.conv1.weight, donor.network.backbone.conv1.weight)
    del weights["layer4.1.conv2.weight"]
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(CompressError, match=r"lacks layer4\.1\.conv2\.weight"):
        start_from(model, str(tmp_path / "other.pth"))


def test_the_backbone_of_another_model_is_a_start_and_the_layers_behind_its_end_stay_fresh(tmp_path, capfd):
    from compress.tasks.detection import EvaluateDetection as Evaluate
    from compress.training.weights import start_from

    craft = fresh({"name": "craft", "width": 0.125}, Evaluate())
    save(craft, tmp_path / "craft")
    config = {"name": "db", "backbone": {"name": "vgg16_bn", "width": 0.125}, "neck": {"name": "fpn", "channels": 32}}
    model = fresh(config, Evaluate())
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    start_from(model, str(tmp_path / "craft" / "model.safetensors"))
    given = {name: tensor for name, tensor in craft.network.state_dict().items() if name.startswith("backbone.")}
    after = model.network.state_dict()
    assert len(given) > 80
    assert all(torch.equal(after[name], tensor) for name, tensor in given.items())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if name not in given)
    assert "ends before features.40.weight: what is behind starts fresh" in capfd.readouterr().err
    wider = fresh({**config, "backbone": {"name": "vgg16_bn", "width": 0.25}}, Evaluate())
    with pytest.raises(CompressError, match=r"features\.0\.weight is \(8, 3, 3, 3\) there, not \(16, 3, 3, 3\)"):
        start_from(wider, str(tmp_path / "craft" / "model.safetensors"))
    another = fresh({**config, "backbone": "resnet18"}, Evaluate())
    with pytest.raises(CompressError, match=r"lacks conv1\.weight"):
        start_from(another, str(tmp_path / "craft" / "model.safetensors"))


def test_a_pickle_that_is_more_than_weights_is_refused_unopened(tmp_path):
    from compress.tasks.detection import EvaluateDetection as Evaluate
    from compress.training.weights import start_from

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "mark",))

    torch.save({"conv1.weight": Hostile()}, tmp_path / "hostile.pth")
    model = fresh({"name": "db", "backbone": "resnet18", "neck": {"name": "fpn", "channels": 32}}, Evaluate())
    with pytest.raises(CompressError, match="weights alone"):
        start_from(model, str(tmp_path / "hostile.pth"))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("archive", [True, False])
def test_damaged_weights_are_refused_by_name_or_hold_tensors(tmp_path, archive):
    """Both ways in which torch has written .pth files."""
    from random import Random

    from compress.training.weights import read_state_dict

    path, random = tmp_path / "resnet18.pth", Random(0)
    torch.save({"conv1.weight": torch.ones(4, 3), "bn1.bias": torch.zeros(4)}, path, _use_new_zipfile_serialization=archive)
    whole, refused = path.read_bytes(), []
    for turn in range(300):
        data = bytearray(whole[: random.randrange(len(whole)) if turn % 3 == 0 else None])
        for _ in range(random.randint(1, 4) if turn % 3 and data else 0):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(data)
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_state_dict(path).values())
        except CompressError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all(str(path) in sentence for sentence in refused)
    with pytest.raises(CompressError, match="is a folder"):
        read_state_dict(tmp_path)


def test_stages_of_one_run_may_train_in_different_precisions(tmp_path):
    for precision in ("fp32", "bf16"):
        train(tmp_path / precision, Train(name="a", epochs=1, batch=4, crop=64, precision=precision))


def test_temperature_divides_the_logits_and_moves_no_region():
    from compress.training.weights import soften

    lab = Lab(load(TINY), Path(), torch.device("cpu"), lambda _: None, quiet=True)
    model = fresh(lab.recipe.model, lab.recipe.evaluate)
    images = torch.randn(1, 3, 64, 64)
    before = model.network.eval()(images)["probability"].logit()
    soften(model, 4.0)
    torch.testing.assert_close(model.network(images)["probability"].logit(), before / 4, atol=1e-4, rtol=1e-4)


def test_temperature_is_of_the_norm_that_gives_the_logits_and_not_of_what_it_reads():
    from compress.tasks.recognition import EvaluateRecognition
    from compress.training.weights import soften

    torch.manual_seed(0)
    guide = {"name": "nrtr", "dims": 16, "heads": 2, "hidden": 16, "layers": 1, "longest": 5}
    config = {"name": "crnn", "sequence": "none", "head": "conv_ctc", "alphabet": "digits", "guide": guide}
    model = fresh(config, EvaluateRecognition(height=32))
    lines = torch.randn(4, 3, 32, 64)
    model.network.train()(lines)  # statistics that are not those of a fresh norm
    model.network.eval()
    guided = next(layer for name, layer in model.network.named_modules() if name.endswith("guide.layer.decoder.classifier"))
    weights = guided.weight.detach().clone()
    with torch.no_grad():
        before = model.network(lines)["probability"].log()
        soften(model, 8.0)
        after = model.network(lines)["probability"].log()
    torch.testing.assert_close(after, (before / 8).log_softmax(2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(guided.weight.detach(), weights / 8)
