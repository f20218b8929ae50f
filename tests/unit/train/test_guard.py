"""What is called a wrong batch, and that false alarms stay few whatever losses do."""

import math
import random

import pytest

from drakkar.v1alpha1.recipes.guard import GuardConfig
from drakkar_workers.train.guard import ENOUGH, PER_BATCHES, Guard

PASS = GuardConfig(non_finite="pass", spike="pass")


def calm(guard: Guard, steps: int = 100, level: float = 3.0, seed: int = 0) -> random.Random:
    rng = random.Random(seed)
    for _ in range(steps):
        assert guard.judge(rng.gauss(level, 0.05), 1.0) is None
    return rng


def test_a_spike_is_passed_over_and_told_with_its_figures() -> None:
    guard = Guard(PASS)
    calm(guard)
    verdict = guard.judge(9.0, 1.0)
    assert verdict is not None
    assert (verdict.act, verdict.kind) == ("pass over", "LossSpike")
    assert verdict.message.startswith("loss 9 is above 3.")
    assert "median of the last 64 losses" in verdict.message
    assert guard.judge(3.0, 1.0) is None


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf)]
)
def test_no_number_is_wrong_from_the_first_step_on(loss: float, norm: float) -> None:
    assert Guard(PASS).judge(loss, norm).act == "pass over"
    assert Guard(GuardConfig()).judge(loss, norm).act == "fail"


def test_several_in_a_row_are_the_states_fault() -> None:
    guard = Guard(PASS)
    calm(guard)
    acts = [guard.judge(9.0, 1.0).act for _ in range(4)]
    assert acts == ["pass over"] * 3 + ["go back"]


def test_by_default_a_spike_is_only_told() -> None:
    guard = Guard(GuardConfig())
    calm(guard)
    assert guard.judge(9.0, 1.0).act == "tell"


def test_nothing_is_judged_before_enough_is_known() -> None:
    guard = Guard(PASS)
    assert all(guard.judge(loss, 1.0) is None for loss in [9.0, 2.0] * (ENOUGH // 2))


NOISE = {
    "normal": lambda rng: rng.gauss(0, 0.1),
    "heavy tails": lambda rng: (
        0.05 * rng.gauss(0, 1) / max(0.2, math.sqrt(rng.gammavariate(2, 0.5)))
    ),
    "skewed": lambda rng: 0.1 * (rng.lognormvariate(0, 0.5) - 1.13),
    "even": lambda rng: 0.0,
}
TREND = {
    "flat": lambda step: 3.0,
    "falling": lambda step: 2.0 + 4.0 * math.exp(-step / 300),
    "rising slowly": lambda step: 3.0 + step / 5000,
    "waves": lambda step: 3.0 + 0.3 * math.sin(step / 40),
}


@pytest.mark.parametrize("trend", TREND)
@pytest.mark.parametrize("noise", NOISE)
def test_honest_losses_raise_hardly_any_alarm(trend: str, noise: str) -> None:
    guard, rng = Guard(PASS), random.Random(f"{trend} {noise}")
    steps = 5000
    alarms = sum(
        guard.judge(TREND[trend](step) + NOISE[noise](rng), 1.0) is not None
        for step in range(steps)
    )
    assert alarms <= 3, f"{alarms} in {steps} steps"


@pytest.mark.parametrize("level", [4.0, 30.0])
@pytest.mark.parametrize("share", [0.02, 0.2, 1.0])
def test_whatever_happens_few_batches_are_passed_over(level: float, share: float) -> None:
    """Losses that jump for good, or all the time: the worst that a guard can meet."""
    guard = Guard(PASS)
    rng, passed, steps = calm(guard), 0, 5000
    for _ in range(steps):
        high = rng.random() < share
        verdict = guard.judge(rng.gauss(level if high else 3.0, 0.05), 1.0)
        passed += verdict is not None and verdict.act != "tell"
    assert passed <= PASS.in_a_row + 1 + steps / PER_BATCHES
    if share == 1.0:
        assert passed <= PASS.in_a_row + 1, "a new level is soon the usual one"


def test_a_loss_that_stays_no_number_ends_the_attempt() -> None:
    guard = Guard(PASS)
    calm(guard)
    acts = [guard.judge(math.nan, 1.0).act for _ in range(6)]
    assert acts == ["pass over"] * 3 + ["go back", "fail", "fail"]
