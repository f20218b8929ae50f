import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drakkar.v1alpha1.recipes import PretrainConfig
from drakkar_workers.train import optimizer
from drakkar_workers.train.checkpoint.state import prepare_optimizer

RECIPE = PretrainConfig(steps=100, warmup_steps=10, learning_rate=1.0, min_learning_rate=0.1)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.55), (100, 0.1), (500, 0.1)]
)
def test_warm_up_then_cosine(step, rate):
    assert optimizer.learning_rate(step, RECIPE) == pytest.approx(rate)


@given(steps=st.integers(1, 500), share=st.floats(0, 1), step=st.integers(0, 600))
def test_the_rate_stays_in_bounds(steps, share, step):
    recipe = PretrainConfig(steps=steps, warmup_steps=int(steps * share))
    rate = optimizer.learning_rate(step, recipe)
    assert 0 < rate <= recipe.learning_rate
    if step >= recipe.warmup_steps:
        assert rate >= recipe.min_learning_rate * (1 - 1e-12)


def test_matrices_decay_and_gains_do_not():
    layer = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.RMSNorm(4))
    adam = optimizer.build(layer, PretrainConfig(weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in adam.param_groups for p in group["params"]}
    assert decay == {id(layer[0].weight): 0.1, id(layer[1].weight): 0.0}


def test_prepared_moments_change_nothing():
    """Moments made beforehand, to be loaded into, must act like those AdamW makes itself."""
    results = []
    for prepare in (False, True):
        torch.manual_seed(0)
        layer = torch.nn.Linear(8, 8)
        adam = optimizer.build(layer, PretrainConfig())
        if prepare:
            prepare_optimizer(adam, 0)
        for _ in range(3):
            layer(torch.ones(2, 8)).square().sum().backward()
            adam.step()
            adam.zero_grad()
        results.append(layer.weight.detach().clone())
    assert torch.equal(*results)
