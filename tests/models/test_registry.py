"""From the `model` section of a recipe to an algorithm, and what is said about mistakes in it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import fields
from functools import partial

import pytest

from compress.models.contract import Algorithm
from compress.models.db import LossWeights
from compress.models.registry import BACKBONES, MODELS, NECKS, build, check_parts


def read(config) -> None:
    """What reading a recipe does with its `model` section."""
    build(config)
    check_parts(config)


def test_a_name_alone_gives_the_defaults() -> None:
    for config in ("db", {"name": "db"}):
        algorithm = build(config)
        assert isinstance(algorithm, Algorithm)
        assert algorithm.copies == {"probability": "dice", "binary": "dice"}
        assert set(algorithm.tunable) == {"bin_threshold", "box_threshold", "unclip_ratio"}
        assert set(algorithm.tunable) <= {field.name for field in fields(algorithm.settings)}


def test_keywords_reach_their_parts() -> None:
    algorithm = build(
        {
            "name": "db",
            "backbone": {"name": "resnet18"},
            "neck": {"name": "fpn", "channels": 64},
            "steepness": 30,
            "loss": {"threshold": 5.0},
            "shrink_ratio": 0.5,
        }
    )
    network = algorithm.network()
    assert network.neck.channels == 64
    assert network.backbone.channels == (64, 128, 256, 512)
    assert network.steepness == 30
    assert algorithm.loss.keywords == {"weights": LossWeights(threshold=5.0)}
    assert algorithm.targets.keywords == {"shrink_ratio": 0.5}


@pytest.mark.parametrize("name", ["angle", "craft", "db", "pan", "psenet", "sast"])
def test_every_model_says_by_what_its_images_are_normalised(name) -> None:
    algorithm = build({"name": name, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    assert (algorithm.input.mean, algorithm.input.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    with pytest.raises(ValueError, match=r"model\.std"):
        build({"name": name, "std": [0.4, 0.5, 0.0]})


def test_every_name_in_the_tables_has_its_factory() -> None:
    from importlib import import_module

    for table in (MODELS, BACKBONES, NECKS):
        for name, module in table.items():
            assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("config", [{"name": "db", "backbone": name} for name in BACKBONES])
def test_building_does_not_change_what_it_is_given(config: dict) -> None:
    before = dict(config)
    build(config)
    assert config == before


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "bd"}, ["model", "'bd'", "known are angle, craft, crnn, db"]),
        ({"name": "db", "bckbone": "resnet18"}, ["model.bckbone", "did you mean 'backbone'"]),
        ({"name": "db", "backbone": "resnet51"}, ["model.backbone", "'resnet51'", "resnet50"]),
        ({"name": "db", "backbone": "zzz"}, ["model.backbone", "mobilenet_v3_small", "resnet18"]),
        ({"name": "db", "backbone": {"name": "resnet18", "depth": 3}}, ["model.backbone.depth"]),
        ({"name": "db", "neck": {"name": "fpn", "chanels": 96}}, ["model.neck.chanels", "did you mean 'channels'"]),
        ({"name": "db", "neck": {"name": "fpn", "inputs": [1]}}, ["model.neck.inputs"]),
        ({"name": "db", "neck": {"name": "fpn", "channels": 97}}, ["model.neck.channels", "multiple of 4", "97"]),
        ({"name": "db", "neck": {"name": "fpn", "channels": 0}}, ["model.neck.channels", "0"]),
        ({"name": "db", "neck": {"name": "fpn", "channels": -4}}, ["model.neck.channels", "-4"]),
        ({"name": "db", "neck": {"name": "fpn", "channels": "96"}}, ["model.neck.channels", "'96'"]),
        ({"name": "db", "neck": {"name": "fpn", "channels": True}}, ["model.neck.channels", "True"]),
        ({"name": "db", "neck": {"channels": 96}}, ["model.neck", "name"]),
        ({"name": "db", "neck": None}, ["model.neck", "None"]),
        ({"name": "db", "steepness": 0}, ["model.steepness", "0"]),
        ({"name": "db", "steepness": float("nan")}, ["model.steepness", "nan"]),
        ({"name": "db", "shrink_ratio": 1.0}, ["model.shrink_ratio", "less than 1"]),
        ({"name": "db", "loss": {"binry": 1.0}}, ["model.loss.binry", "did you mean 'binary'"]),
        ({"name": "db", "loss": {"binary": -1.0}}, ["model.loss.binary", "-1.0"]),
        ({"name": "db", "loss": 3}, ["model.loss", "3"]),
        ({"name": "psenet", "stride": 3}, ["model.stride", "1, 2 or 4", "3"]),
        ({"name": "psenet", "kernels": 1}, ["model.kernels", "1"]),
        ({"name": "psenet", "neck": {"name": "fpn", "smooth_channels": 0}}, ["model.neck.smooth_channels", "0"]),
        ({"name": "pan", "loss": {"kernal": 0.5}}, ["model.loss.kernal", "did you mean 'kernel'"]),
        ({"name": "pan", "neck": {"name": "fpem_ffm", "repeats": 0}}, ["model.neck.repeats", "0"]),
        ({"name": "sast", "loss": {"tvos": 0.5}}, ["model.loss.tvos", "did you mean 'tvo'"]),
        ({"name": "sast", "centre_ratio": 0}, ["model.centre_ratio", "0"]),
        ({"name": "sast", "neck": {"name": "cab_fpn", "blocks": -1}}, ["model.neck.blocks", "-1"]),
        ({}, ["model", "name"]),
        ({"backbone": "resnet18"}, ["model", "name"]),
        ({"name": 3}, ["model", "name"]),
        (None, ["model", "name"]),
    ],
)
def test_mistakes_are_named_with_their_place(config, words: list[str]) -> None:
    with pytest.raises(ValueError, match="model") as caught:
        read(config)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_nothing_outside_the_tables_is_imported(tmp_path, monkeypatch) -> None:
    """`model.yml` may come from anybody: its `name` must not make the workbench import, let alone call, anything else."""
    (tmp_path / "hostile.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("hostile:build", "hostile", "subprocess:run"):
        with pytest.raises(ValueError, match="is not known"):
            build({"name": name})


@pytest.mark.parametrize("part", [{"backbone": {"name": "resnet18", "depth": 3}}, {"neck": {"name": "fpn", "channels": 97}}])
def test_a_network_is_not_built_with_what_its_parts_do_not_have(part: dict) -> None:
    algorithm = build({"name": "db", **part})
    with pytest.raises(ValueError, match=r"model\.(backbone\.depth|neck\.channels)"):
        algorithm.network()


def test_the_parts_of_somebody_elses_model_are_not_ours_to_check() -> None:
    check_parts("db")
    check_parts({"name": "my_module:build", "backbone": {"name": "mine"}, "neck": 3})


def test_algorithms_are_built_without_torch() -> None:
    code = f"""
import sys
from compress.models.registry import build
for name in {sorted(MODELS)}:
    build(name)
sys.exit("torch" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_another_process_needs_of_an_algorithm_can_be_sent_there(name: str) -> None:
    algorithm = build(name)
    for part in (algorithm.network, algorithm.targets, algorithm.loss, algorithm.decode):
        sent = pickle.loads(pickle.dumps(part))
        if isinstance(part, partial):
            assert (sent.func, sent.args, sent.keywords) == (part.func, part.args, part.keywords)
        else:
            assert sent is part
