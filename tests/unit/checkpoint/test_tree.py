"""State dicts split into tensors and JSON, and put together again."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drakkar_workers.checkpoint.tree import join, split

PLAIN = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(NESTED)
def test_plain_values_come_back_as_they_were(value) -> None:
    tensors: dict[str, torch.Tensor] = {}
    told = json.loads(json.dumps(split(value, "it", tensors)))
    assert join(told, tensors) == value and not tensors


def test_an_optimizer_comes_back() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors: dict[str, torch.Tensor] = {}
    told = json.loads(json.dumps(split(optimizer.state_dict(), "optimizer", tensors)))
    assert "optimizer.state.0.exp_avg" in tensors
    other = torch.optim.AdamW(torch.nn.Linear(3, 2).parameters(), lr=0.5)
    other.load_state_dict(join(told, tensors))
    assert other.param_groups[0]["lr"] == 0.1 and other.param_groups[0]["betas"] == (0.9, 0.999)
    assert torch.equal(
        other.state_dict()["state"][0]["exp_avg"], tensors["optimizer.state.0.exp_avg"]
    )


def test_what_could_run_code_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"scheduler\.fn is a function"):
        split({"fn": test_an_optimizer_comes_back}, "scheduler", {})
