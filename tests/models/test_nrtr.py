"""NRTR: its blocks against torch's own Transformer, its steps one by one against all at once, and whether it learns to read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from compress.models.contract import Line, Sample
from compress.models.networks.nrtr import Decoder, EncoderBlock, Positions
from compress.models.registry import build

TINY = {
    "name": "nrtr",
    "height": 32,
    "dims": 32,
    "heads": 4,
    "hidden": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "longest": 4,
    "alphabet": "digits",
}


def attention_weights(ours, name: str) -> dict[str, torch.Tensor]:
    """The weights of one attention, fused as torch holds them."""
    linears = [linear for linear, _ in ours.packed()]
    return {
        f"{name}.in_proj_weight": torch.cat([linear.weight for linear in linears]),
        f"{name}.in_proj_bias": torch.cat([linear.bias for linear in linears]),
        f"{name}.out_proj.weight": ours.proj.weight,
        f"{name}.out_proj.bias": ours.proj.bias,
    }


def torchs(block, theirs: nn.Module, norms: int) -> nn.Module:
    """torch's own block with the same weights."""
    state = attention_weights(block.mixer, "self_attn")
    if norms == 3:
        state |= attention_weights(block.look, "multihead_attn")
    for number in range(1, norms + 1):
        state |= {f"norm{number}.{key}": value for key, value in getattr(block, f"norm{number}").state_dict().items()}
    for name, layer in (("linear1", block.feed[0]), ("linear2", block.feed[2].layer)):
        state |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs.eval()


def lively(network: nn.Module) -> nn.Module:
    """Fresh weights alone give the same characters everywhere."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return network.eval()


def test_a_block_of_the_encoder_is_torchs_own():
    torch.manual_seed(0)
    ours = lively(EncoderBlock(12, 3, 20, 0.1))
    theirs = torchs(ours, nn.TransformerEncoderLayer(12, 3, 20, 0.1, batch_first=True), 2)
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_positions_are_those_of_the_paper():
    found = Positions(6)(9)
    for place in range(9):
        for pair in range(3):
            angle = place / 10_000 ** (2 * pair / 6)
            assert found[place, 2 * pair : 2 * pair + 2].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)


def test_the_decoder_is_torchs_own_and_reads_step_by_step_what_it_is_shown():
    torch.manual_seed(0)
    ours = lively(Decoder(12, 14, 6, 12, 3, 20, 2, 0.1))
    nn.init.normal_(ours.embedding.weight)
    layers = [torchs(block, nn.TransformerDecoderLayer(12, 3, 20, 0.1, batch_first=True), 3) for block in ours.blocks]
    values, shown = torch.randn(3, 9, 12), torch.randint(1, 11, (3, 8))
    given = torch.cat([torch.full((3, 1), 11), shown[:, :5]], 1)
    x = ours.embedding(given) * 12**0.5 + ours.positions(6)
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    for layer in layers:
        x = layer(x, values, tgt_mask=mask)
    with torch.no_grad():
        torch.testing.assert_close(ours(values, shown), ours.classifier(x), rtol=1e-4, atol=1e-4)
        own = ours(values)
        assert own.diff(dim=1).abs().max() > 0.05
        torch.testing.assert_close(ours(values, own.argmax(2)), own, rtol=1e-4, atol=1e-4)


def test_it_learns_to_read_a_few_lines():
    torch.manual_seed(0)
    algorithm = build(TINY | {"dropout": 0.0})
    network = algorithm.network()
    texts = ["12", "7", "4077"]
    lines = torch.randn(3, 3, 32, 48)
    targets = {
        name: torch.from_numpy(np.stack(arrays))
        for name, arrays in {
            "characters": [algorithm.targets(Sample("a", np.zeros((32, 48, 3), np.uint8), Line(text)))["characters"] for text in texts]
        }.items()
    }
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(60):
        loss, _ = algorithm.loss(network.train()(lines, *algorithm.extra(targets)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        outputs = network.eval()(lines)
    answers = algorithm.decode({"probability": outputs["probability"].numpy()}, [(32, 48)] * 3, algorithm.settings())
    assert [answer.text for answer in answers] == texts


def test_a_line_gives_what_it_gives_alone():
    torch.manual_seed(0)
    network = lively(build(TINY).network())
    lines = torch.randn(3, 3, 32, 52)
    with torch.inference_mode():
        together = network(lines)["probability"]
        alone = torch.cat([network(line[None])["probability"] for line in lines])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_channels_that_heads_cannot_share_are_refused():
    with pytest.raises(ValueError, match=r"model\.dims: 30 channels cannot be shared out among 4 heads"):
        build(TINY | {"dims": 30})
    with pytest.raises(ValueError, match=r"model\.heads: input should be greater than or equal to 1, not 0"):
        build(TINY | {"heads": 0})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_its_files_give_what_torch_gives_at_any_width_and_batch(tmp_path):
    from compress.checkpoint import fresh
    from compress.exporters.write import write_files
    from compress.runtimes import open_file
    from compress.tasks.recognition import EvaluateRecognition

    torch.manual_seed(0)
    model = fresh(TINY, EvaluateRecognition(height=32))
    lively(model.network)
    shown = [np.random.default_rng(0).integers(0, 256, (32, 90, 3), np.uint8)]
    for _, path, _ in write_files(model, ["onnx", "openvino"], tmp_path, shown):
        runtime = open_file(tmp_path / path, threads=1)
        for batch in (1, 3):
            for width in (40, 100, 324):
                images = torch.randn(batch, 3, 32, width, generator=torch.Generator().manual_seed(width))
                with torch.inference_mode():
                    expected = model.network(images)["probability"].numpy()
                np.testing.assert_allclose(runtime.run(images.numpy())["probability"], expected, atol=1e-4)
                assert expected.std() > 0.1
