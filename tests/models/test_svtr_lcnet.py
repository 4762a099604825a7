"""PP-OCR's recognisers: shapes, attention against torch's own, and what they say of themselves."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch

from compress.models.contract import Line, Sample
from compress.models.multihead import Attention
from compress.models.registry import LINES_OF_48, build, check_parts
from compress.models.sequences.svtr import HEADS

STRIDE = 8  # pixels of width for a step


@pytest.mark.parametrize("backbone", sorted(LINES_OF_48.keys() - {"pphgnet_small_lines"}))
@pytest.mark.parametrize("sequence", ["light_svtr", "separable", "svtr"])
def test_every_sequence_on_every_backbone_gives_a_step_for_eight_pixels(backbone, sequence):
    network = build({"name": "svtr_lcnet", "backbone": backbone, "sequence": sequence, "alphabet": "digits"}).network().eval()
    with torch.inference_mode():
        probability = network(torch.randn(2, 3, 48, 72))["probability"]
    assert probability.shape == (2, 72 // STRIDE, 11)
    torch.testing.assert_close(probability.sum(2), torch.ones(2, 72 // STRIDE))


def test_attention_is_torchs_own():
    torch.manual_seed(0)
    ours, theirs = Attention(32, HEADS).eval(), torch.nn.MultiheadAttention(32, HEADS, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    x = torch.randn(2, 7, 32)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_a_line_gives_what_it_gives_alone():
    torch.manual_seed(0)
    network = build({"name": "svtr_lcnet", "alphabet": "digits"}).network().eval()
    lines = torch.randn(3, 3, 48, 96)
    with torch.inference_mode():
        together = network(lines)["probability"]
        alone = torch.cat([network(line[None])["probability"] for line in lines])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_what_it_names_of_itself_is_there():
    algorithm = build({"name": "svtr_lcnet", "alphabet": "digits"})
    network = algorithm.network()
    names = [name for name, _ in network.named_modules()]
    for pattern in (*algorithm.features, *algorithm.kept_layers):
        assert any(fnmatchcase(name, pattern) for name in names)
    outputs = network.train()(torch.randn(2, 3, 48, 64))
    assert set(algorithm.copies) <= set(outputs)
    targets = algorithm.targets(Sample("a", np.zeros((48, 64, 3), np.uint8), Line("112")))
    assert targets["text"].shape == (64 // STRIDE,)
    loss, _ = algorithm.loss(outputs, {name: torch.from_numpy(np.stack([value, value])) for name, value in targets.items()})
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_what_is_wrong_in_a_recipe_is_named():
    with pytest.raises(ValueError, match=r"model\.sequence: 'svt' is not known; did you mean 'svtr'"):
        build({"name": "svtr_lcnet", "sequence": "svt"})
    with pytest.raises(ValueError, match=r"model\.sequence\.dims: input should be a multiple of 8, not 100"):
        check_parts({"name": "svtr_lcnet", "sequence": {"name": "svtr", "dims": 100}})
