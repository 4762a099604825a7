"""A recogniser with an attention decoder through the whole chain; cut off in its training, it goes on to the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import compress
from compress import ledger
from compress.files import read_json
from compress.lab import Lab
from compress.recipe import load
from compress.training import loop

pytestmark = pytest.mark.slow
TINY = Path(__file__).parent / "tiny_attention.yml"


class CutOffError(Exception):
    pass


def test_every_stage_takes_a_decoder_and_a_cut_off_training_goes_on(tmp_path, monkeypatch):
    real = loop.train_epoch

    def cut_off_in_epoch_2(run, *rest):
        if run.epoch == 1:
            raise CutOffError
        return real(run, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_epoch", cut_off_in_epoch_2)
        with pytest.raises(CutOffError):
            compress.run(TINY, out=tmp_path / "run", quiet=True)
    compress.run(TINY, out=tmp_path / "run", quiet=True)
    recipe = load(TINY)
    recipe.stages[0].apply(None, Lab(recipe, tmp_path / "whole", torch.device("cpu"), lambda _: None, quiet=True))
    weights = [folder / "model.safetensors" for folder in (tmp_path / "run" / "baseline", tmp_path / "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    rows = {row.stage: row for row in ledger.read(tmp_path / "run")}
    assert {"baseline", "pruned", "distilled", "int8", "files_int8/onnx"} <= rows.keys()
    assert rows["pruned"].params < 0.5 * rows["baseline"].params
    assert rows["files_int8/onnx"].bytes < rows["int8"].bytes
    channels = read_json(tmp_path / "run" / "pruned" / "channels.json")
    assert channels["decoder.cell.candidate.state"] == channels["keys"] == [16, 8]
    assert channels["decoder.classifier"] == [14, 14]
