"""A device that computes wrongly now and then is found by its own gradients."""

import pytest
import torch
from torch import nn

from drakkar_workers.errors import TrainingError
from drakkar_workers.train import replay


class Faulty(torch.autograd.Function):
    """The identity, whose gradient has one wrong bit at the second pass."""

    passes = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Faulty.passes += 1
        if Faulty.passes == 2:
            gradient = gradient.clone()
            gradient.view(-1).view(torch.int32)[3] ^= 1 << 20
        return gradient


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 4))


def test_equal_passes_leave_nothing_behind() -> None:
    made, x = model(), torch.randn(16, 8)
    state = torch.get_rng_state()
    replay.check(made, lambda: made(x).square().sum(), "rank 0, step 1")
    assert torch.equal(torch.get_rng_state(), state), "the training's random numbers are its own"
    assert all(not p.grad.any() for p in made.parameters())


def test_one_wrong_bit_is_named() -> None:
    made, x = model(), torch.randn(16, 8)
    Faulty.passes = 0

    def loss() -> torch.Tensor:
        return made[2](Faulty.apply(made[0](x))).square().sum()

    with pytest.raises(TrainingError, match=r"rank 3, step 7.*first in 0\.weight") as found:
        replay.check(made, loss, "rank 3, step 7")
    assert found.value.reason == "SilentCorruption"


def test_losses_that_are_no_numbers_are_equal_to_themselves() -> None:
    made = model()
    replay.check(made, lambda: made(torch.full((2, 8), torch.nan)).sum(), "rank 0, step 1")
