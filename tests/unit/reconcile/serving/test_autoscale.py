"""How many replicas a load needs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.v1alpha1.serving import Scaling
from drakkar_operator.reconcile.serving.autoscale import Load, Memory, decide

NOW = 1_800_000_000


def scaling(**fields: Any) -> Scaling:
    return Scaling.model_validate({"min": 1, "max": 10, "target": 10, **fields})


def steady(
    concurrency: float, seconds: int = 120, until: int = NOW
) -> tuple[tuple[int, float], ...]:
    return tuple((at, concurrency) for at in range(until - seconds, until))


@pytest.mark.parametrize(
    ("concurrency", "ready", "expected"),
    [(0, 1, 1), (6.9, 1, 1), (7.1, 1, 2), (35, 5, 5), (35.1, 5, 6), (1000, 5, 10)],
)
def test_seventy_percent_of_the_target_is_filled(
    concurrency: float, ready: int, expected: int
) -> None:
    load = Load(steady(concurrency), in_flight=int(concurrency))
    size = decide(scaling(), load, Memory(), current=ready, ready=ready, pending=0, now=NOW)
    assert size.desired == expected


def test_a_sudden_load_is_seen_within_the_panic_window() -> None:
    load = Load((*steady(1, until=NOW - 6), *steady(60, 6)), in_flight=60)
    size = decide(scaling(), load, Memory(), current=1, ready=1, pending=0, now=NOW)
    assert size.desired > 5
    assert "suddenly" in size.reason
    # A pause does not end the panic.
    later = Load((*load.concurrency, *steady(0, 6, NOW + 6)))
    again = decide(
        scaling(), later, size.memory, current=size.desired, ready=4, pending=0, now=NOW + 6
    )
    assert again.desired == size.desired


def test_it_shrinks_only_after_the_delay() -> None:
    memory, desired, idle = Memory(), 8, Load(steady(1))
    delay = scaling(behavior={"scaleDownDelaySeconds": 30})
    seen = []
    for second in range(0, 60, 2):
        load = Load(steady(1, until=NOW + second), in_flight=1)
        size = decide(
            delay, load, memory, current=desired, ready=desired, pending=0, now=NOW + second
        )
        memory, desired = size.memory, size.desired
        seen.append(desired)
    assert seen[:15] == [8] * 15
    assert seen[-1] < 8
    assert idle


def test_without_figures_nothing_changes() -> None:
    size = decide(scaling(), None, Memory(), current=4, ready=4, pending=0, now=NOW)
    assert size.desired == 4


def test_none_are_asked_for_while_some_wait_for_room() -> None:
    load = Load(steady(90), in_flight=90)
    size = decide(scaling(), load, Memory(), current=3, ready=2, pending=1, now=NOW)
    assert size.desired == 3


def test_zero_needs_a_long_silence_and_one_request_ends_it() -> None:
    zero = scaling(min=0, behavior={"scaleToZeroSeconds": 20, "scaleDownDelaySeconds": 0})
    memory, desired, seen = Memory(), 1, []
    for second in range(0, 30, 2):
        load = Load(steady(0, until=NOW + second))
        size = decide(
            zero, load, memory, current=desired, ready=desired, pending=0, now=NOW + second
        )
        memory, desired = size.memory, size.desired
        seen.append(desired)
    assert seen[:10] == [1] * 10
    assert seen[-1] == 0
    woken = decide(zero, Load(held=1), memory, current=0, ready=0, pending=0, now=NOW + 40)
    assert woken.desired == 1


def test_a_replica_that_starts_is_not_idle() -> None:
    zero = scaling(min=0, behavior={"scaleToZeroSeconds": 4, "scaleDownDelaySeconds": 0})
    memory = Memory()
    for second in range(0, 60, 2):
        size = decide(zero, Load(), memory, current=1, ready=0, pending=0, now=NOW + second)
        memory = size.memory
        assert size.desired == 1
    gone = decide(zero, Load(), memory, current=1, ready=1, pending=0, now=NOW + 64)
    assert gone.desired == 0


SLO = {"metric": "slo", "ttftMilliseconds": 1000}


@pytest.mark.parametrize(
    ("ttft", "current", "expected"),
    [(None, 4, 3), (0.2, 4, 3), (0.5, 4, 4), (0.6, 4, 5), (2.0, 4, 8), (9.0, 4, 8), (9.0, 1, 4)],
)
def test_latency_against_its_goal(ttft: float | None, current: int, expected: int) -> None:
    load = Load(steady(0), ttft=ttft)
    slo = scaling(behavior={"scaleDownDelaySeconds": 0}, **SLO)
    size = decide(slo, load, Memory(), current=current, ready=current, pending=0, now=NOW)
    assert size.desired == expected


def test_growth_by_latency_waits_for_what_the_last_step_brings() -> None:
    slo, load = scaling(**SLO), Load(in_flight=5, ttft=3.0)
    first = decide(slo, load, Memory(), current=2, ready=2, pending=0, now=NOW)
    second = decide(
        slo, load, first.memory, current=first.desired, ready=2, pending=0, now=NOW + 10
    )
    assert second.desired == first.desired > 2


loads = st.builds(
    Load,
    concurrency=st.lists(st.floats(0, 1e4), max_size=90).map(
        lambda values: tuple((NOW - len(values) + at, value) for at, value in enumerate(values))
    ),
    held=st.integers(0, 1000),
    in_flight=st.integers(0, 1000),
    ttft=st.none() | st.floats(0, 1e3),
    tpot=st.none() | st.floats(0, 1e3),
)
settings = st.builds(
    lambda low, more, target, slo: scaling(
        min=low, max=low + more, target=target, **(SLO if slo else {})
    ),
    st.integers(0, 20),
    st.integers(1, 50),
    st.floats(0.1, 1000),
    st.booleans(),
)


@given(settings, st.lists(loads | st.none(), min_size=1, max_size=12), st.integers(0, 70))
def test_always_within_bounds_and_never_zero_while_someone_asks(
    given: Scaling, seen: list[Load | None], current: int
) -> None:
    memory = Memory()
    for step, load in enumerate(seen):
        size = decide(
            given, load, memory, current=current, ready=current, pending=0, now=NOW + 2 * step
        )
        assert given.min <= size.desired <= given.max
        if load is not None and (load.held or load.in_flight):
            assert size.desired >= 1
        memory, current = size.memory, size.desired
        assert len(memory.wishes) <= len(seen) + 2


@given(settings, loads, st.integers(0, 70), st.floats(0, 1e3))
def test_more_load_never_asks_for_less(
    given: Scaling, load: Load, current: int, more: float
) -> None:
    if given.metric == "slo":
        return
    heavier = Load(
        tuple((at, value + more) for at, value in load.concurrency), load.held, load.in_flight
    )
    one, other = (
        decide(given, each, Memory(), current=current, ready=current, pending=0, now=NOW)
        for each in (load, heavier)
    )
    assert other.desired >= one.desired
