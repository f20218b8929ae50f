"""Experts against the plainest form of the same: each token by itself."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from drakkar.v1alpha1.recipes import ExpertsConfig, ModelConfig
from drakkar_workers.train.flops import active_parameter_count, flops_per_token, parameter_count
from drakkar_workers.train.models.decoder import Decoder, Shape
from drakkar_workers.train.models.experts import balance, mixtures, take_load

torch.set_num_threads(1)


def shape(**changes) -> Shape:
    experts = ExpertsConfig(count=8, active=2, hidden=16, **changes)
    config = ModelConfig(layers=2, hidden=32, heads=4, experts=experts)
    return Shape.of(config, vocab_size=257, max_length=16)


def decoder(**changes) -> Decoder:
    torch.manual_seed(0)
    return Decoder(shape(**changes))


def one_by_one(layer, x_ND):
    """What the layer says to each token, expert by expert."""
    said = []
    for x_D in x_ND:
        scores_G = (layer.gate.weight @ x_D).sigmoid()
        chosen = (scores_G + layer.gate.e_score_correction_bias).topk(2).indices
        total = sum(scores_G[g] for g in chosen)
        y_D = layer.shared_experts(x_D[None])[0] if layer.shared_experts else torch.zeros_like(x_D)
        for g in chosen:
            inner = F.silu(layer.experts.gate_proj[g] @ x_D) * (layer.experts.up_proj[g] @ x_D)
            y_D = y_D + scores_G[g] / total * (layer.experts.down_proj[g] @ inner)
        said.append(y_D)
    return torch.stack(said)


@pytest.mark.parametrize("shared", [0, 2])
def test_every_token_gets_what_its_experts_say(shared):
    layer = mixtures(decoder(shared=shared))[0]
    layer.gate.e_score_correction_bias[3] = 0.05
    for parameter in layer.parameters():
        parameter.data.mul_(20)
    x = torch.randn(2, 12, 32)
    found, expected = layer(x), one_by_one(layer, x.flatten(0, 1)).view_as(x)
    assert torch.allclose(found, expected, atol=1e-5)
    for output in (found, expected):
        output.square().sum().backward()
        gradients = [p.grad.clone() for p in layer.parameters()]
        layer.zero_grad()
        if output is found:
            before = gradients
    for one, other in zip(before, gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_the_first_layers_can_be_dense():
    model = decoder(dense_layers=1)
    assert len(mixtures(model)) == 1
    assert mixtures(model)[0] is model.blocks[1].mlp


@pytest.mark.parametrize("changes", [{}, {"shared": 0}, {"dense_layers": 1, "shared": 3}])
def test_all_and_active_parameters_are_counted(changes):
    model = decoder(**changes)
    total = sum(p.numel() for p in model.parameters())
    assert parameter_count(model.shape) == total
    idle = sum(p.numel() for m in mixtures(model) for p in m.experts.parameters()) * 6 // 8
    assert active_parameter_count(model.shape) == total - idle


def test_flops_are_of_active_experts_alone():
    few = shape()
    more = dataclasses.replace(few, experts=64)
    routers = 6 * 2 * 32 * (64 - 8)
    assert flops_per_token(more, 16) - flops_per_token(few, 16) == routers


def test_the_bias_evens_the_load_out():
    """A router that prefers some experts is corrected within some hundred steps."""
    model = decoder()
    layer = mixtures(model)[0]
    x_BTD = torch.randn(4, 64, 32) + 0.5
    layer.gate.weight.data.mul_(10)
    excesses = []
    for _ in range(200):
        layer(x_BTD)
        load = take_load([layer])
        assert load.sum() == 4 * 64 * 2
        excesses.append(balance([layer], load, 0.01))
    assert excesses[0] > 0.5
    assert sum(excesses[-10:]) / 10 < 0.3 * excesses[0]


def test_evaluation_does_not_count():
    layer = mixtures(decoder())[0]
    with torch.no_grad():
        layer(torch.randn(1, 4, 32))
    layer.eval()(torch.randn(1, 4, 32))
    assert take_load([layer]).sum() == 0


def test_bf16_autocast_is_close():
    model = decoder()
    ids = torch.randint(0, 256, (2, 16))
    exact = model(ids, ids).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, ids)
    loss.backward()
    assert loss.item() == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("how", ["selective", "full"])
def test_recomputation_changes_nothing(how):
    ids = torch.randint(0, 256, (2, 16))
    gradients = []
    for recompute in ("none", how):
        model = decoder()
        for layer in model.blocks:
            layer.recompute = recompute
        model(ids, ids).backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
