"""Logits against transformers, for every family and both backends."""

import numpy as np
import pytest
import torch

from drakkar_workers.errors import ConfigError
from drakkar_workers.hf.config import parse_config, read_config
from drakkar_workers.serve.model.backend import Batch, quantise
from drakkar_workers.serve.model.decoder import load
from drakkar_workers.serve.model.native.backend import NativeBackend
from drakkar_workers.serve.model.torch_backend import TorchBackend
from support.tiny_models import KINDS, save_tiny

PROMPT = [(7 * i * i + 3 * i) % 256 for i in range(70)]
TOLERANCE = 2e-3
"""Of logits of a standard deviation of about 10: sums in another order, in float32."""


def native(dtype=torch.float32, threads=2):
    return NativeBackend(dtype, threads)


def plain(dtype=torch.float32):
    return TorchBackend(dtype, torch.device("cpu"))


BACKENDS = {"native": native, "torch": plain}


def batch_of(pieces, blocks):
    """Pieces are (ids, first position), each a sequence whose blocks are ``blocks[i]``."""
    table = np.zeros((len(pieces), max(len(one) for one in blocks)), np.int32)
    ids, positions, slots, spans, first = [], [], [], [], 0
    for row, ((tokens, start), held) in enumerate(zip(pieces, blocks, strict=True)):
        table[row, : len(held)] = held
        at = np.arange(start, start + len(tokens), dtype=np.int32)
        ids += tokens
        positions.append(at)
        slots.append(table[row, at // 16] * 16 + at % 16)
        spans.append((row, first, len(tokens), start))
        first += len(tokens)
    return Batch(
        np.array(ids, np.int64), np.concatenate(positions), np.concatenate(slots), table,
        np.array(spans, np.int32),
    )  # fmt: skip


def decoder(folder, backend, **options):
    return load(folder, read_config(folder), backend, blocks=32, max_length=512, **options)


def spread(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_those_of_transformers(kind, backend, tmp_path):
    model = save_tiny(kind, tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0]
    one = decoder(tmp_path, BACKENDS[backend]())
    logits = one.logits(one.forward(batch_of([(PROMPT, 0)], [range(5)])))
    assert spread(logits, expected) < TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
def test_pieces_of_several_sequences_in_scattered_blocks(tiny, backend):
    one = decoder(tiny, BACKENDS[backend]())
    alone = one.logits(one.forward(batch_of([(PROMPT, 0)], [range(5)])))
    other = PROMPT[::-1]
    held = [[9, 3, 7, 12, 1], [8, 2, 30]]
    one.forward(batch_of([(PROMPT[:33], 0), (other[:20], 0)], held))
    x = one.forward(batch_of([(other[20:21], 20), (PROMPT[33:], 33)], [held[1], held[0]]))
    assert spread(one.logits(x)[1:], alone[33:]) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_kernels_give_the_same_bits_however_the_tokens_are_cut(tiny, dtype):
    one = decoder(tiny, native(dtype))
    whole = one.logits(one.forward(batch_of([(PROMPT, 0)], [range(5)])))
    for threads, cuts in ((1, (1, 2, 3, 20, 64, 69)), (2, (16, 17, 48)), (2, range(1, 70))):
        one.backend.threads = threads
        pieces, start = [], 0
        for end in (*cuts, len(PROMPT)):
            others = [([5] * 3, 0), ([6], 0)]
            held = [range(10, 15), [20], [21]]
            x = one.forward(batch_of([(PROMPT[start:end], start), *others], held))
            pieces.append(one.logits(x)[: end - start])
            start = end
        assert torch.equal(torch.cat(pieces), whole)


def test_bf16_stays_near_float32(tiny):
    exact, rough = (decoder(tiny, native(dtype)) for dtype in (torch.float32, torch.bfloat16))
    batch = batch_of([(PROMPT, 0)], [range(5)])
    expected, found = (one.logits(one.forward(batch)) for one in (exact, rough))
    assert spread(expected, found) < 0.05 * expected.std() * 10


@pytest.mark.parametrize(("bits", "error"), [("int8", 0.01), ("int4", 0.15)])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(100, 96), (64, 576), (33, 30)])
def test_quantised_products(shape, backend, bits, error):
    torch.manual_seed(0)
    weight, bias = torch.randn(shape) * torch.rand(shape[0], 1), torch.randn(shape[0])
    one = BACKENDS[backend](torch.bfloat16)
    q, scales = quantise(weight, bits)
    rounded = q * scales.repeat_interleave(64, dim=1)[:, : shape[1]]
    assert (rounded - weight).pow(2).mean().sqrt() / weight.pow(2).mean().sqrt() < error
    packed = one.pack(weight, bias, bits)
    for rows in (1, 5, 13):
        x = torch.randn(rows, shape[1]).to(torch.bfloat16)
        expected = x.float() @ rounded.T + bias
        # The torch backend rounds its product to bf16.
        assert spread(one.linear(x, packed), expected) < (1e-3 if backend == "native" else 0.3)


def test_kernels_refuse_what_they_can_not_do(tiny):
    with pytest.raises(ConfigError, match="needs dtype bfloat16"):
        decoder(tiny, native(), quantization="int8")


RAW = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 10,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "eos_token_id": [1, 2],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel is not among"),
        ({"architectures": []}, "architecture none"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_configurations_that_can_not_be_served(change, message):
    raw = {key: value for key, value in {**RAW, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        parse_config(raw)


def test_configuration_before_and_since_transformers_5():
    assert parse_config(RAW).rope == {"rope_type": "default", "rope_theta": 10000.0}
    old = parse_config({**RAW, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}})
    assert old.rope == {"rope_type": "linear", "rope_theta": 5e5, "factor": 2}
    assert old.eos_ids == (1, 2)


def test_errors_of_a_folder_name_the_file(tmp_path, tiny):
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"neither model\.safetensors nor"):
        decoder(tmp_path, plain())
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        decoder(tmp_path, plain())
