"""How tokens are drawn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_workers.serve.engine.request import Sampling
from drakkar_workers.serve.engine.sampling import Row, sample, uniform


def draw(logits, count=4000, **fields):
    """Frequencies of the tokens over many draws."""
    rows = [Row(Sampling(**fields), number) for number in range(count)]
    tokens, _ = sample(torch.tensor([logits] * count, dtype=torch.float32), rows)
    return np.bincount(tokens, minlength=len(logits)) / count


def shares(logits):
    e = np.exp(np.array(logits) - max(logits))
    return e / e.sum()


LOGITS = [2.0, 1.0, 0.0, -1.0, -9.0]


@pytest.mark.parametrize(
    ("fields", "allowed", "temperature"),
    [
        ({}, [0, 1, 2, 3, 4], 1.0),
        ({"temperature": 2.0}, [0, 1, 2, 3, 4], 2.0),
        ({"top_k": 2}, [0, 1], 1.0),
        ({"top_p": 0.8}, [0, 1], 1.0),
        ({"top_p": 0.1}, [0], 1.0),
        ({"min_p": 0.3}, [0, 1], 1.0),
        ({"top_k": 3, "top_p": 0.9}, [0, 1], 1.0),
        ({"top_k": 3, "top_p": 0.92}, [0, 1, 2], 1.0),
        ({"top_k": 100, "min_p": 0.1}, [0, 1, 2], 1.0),
    ],
    ids=str,
)
def test_draws_follow_the_distribution(fields, allowed, temperature):
    expected = shares([x / temperature for x in LOGITS])
    expected[[i for i in range(5) if i not in allowed]] = 0
    found = draw(LOGITS, **fields)
    assert np.abs(found - expected / expected.sum()).max() < 0.03
    assert (found[expected == 0] == 0).all()


def test_top_p_beyond_the_likeliest():
    """A flat distribution, where the first 256 tokens do not reach the share."""
    logits = [0.0] * 1000
    assert (draw(logits, count=3000, top_p=0.9) > 0).sum() > 600


def test_rows_do_not_influence_each_other():
    fields = [{"temperature": 0.0}, {"top_p": 0.5, "seed": 3}, {"seed": 4}, {"top_k": 1, "seed": 5}]
    rows = [Row(Sampling(**one), 0) for one in fields]
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    together, _ = sample(logits.clone(), rows)
    alone = [sample(logits[i : i + 1].clone(), [row])[0][0] for i, row in enumerate(rows)]
    assert together == alone


def test_penalties():
    logits = [3.0, 2.9, -1.0]
    prompt, output = [0], [1, 1]

    def after(**fields):
        one = torch.tensor([logits])
        sample(one, [Row(Sampling(temperature=0.0, **fields), 2, prompt, output)])
        return one[0].tolist()

    assert after(repetition_penalty=2.0) == pytest.approx([1.5, 1.45, -1.0])
    assert after(presence_penalty=0.5) == pytest.approx([3.0, 2.4, -1.0])
    assert after(frequency_penalty=0.5) == pytest.approx([3.0, 1.9, -1.0])


def test_masks_and_forbidden_tokens_never_come():
    mask = np.array([False, True, True, True, True])
    rows = [Row(Sampling(), i, mask=mask, forbidden=(1,)) for i in range(500)]
    tokens, _ = sample(torch.tensor([LOGITS] * 500), rows)
    assert {0, 1}.isdisjoint(tokens)


@given(st.integers(0, 2**63), st.integers(0, 10**6))
def test_draws_are_in_the_unit_interval(seed, number):
    assert 0 <= uniform(seed, number) < 1


def test_draws_are_even_and_unrelated():
    values = np.array([[uniform(seed, number) for number in range(100)] for seed in range(100)])
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(values.var() - 1 / 12) < 0.01
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.05


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=400),
    st.floats(0.01, 5),
    st.integers(0, 20),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.integers(0, 100),
)
def test_some_token_with_a_share_is_always_drawn(logits, temperature, top_k, top_p, min_p, seed):
    fields = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    tokens, _ = sample(torch.tensor([logits]), [Row(Sampling(seed=seed, **fields), 0)])
    value = logits[tokens[0]]
    if top_k:
        assert sum(other > value for other in logits) < top_k
    if min_p > 0:
        assert value >= max(logits) + temperature * math.log(min_p) - 1e-3
