from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compress.checkpoint import Model, fresh
from compress.lab import Lab
from compress.recipe import load

TINY = Path(__file__).parents[2] / "end_to_end" / "tiny.yml"


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(load(TINY), tmp_path, torch.device("cpu"), lambda _: None, quiet=True)


@pytest.fixture
def tiny_model(lab) -> Model:
    """Untrained, with batch-norm scales that differ, as after training."""
    torch.manual_seed(0)
    model = fresh(lab.recipe.model, lab.recipe.evaluate)
    for module in model.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.1, 1.0)
    return model
