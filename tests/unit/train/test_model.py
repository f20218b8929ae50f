import dataclasses
import math

import pytest
import torch

from drakkar.v1alpha1.recipes import ModelConfig
from drakkar_workers.train.flops import (
    doubtful_peak,
    flops_per_token,
    parameter_count,
    peak_flops,
)
from drakkar_workers.train.models.decoder import Decoder, Shape, rotary, rotate

torch.set_num_threads(1)


def shape(**changes) -> Shape:
    config = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2)
    return dataclasses.replace(Shape.of(config, vocab_size=257, max_length=16), **changes)


def decoder(**changes) -> Decoder:
    torch.manual_seed(0)
    return Decoder(shape(**changes))


def test_sizes_follow_from_the_recipe():
    wide = Shape.of(ModelConfig(layers=1, hidden=256, heads=8), vocab_size=257, max_length=8)
    assert (wide.vocab, wide.kv_heads, wide.mlp_hidden, wide.head_width) == (320, 8, 704, 32)


@pytest.mark.parametrize("tie", [True, False])
def test_parameters_are_counted(tie):
    model = decoder(tie_embeddings=tie)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(model.shape)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tie


def test_names_are_those_of_llama():
    names = dict(decoder().named_parameters())
    layer = "model.layers.0"
    assert {
        "model.embed_tokens.weight",
        f"{layer}.self_attn.q_proj.weight",
        f"{layer}.self_attn.k_proj.weight",
        f"{layer}.self_attn.v_proj.weight",
        f"{layer}.self_attn.o_proj.weight",
        f"{layer}.mlp.gate_proj.weight",
        f"{layer}.mlp.up_proj.weight",
        f"{layer}.mlp.down_proj.weight",
        f"{layer}.input_layernorm.weight",
        f"{layer}.post_attention_layernorm.weight",
        "model.norm.weight",
    } <= set(names)
    assert not any("layers.2" in name or "_TE" in name for name in decoder().state_dict())


def test_a_position_sees_only_what_came_before():
    model = decoder()
    ids = torch.randint(0, 256, (1, 12))
    changed = ids.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 256
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_order_matters():
    model = decoder()
    one = model(torch.tensor([[1, 2, 3]]))[0, -1]
    other = model(torch.tensor([[2, 1, 3]]))[0, -1]
    assert not torch.allclose(one, other)


def test_the_loss_is_a_sum_in_nats_and_starts_near_that_of_a_guess():
    model = decoder()
    ids = torch.randint(0, 256, (3, 10))
    logits = model(ids[:, :-1])
    expected = -logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).sum()
    loss = model(ids[:, :-1], ids[:, 1:])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.item() / 27 == pytest.approx(math.log(model.shape.vocab), abs=0.1)


def test_rotary_scores_depend_on_distance_only():
    cos, sin = rotary(16, 8, 10_000.0)
    q, k = torch.randn(8), torch.randn(8)
    q_TE = rotate(q.expand(1, 1, 16, 8), cos, sin)[0, 0]
    k_TE = rotate(k.expand(1, 1, 16, 8), cos, sin)[0, 0]
    score_TT = q_TE @ k_TE.T
    for distance in (0, 1, 5):
        diagonal = score_TT.diagonal(-distance)
        assert diagonal.max() - diagonal.min() < 1e-4
    assert not torch.allclose(score_TT[0, 0], score_TT[5, 0])


def test_grouped_heads_equal_repeated_ones():
    grouped = decoder()
    full = decoder(kv_heads=4)
    state = grouped.state_dict()
    for name, value in state.items():
        if "k_proj" in name or "v_proj" in name:
            state[name] = value.view(2, 8, 32).repeat_interleave(2, 0).reshape(32, 32)
    full.load_state_dict(state)
    ids = torch.randint(0, 256, (2, 16))
    assert torch.allclose(grouped(ids), full(ids), atol=1e-5)


def test_bf16_autocast_is_close():
    model = decoder()
    ids = torch.randint(0, 256, (2, 16))
    exact = model(ids, ids).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, ids)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.01)


def test_flops_of_a_known_model():
    """Llama 3 8B at 8,192 tokens: 6 x 8.03e9, less the embedding, plus attention."""
    llama = Shape(
        vocab=128_256,
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        mlp_hidden=14_336,
        max_length=8192,
        rope_theta=5e5,
        tie_embeddings=False,
    )
    assert parameter_count(llama) == 8_030_261_248
    expected = 6 * (8_030_261_248 - 128_256 * 4096) + 12 * 32 * 4096 * 8192
    assert flops_per_token(llama, 8192) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "bf16", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", True, 989e12),
        ("NVIDIA H100 80GB HBM3", False, 67e12),
        ("NVIDIA H100 PCIe", True, 756e12),
        ("Tesla V100-SXM2-16GB", True, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", True, None),
        ("Graphics of tomorrow", True, None),
        ("cpu", True, None),
    ],
)
def test_peak_by_device_name(name, bf16, peak):
    assert peak_flops(name, bf16=bf16) == peak


def test_a_peak_that_nobody_confirmed_is_told():
    assert doubtful_peak("NVIDIA L40") == (
        "MFU is measured against 181 TFLOP/s (bf16) of L40, a figure that is unconfirmed in the "
        "catalogue"
    )
    for sure in ("NVIDIA H100 80GB HBM3", "cpu", "Graphics of tomorrow", "NVIDIA L40 MIG 1g.5gb"):
        assert doubtful_peak(sure) == ""
