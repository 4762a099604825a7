"""CRNN: shapes, the direction of its LSTMs, exported files at several sizes, and whether it learns to read."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from torch import nn

from compress.models.contract import Line, Sample
from compress.models.registry import LINE_BACKBONES, LINES_OF_48, SEQUENCES, build, check_parts
from compress.models.sequences.bilstm import BiLSTM


def small(**changed):
    config = {"name": "crnn", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "sequence": {"name": "bilstm", "hidden": 8}}
    return build({**config, "alphabet": "digits", **changed})


def shapes(algorithm, sizes):
    network = algorithm.network().eval()
    with torch.inference_mode():
        outputs = [network(torch.randn(2, 3, *size)) for size in sizes]
    assert all(list(output) == ["probability"] for output in outputs)
    for output in outputs:
        torch.testing.assert_close(output["probability"].sum(2), torch.ones(output["probability"].shape[:2]))
    return [tuple(output["probability"].shape) for output in outputs]


@pytest.mark.parametrize("name", sorted(LINE_BACKBONES.keys() - LINES_OF_48.keys()))
def test_a_step_is_four_pixels_wide_at_any_height(name):
    algorithm = small(backbone={"name": name, "width": 0.25})
    assert algorithm.input.multiple == (16, 4)
    assert shapes(algorithm, [(32, 100), (48, 320), (48, 64)]) == [(2, 25, 11), (2, 80, 11), (2, 16, 11)]


@pytest.mark.parametrize("name", sorted(LINES_OF_48))
def test_a_step_is_eight_pixels_wide_of_lines_48_pixels_high(name):
    algorithm = small(backbone=name if "v4" in name else {"name": name, "width": 0.25})
    assert algorithm.input.multiple == (48, 8)
    assert shapes(algorithm, [(48, 72), (48, 96)]) == [(2, 9, 11), (2, 12, 11)]


@pytest.mark.parametrize("name", sorted(SEQUENCES))
def test_every_sequence_model_reads_the_columns_of_a_mobilenet(name):
    assert shapes(small(sequence=name), [(32, 64)]) == [(2, 16, 11)]


def test_what_is_wrong_in_a_recipe_is_named():
    with pytest.raises(ValueError, match=r"model\.backbone: 'resnet43' is not known; did you mean 'resnet34'"):
        small(backbone="resnet43")
    with pytest.raises(ValueError, match=r"model\.sequence\.hiden is not known; did you mean 'hidden'"):
        check_parts({"name": "crnn", "sequence": {"name": "bilstm", "hiden": 8}})
    with pytest.raises(ValueError, match=r"model\.head: 'attn' is not known; did you mean 'attention'"):
        small(head="attn")
    with pytest.raises(ValueError, match=r"model\.head\.longest: input should be greater than or equal to 1, not 0"):
        small(head={"name": "attention", "longest": 0})
    with pytest.raises(ValueError, match=r"model\.alphabet: 'English'"):
        small(alphabet="English")


def test_what_it_names_of_itself_is_there():
    algorithm = small()
    names = [name for name, _ in algorithm.network().named_modules()]
    for pattern in (*algorithm.features, *algorithm.kept_layers):
        assert any(fnmatchcase(name, pattern) for name in names)
    outputs = algorithm.network().train()(torch.zeros(2, 3, 32, 64))
    assert set(algorithm.copies) <= set(outputs)
    torch.testing.assert_close(outputs["logits"].softmax(2), outputs["probability"])
    assert algorithm.alphabet.characters == "0123456789"


def test_the_two_directions_are_those_of_a_bidirectional_lstm():
    torch.manual_seed(0)
    ours, theirs = BiLSTM(6, 5), torch.nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    weights = {
        f"{kind}_l0{end}": getattr(layer, f"{kind}_l0")
        for end, layer in (("", ours.forwards), ("_reverse", ours.backwards))
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    theirs.load_state_dict(weights)
    images = torch.randn(3, 7, 6)
    torch.testing.assert_close(ours(images), theirs(images)[0])


def test_a_convolutional_head_is_a_linear_layer_of_each_step_and_a_norm():
    torch.manual_seed(0)
    network = small(sequence="none", head="conv_ctc").network().eval()
    convolution, norm = network.head
    nn.init.uniform_(norm.running_mean)
    images = torch.randn(2, 3, 32, 64)
    with torch.inference_mode():
        steps = network.sequence(network.backbone(images))
        logits = steps @ convolution.weight[:, :, 0, 0].T + convolution.bias - norm.running_mean
        torch.testing.assert_close(network(images)["probability"], logits.softmax(2), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["ctc", {"name": "attention", "hidden": 32, "longest": 4}])
def test_it_learns_where_digits_stand(head):
    rng = np.random.default_rng(0)
    glyphs = rng.normal(0, 1, (10, 3, 32, 16)).astype(np.float32)
    texts = ["".join(map(str, rng.integers(0, 10, 4))) for _ in range(12)]
    images = torch.from_numpy(np.stack([np.concatenate([glyphs[int(one)] for one in text], 2) for text in texts]))
    torch.manual_seed(0)
    algorithm = small(sequence={"name": "bilstm", "hidden": 32, "layers": 1}, head=head)
    blank = np.zeros((32, 64, 3), np.uint8)
    made = [algorithm.targets(Sample("line", blank, Line(text))) for text in texts]
    targets = {name: torch.from_numpy(np.stack([one[name] for one in made])) for name in made[0]}
    network = algorithm.network().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(80):
        loss, _ = algorithm.loss(network(images, *algorithm.extra(targets)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.05:
            break
    network.training = False  # a decoder is shown nothing now; norms stay as they were trained
    outputs = network(images)["probability"].detach().numpy()
    read = [one.text for one in algorithm.decode({"probability": outputs}, [(32, 64)] * 12, None)]
    assert read == texts
