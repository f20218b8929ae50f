"""Where a gang's time goes: every second once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.protocol import BOOKS, LedgerState
from drakkar_workers.agent.clock import Clock
from drakkar_workers.agent.ledger import Ledger

CLOCK = Clock(offset=1e9)


def seconds(ledger: Ledger, now: float) -> dict[str, float]:
    state = ledger.state(now)
    return {book: v for book in BOOKS if (v := getattr(state, f"{book}_seconds"))}


def test_the_story_of_a_killed_process() -> None:
    ledger = Ledger(CLOCK, 0.0)
    assert ledger.step(1, 12.0, step_seconds=2.0) is None
    ledger.step(2, 14.5, step_seconds=2.0, stall=0.4)
    ledger.step(3, 16.5, step_seconds=2.0)
    ledger.interrupt(17.0)
    ledger.resume("memory")
    recovery = ledger.step(3, 20.0, step_seconds=2.0)
    assert recovery is not None
    assert (recovery.steps_lost, recovery.seconds_lost, recovery.source) == (1, 2.0, "memory")
    assert recovery.seconds == 1.5, "from 16.5 to 20 without the step itself"
    assert seconds(ledger, 20.0) == {
        "start": 10.0,
        "productive": 6.0,
        "checkpoint": 0.4,
        "lost": 2.0,
        "recovery": pytest.approx(1.0),
        "other": pytest.approx(0.6),
    }


def test_evaluations_are_productive_by_the_trainers_own_count() -> None:
    ledger = Ledger(CLOCK, 0.0)
    ledger.step(1, 5.0, step_seconds=1.0, productive=1.0)
    ledger.step(2, 9.0, step_seconds=1.0, productive=4.0)
    assert seconds(ledger, 9.0) == {"start": 4.0, "productive": 4.0, "other": 1.0}


def test_a_successor_goes_on_with_the_books() -> None:
    first = Ledger(CLOCK, 0.0)
    for step in range(1, 11):
        first.step(step, 10.0 + step, step_seconds=1.0)
    kept = first.state(20.0)
    second = Ledger(Clock(offset=1e9 + 5), 20.0)  # Another pod's clock starts elsewhere.
    second.adopt(kept, 20.0)
    recovery = second.step(9, 24.0, step_seconds=1.0)
    assert recovery is not None and recovery.steps_lost == 2
    state = second.state(24.0)
    assert state.since == kept.since
    assert state.recovery_seconds == pytest.approx(8.0)
    assert state.productive_seconds == pytest.approx(9.0)
    assert state.lost_seconds == pytest.approx(2.0)


EVENT = st.tuples(
    st.floats(0, 100),
    st.sampled_from(["step", "interrupt", "saving", "compiling", "successor", "nothing"]),
    st.integers(0, 30),
    st.none() | st.floats(0, 50),
    st.none() | st.floats(0, 50),
    st.none() | st.floats(0, 1000),
)


@given(st.lists(EVENT, max_size=60))
def test_the_books_add_up_to_the_time_that_passed(events) -> None:
    now, clock = 50.0, CLOCK
    ledger = Ledger(clock, now)
    kept: LedgerState | None = None
    for wait, kind, step, took, stall, productive in events:
        now += wait
        match kind:
            case "step":
                ledger.step(step, now, step_seconds=took, productive=productive, stall=stall)
            case "interrupt":
                ledger.interrupt(now)
            case "saving":
                ledger.enter("checkpoint", now)
            case "compiling":
                ledger.enter("compile", now)
            case "successor":
                kept = ledger.state(now - wait)
                ledger = Ledger(clock, now)
                ledger.adopt(kept, now)
        state = ledger.state(now)
        parts = [getattr(state, f"{book}_seconds") for book in BOOKS]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(state.at - state.since, abs=0.02)
        assert state.at == pytest.approx(clock.wall(now), abs=0.02)
        assert state.since == pytest.approx(clock.wall(50.0), abs=0.02)


def test_books_that_begin_with_a_checkpoint_are_those_of_a_lost_gang() -> None:
    ledger = Ledger(CLOCK, 0.0)
    ledger.resume("storage")
    recovery = ledger.step(41, 12.0, step_seconds=2.0)
    assert recovery is not None
    assert (recovery.whole, recovery.seconds, recovery.source) == (True, 10.0, "storage")
    assert seconds(ledger, 12.0) == {"recovery": 10.0, "productive": 2.0}
    assert ledger.step(42, 14.0, step_seconds=2.0) is None


def test_a_start_from_another_jobs_checkpoint_is_a_start() -> None:
    ledger = Ledger(CLOCK, 0.0)
    ledger.resume("start")
    assert ledger.step(41, 12.0, step_seconds=2.0) is None
    assert seconds(ledger, 12.0) == {"start": 10.0, "productive": 2.0}
