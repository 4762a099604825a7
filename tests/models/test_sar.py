"""SAR: the map of its backbone, and its decoder against torch's own LSTM cells, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.models.backbones.resnet31 import resnet31
from compress.models.networks.sar import Decoder
from compress.models.registry import build, check_parts


def test_the_backbone_gives_an_eighth_of_the_height_and_a_quarter_of_the_width():
    network = resnet31(0.125).eval()
    for height, width in ((48, 160), (32, 100)):
        with torch.inference_mode():
            assert network(torch.randn(2, 3, height, width)).shape == (2, 64, height // 8, width // 4)
    convolutions = [module for module in resnet31(0.125).modules() if isinstance(module, nn.Conv2d)]
    assert sum(layer.kernel_size == (3, 3) for layer in convolutions) == 2 + 2 * (1 + 2 + 5 + 3) + 4


@pytest.mark.slow
def test_the_published_model_has_its_size():
    network = build("sar").network()
    assert sum(parameter.numel() for parameter in network.backbone.parameters()) == pytest.approx(46.0e6, rel=0.01)
    assert [network.encoder.first.hidden_size, network.keys.out_channels, network.decoder.steps] == [512, 512, 30]
    assert network.decoder.classifier.weight.shape == (95 + 4, 1024)


def test_what_is_wrong_in_a_recipe_is_named():
    with pytest.raises(ValueError, match=r"model\.backbone: 'resnet34' is not known; did you mean 'resnet31'"):
        build({"name": "sar", "backbone": "resnet34"})
    with pytest.raises(ValueError, match=r"model\.backbone\.widht is not known; did you mean 'width'"):
        check_parts({"name": "sar", "backbone": {"name": "resnet31", "widht": 1.0}})


@pytest.mark.parametrize("shown", [torch.tensor([[1, 2, 3, 4, 5], [3, 3, 1, 5, 0]]), None])
@torch.no_grad()
def test_its_decoder_step_by_step(shown):
    torch.manual_seed(0)
    channels, size, hidden, classes, start = 4, 5, 6, 7, 4
    decoder = Decoder(channels, size, hidden, classes, 5)
    for parameter in decoder.parameters():
        nn.init.normal_(parameter)
    cells = []
    for ours in (decoder.first, decoder.second):
        cells.append(nn.LSTMCell(hidden, hidden))
        gates = [ours.admit, ours.forget, ours.candidate, ours.reveal]
        for name, kind, place in (("weight_ih", "weight", "input"), ("weight_hh", "weight", "state")):
            getattr(cells[-1], name).copy_(torch.cat([getattr(getattr(gate, place), kind) for gate in gates]))
        cells[-1].bias_ih.copy_(torch.cat([gate.input.bias for gate in gates]))
        cells[-1].bias_hh.copy_(torch.cat([gate.state.bias for gate in gates]))
    encoding, values, keys = torch.randn(2, hidden), torch.randn(2, 9, channels), torch.randn(2, 9, size)
    expected = []
    for row in range(2):
        states = [None, None]

        def read(x, states):
            states[0] = cells[0](x, states[0])
            states[1] = cells[1](states[0][0], states[1])

        read(encoding[row : row + 1], states)
        last, logits = start, []
        for step in range(5):
            read(decoder.embedding.weight[[last]], states)
            state = states[1][0][0]
            scores = [
                decoder.attention.score.layer.weight[0] @ torch.tanh(key + decoder.attention.query.weight @ state) for key in keys[row]
            ]
            weights = torch.stack(scores).softmax(0)
            seen = sum(weight * value for weight, value in zip(weights, values[row], strict=True))
            logits.append(decoder.classifier(torch.cat([state, seen])))
            last = int(logits[-1].argmax()) if shown is None else int(shown[row, step])
        expected.append(torch.stack(logits))
    found = decoder(encoding, values, keys, shown)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert found.std(1).max() > 0.1
