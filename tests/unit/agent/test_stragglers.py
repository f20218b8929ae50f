"""Slow ranks are found, and noise is no slow rank: by simulation."""

import random

import pytest

from drakkar_workers.agent.seat import Seat
from drakkar_workers.agent.stragglers import LEARNING, WINDOWS, Detector, Watch
from drakkar_workers.agent.wire import Heartbeat, RankStatus


def window(rng: random.Random, ranks: int, noise: float, slow: dict[int, float]) -> dict:
    """Means of a window: each rank's steps vary, and so do nodes from window to window."""
    return {
        rank: {"data": 0.01 * rng.lognormvariate(0, noise), "forward": value}
        for rank in range(ranks)
        if (value := 0.2 * rng.lognormvariate(0, noise) * slow.get(rank, 1.0))
    }


@pytest.mark.parametrize("ranks", [2, 3, 8, 64])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1, 0.3])
def test_false_alarms_are_rare(ranks, noise) -> None:
    """Less than one in 2,000 windows of a healthy gang, whatever its noise."""
    rng = random.Random(ranks * 1000 + int(noise * 100))
    windows, alarms = 0, 0
    for _ in range(20):
        detector = Detector()
        for _ in range(100):
            windows += 1
            alarms += bool(detector.window(window(rng, ranks, noise, {})))
    assert alarms / windows < 1 / 2000


@pytest.mark.parametrize("ranks", [2, 3, 8, 64])
@pytest.mark.parametrize(("noise", "factor"), [(0.0, 1.4), (0.02, 1.5), (0.1, 2.5)])
def test_a_slow_rank_is_named_with_its_stage(ranks, noise, factor) -> None:
    rng = random.Random(7)
    detector = Detector()
    for _ in range(10):
        assert detector.window(window(rng, ranks, noise, {})) == []
    victim = ranks - 1
    for _ in range(3 * WINDOWS):
        found = detector.window(window(rng, ranks, noise, {victim: factor}))
        if found:
            break
    assert {(item.rank, item.stage) for item in found} == {(victim, "forward")}
    assert found[0].ratio > 1.3


def test_one_that_recovers_is_not_told_any_more() -> None:
    rng, detector = random.Random(1), Detector()
    for _ in range(LEARNING + WINDOWS):
        found = detector.window(window(rng, 4, 0.01, {2: 2.0}))
    assert found
    for _ in range(WINDOWS):
        found = detector.window(window(rng, 4, 0.01, {}))
    assert found == []


def seats(step: int, seconds: list[float]) -> list[Seat]:
    found = []
    for rank, value in enumerate(seconds):
        seat = Seat(rank, 5.0)
        seat.beat = Heartbeat(
            uid="u",
            replica=rank,
            incarnation="a",
            started=0,
            sequence=step,
            pod=f"p-{rank}",
            node=f"node-{rank}",
            epoch=1,
            ranks=[RankStatus(rank=rank, step=step, alone_seconds={"forward": value * step})],
        )
        found.append(seat)
    return found


def test_windows_from_heartbeats() -> None:
    watch, news, now = Watch(), [], 0.0
    for step in range(0, 1000, 10):
        now += 2.0
        news += watch.look(seats(step, [0.1, 0.1, 0.25]), 1, now)
    (told,) = news
    assert told.message == (
        "rank 2 on node node-2 is slow: 2.5 times the gang's median in forward, "
        "150 ms more per step"
    )
    assert watch.slow == [told]
    watch.look(seats(5, [0.1, 0.1, 0.1]), 2, now + 1)
    assert watch.slow == [told], "an epoch later it is still on the same node"
