"""When quota is expected back: as soon as enough of its users will have ended, and no sooner."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.model import QueueView
from drakkar_operator.outlook import forecasts
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.forecast import Forecast
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import GPU, gang, node, snapshot

NOW = 1_800_000_000.0
NODES = [node(f"n{at}") for at in range(4)]


def runs(name: str, gpus: int, queue: str, on: str, ends: float | None) -> Running:
    request = gang(1, gpus, key=("team", name), fixed={0: on}, missing=())
    return Running(("team", name), request, queue, ends=ends)


def case(queues: list[QueueView], running: list[Running], gpus: int, queue: str = "a") -> Case:
    """One job waits."""
    pending = Pending(("team", "late"), gang(1, gpus, key=("team", "late")), queue)
    free = snapshot(NODES).assume(rank for each in running for rank in each.reservations)
    return Case(free, (pending,), tuple(running), {q.name: q for q in queues}, NOW)


def expected(of: Case) -> Forecast | None:
    decisions = of.decide()
    assert decisions[0].placed is None
    return forecasts(of, decisions).get(("team", "late"))


def test_the_end_that_returns_the_quota_is_named() -> None:
    running = [
        runs("x", 4, "a", "n0", NOW + 60),
        runs("y", 4, "a", "n1", NOW + 1200),
        runs("other", 8, "b", "n2", NOW + 30),
    ]
    of = case([QueueView("a", {GPU: 8}), QueueView("b", {GPU: 8})], running, 8)
    found = expected(of)
    assert found == Forecast(NOW + 1200, (("team", "y"), ("team", "x")))
    assert found.sentence(None) == (
        "quota is expected by about 2027-01-15 08:20 UTC, when team/y and team/x end"
    )


def test_a_sibling_that_borrows_counts() -> None:
    queues = [
        QueueView("all", {GPU: 8}),
        QueueView("a", {GPU: 4}, parent="all"),
        QueueView("b", {GPU: 4}, parent="all", borrowing={GPU: 4}),
    ]
    running = [runs("greedy", 8, "b", "n0", NOW + 90)]
    of = case(queues, running, 4)
    # It may not reclaim what b borrowed.
    patient = replace(of, pending=tuple(replace(each, preempts=False) for each in of.pending))
    assert expected(patient) == Forecast(NOW + 90, (("team", "greedy"),))
    assert forecasts(of, of.decide()) == {}, "it reclaims it, and waits for nothing else"


def test_quota_without_room_waits_for_the_room_too() -> None:
    full = [runs(f"b{at}", 8, "b", f"n{at}", NOW + 600 + at) for at in range(1, 4)]
    running = [runs("x", 4, "a", "n0", NOW + 60), runs("big", 4, "b", "n0", NOW + 300), *full]
    found = expected(case([QueueView("a", {GPU: 8}), QueueView("b", {GPU: 80})], running, 8))
    assert found is not None
    assert found.at == NOW + 300
    assert set(found.gangs) == {("team", "x"), ("team", "big")}


def test_nothing_is_foretold_where_no_end_would_do() -> None:
    queues = [QueueView("a", {GPU: 8})]
    assert expected(case(queues, [runs("x", 8, "a", "n0", None)], 4)) is None
    assert expected(case(queues, [runs("x", 8, "a", "n0", NOW + 5)], 16)) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 100)), min_size=1, max_size=6))
def test_at_that_moment_and_no_sooner(users: list[tuple[int, int]]) -> None:
    """With the gangs gone that end by then, the job is placed; with one fewer it is not."""
    running = [
        runs(f"r{at}", gpus, "a", f"n{at % 4}", NOW + ends) for at, (gpus, ends) in enumerate(users)
    ]
    quota = sum(gpus for gpus, _ in users)
    queues = [QueueView("a", {GPU: quota})]
    of = case(queues, running, min(quota, 8))
    found = expected(of)
    assert found is not None
    left = [each for each in running if (each.ends or 0) > found.at]
    assert case(queues, left, min(quota, 8)).decide()[0].placed is not None
    before = [each for each in running if (each.ends or 0) >= found.at]
    assert case(queues, before, min(quota, 8)).decide()[0].placed is None
