import random

import numpy as np
import pytest
import torch

from drakkar_workers.train.checkpoint.state import RandomState, Staging, seed_all


def draw() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()


def test_random_generators_come_back_through_json():
    seed_all(3)
    draw()
    np.random.randn()  # Leaves half a pair of normals behind in the generator.
    state = RandomState.capture(torch.device("cpu")).dump()
    after = draw(), float(np.random.randn())
    seed_all(4)
    RandomState.load(state).restore(torch.device("cpu"))
    assert (draw(), float(np.random.randn())) == after


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"torch_cpu": ""}'])
def test_foreign_content_is_refused(content):
    with pytest.raises((ValueError, TypeError)):
        RandomState.load(content)


def test_seeding_repeats():
    seed_all(1)
    first = draw()
    seed_all(1)
    assert draw() == first


def test_staging_copies_and_reuses_its_buffers():
    staging = Staging()
    weight = torch.ones(4)
    copy = staging.copy({"w": weight})["w"]
    weight.add_(1)
    assert copy.tolist() == [1.0] * 4
    again = staging.copy({"w": weight})["w"]
    assert again.data_ptr() == copy.data_ptr() and again.tolist() == [2.0] * 4
