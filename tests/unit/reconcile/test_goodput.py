"""A job's goodput: the operator's part and the gang's books add up to its life."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.protocol import BOOKS, LedgerState, Recovery
from drakkar.v1alpha1.trainingjob import Restart
from drakkar_operator.reconcile.goodput import PARTS, account, sentence, with_losses

CREATED = 1_800_000_000.0


def books(since: float, **seconds: float) -> LedgerState:
    given_ = {f"{name}_seconds": value for name, value in seconds.items()}
    return LedgerState(since=since, at=since + sum(seconds.values()), **given_)


def test_queue_start_and_books() -> None:
    found = account(
        None, CREATED, CREATED + 30, books(CREATED + 40, start=10, productive=45, recovery=5)
    )
    assert (found.queue_seconds, found.start_seconds) == (30, 20)
    assert (found.productive_seconds, found.wall_seconds) == (45, 100)
    assert found.ratio == 0.45
    assert sentence(found) == "goodput 45% of 100 s (queue 30%, start 20%, recovery 5%)"


def test_a_gang_that_was_lost_as_a_whole() -> None:
    first = account(None, CREATED, CREATED, books(CREATED + 10, productive=90))
    second = account(first, CREATED, CREATED, books(CREATED + 120, recovery=10, productive=70))
    assert second.wall_seconds == 200
    assert second.productive_seconds == 160
    assert second.recovery_seconds == 30
    assert account(
        second, CREATED, CREATED, books(CREATED + 120, recovery=10, productive=80)
    ).wall_seconds == pytest.approx(210)


def test_time_without_a_place_is_queueing() -> None:
    first = account(None, CREATED, CREATED, books(CREATED, productive=100))
    second = account(first, CREATED, CREATED + 150, books(CREATED + 160, productive=40))
    assert (second.queue_seconds, second.recovery_seconds) == (50, 10)


GANG = st.tuples(st.floats(0, 500), st.lists(st.floats(0, 1000), min_size=7, max_size=7))


@given(st.lists(GANG, min_size=1, max_size=6), st.floats(-100, 5000))
def test_the_parts_add_up_to_the_jobs_life(gangs, placed) -> None:
    now, found = CREATED, None
    for gap, seconds in gangs:
        now += gap
        state = books(now, **dict(zip(BOOKS, seconds, strict=True)))
        found = account(found, CREATED, CREATED + placed, state)
        now = state.at
        parts = [getattr(found, f"{name}_seconds") for name in PARTS]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(found.wall_seconds, abs=1)
        assert found.wall_seconds == pytest.approx(now - CREATED, abs=5)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(CREATED + seconds, UTC)


def test_restarts_show_what_they_cost() -> None:
    faults = [
        Restart(id=str(t), time=at(t), scope="process", reason="ProcessKilled")
        for t in (10, 100, 102, 300)
    ]
    recoveries = [
        Recovery(
            since=at(99), time=at(110), seconds=11, steps_lost=3, seconds_lost=4.5, source="memory"
        )
    ]
    found = with_losses(faults, recoveries)
    assert [r.seconds_lost for r in found] == [None, 0.0, 15.5, None]
    assert [r.steps_lost for r in found] == [None, 0, 3, None]
    assert found[2].resumed_from == "memory"
    assert with_losses(found, recoveries) == found


def test_a_gang_lost_as_a_whole_was_away_since_its_loss() -> None:
    lost = Restart(id="a", time=at(10), scope="pod", reason="PodDeleted")
    again = Recovery(since=at(40), time=at(50), seconds=9, steps_lost=0, seconds_lost=0, whole=True)
    (found,) = with_losses([lost], [again])
    assert found.seconds_lost == 40


def test_a_pod_that_leaves_in_order_trains_on_after_its_loss_is_on_record() -> None:
    left = Restart(id="a", time=at(10), scope="pod", reason="PodDeleted")
    again = Recovery(since=at(13), time=at(20), seconds=7, steps_lost=0, seconds_lost=0)
    assert with_losses([left], [again])[0].seconds_lost == 7
