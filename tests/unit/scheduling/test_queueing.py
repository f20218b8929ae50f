"""Order, quota and the cycle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling import room
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.queueing import schedule
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.turns import order
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import GPU, gang, node, pod, snapshot


def waiting(name: str, request: GangRequest | None = None, **rest: object) -> Pending:
    """A pending gang by name."""
    return Pending(("team", name), request or gang(1, key=("team", name)), **rest)  # type: ignore[arg-type]


def holds(name: str, gpus: int, queue: str) -> Running:
    """A running gang of one replica."""
    return Running(("team", name), gang(1, gpus, key=("team", name), fixed={0: "n1"}), queue)


def test_order() -> None:
    repair = gang(2, fixed={0: "n"})
    pending = [
        waiting("b", created=5),
        waiting("a", created=5),
        waiting("late", created=9),
        waiting("high", priority=10, created=99),
        waiting("repair", repair, created=100, priority=-5),
    ]
    assert [p.key[1] for p in order(pending)] == ["repair", "high", "a", "b", "late"]


def test_each_gang_sees_the_room_that_those_before_it_left() -> None:
    snap = snapshot([node("n1"), node("n2")])
    pending = [waiting(f"j{at}", gang(1, 8, key=("team", f"j{at}"))) for at in range(3)]
    decisions = schedule(snap, pending, {})
    assert [d.placed.nodes if d.placed else None for d in decisions] == [{0: "n1"}, {0: "n2"}, None]
    assert decisions[2].reason is not None
    assert "has room for 0" in decisions[2].reason


def test_one_strange_request_does_not_stop_the_cycle() -> None:
    """Templates are stored as they are: what is in them can be of any type and size."""
    snap = snapshot([node("n1")])
    unhashable = gang(1, 8, key=("team", "a"), node_selector={"disk": ["ssd"]})
    enormous = gang(1, 10**30, key=("team", "b"))
    pending = [waiting("a", unhashable), waiting("b", enormous), waiting("c")]
    decisions = {d.key[1]: d for d in schedule(snap, pending, {})}
    assert decisions["a"].placed is None
    assert decisions["b"].placed is None
    assert decisions["c"].placed is not None


def test_a_large_gang_does_not_hold_up_a_small_one() -> None:
    """kueue#9715: admissible work must not wait behind what can't be admitted."""
    snap = snapshot([node("n1")])
    pending = [waiting("big", gang(2, 8, key=("team", "big")), priority=9), waiting("small")]
    decisions = {d.key[1]: d.placed for d in schedule(snap, pending, {})}
    assert decisions["big"] is None
    assert decisions["small"] is not None


def test_requests_of_the_same_shape_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: object) -> object:
        calls.append(args)
        return place(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "place", counted)
    snap = snapshot([node("n1")])
    pending = [waiting(f"j{at}", gang(2, 8, key=("team", f"j{at}"))) for at in range(50)]
    pending.append(waiting("other", gang(3, 8)))
    assert not any(d.placed for d in schedule(snap, pending, {}))
    # Each of the two shapes on what is free, and on an empty cluster: the first one's place in
    # the line is kept for it only if it could ever fit.
    assert len(calls) == 4


def test_quota_counts_what_the_cycle_places() -> None:
    snap = snapshot([node("n1"), node("n2"), node("n3")])
    queues = {"q": QueueView("q", {GPU: 16})}
    pending = [
        waiting(f"j{at}", gang(1, 8, key=("team", f"j{at}")), queue="q", created=at)
        for at in range(3)
    ]
    first, second, third = schedule(snap, pending, queues, [holds("x", 4, "q")])
    assert first.placed
    assert second.reason == (
        "queue 'q' allows 16 nvidia.com/gpu; 12 are used by 2 jobs, this job needs 8"
    )
    assert third.reason == second.reason


def test_repairs_and_charged_gangs_are_not_charged_again() -> None:
    snap = snapshot([node("n1"), node("n2")], [pod("p", "n1", 8)])
    queues = {"q": QueueView("q", {GPU: 16})}
    used = [holds("x", 16, "q")]
    repair = waiting("r", gang(2, 8, fixed={0: "n1"}), queue="q")
    (decision,) = schedule(snap, [repair], queues, used)
    assert decision.placed is not None
    assert decision.placed.nodes == {1: "n2"}
    (again,) = schedule(snap, [waiting("c", gang(1, 8), queue="q", charged=True)], queues, used)
    assert again.placed
    (fresh,) = schedule(snap, [waiting("f", gang(1, 8), queue="q")], queues, used)
    assert fresh.placed is None


def test_an_unknown_queue() -> None:
    (decision,) = schedule(snapshot([node("n")]), [waiting("j", queue="nope")], {})
    assert decision.reason == "queue 'nope' does not exist"


def test_the_quota_of_a_parent_covers_its_children() -> None:
    queues = {
        "all": QueueView("all", {GPU: 8}),
        "a": QueueView("a", {}, parent="all"),
        "b": QueueView("b", {GPU: 8}, parent="all"),
    }
    snap = snapshot([node("n1"), node("n2")])
    pending = [waiting("j", gang(1, 4), queue="b"), waiting("k", gang(1, 4), queue="b")]
    first, second = schedule(snap, pending, queues, [holds("x", 4, "a")])
    assert first.placed
    assert second.reason is not None
    assert second.reason.startswith("queue 'all' allows 8 nvidia.com/gpu; 8 are used by 2 jobs")


@pytest.mark.parametrize(
    ("parents", "reason"),
    [
        ({"a": "b", "b": "a"}, "the parents of queue 'a' go round in a circle: 'a', 'b', 'a'"),
        (
            {"a": "b", "b": "c", "c": "b"},
            "the parents of queue 'a' go round in a circle: 'b', 'c', 'b'",
        ),
        ({"a": "b", "b": "gone"}, "queue 'b' has the parent 'gone', which does not exist"),
    ],
)
def test_a_queue_without_a_way_to_a_root_admits_nothing(
    parents: dict[str, str], reason: str
) -> None:
    queues = {name: QueueView(name, {}, parent=parent) for name, parent in parents.items()}
    (decision,) = schedule(snapshot([node("n")]), [waiting("j", gang(1), queue="a")], queues)
    assert decision.reason == reason


def test_a_decision_tells_the_place_in_the_line_and_who_is_before() -> None:
    pending = [
        waiting("big", gang(9, 8), created=1),
        waiting("fits", created=2),
        waiting("huge", gang(10, 8), created=3),
        waiting("other", gang(11, 8), created=0, queue="q"),
        waiting("last", gang(12, 8), created=4),
    ]
    decisions = schedule(snapshot([node("n1")]), pending, {"q": QueueView("q", {})})
    found = {d.key[1]: (d.position, [name for _, name in d.ahead]) for d in decisions}
    assert found == {
        "big": (1, []),
        "fits": (2, ["big"]),
        "huge": (3, ["big"]),
        "last": (4, ["big", "huge"]),
        "other": (1, []),
    }


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8), st.booleans()), max_size=8),
    st.lists(st.integers(0, 8), min_size=1, max_size=5),
)
def test_a_cycle_never_overcommits_nor_exceeds_a_quota(
    gangs: list[tuple[int, int, bool]], taken: list[int]
) -> None:
    nodes = [node(f"n{at}", f"z/b/r{at % 2}") for at in range(len(taken))]
    snap = snapshot(nodes, [pod(f"p{at}", f"n{at}", used) for at, used in enumerate(taken)])
    queues = {"q": QueueView("q", {GPU: 12})}
    pending = [
        waiting(f"j{at}", gang(size, gpus, key=("team", f"j{at}")), queue="q" if mine else None)
        for at, (size, gpus, mine) in enumerate(gangs)
    ]
    in_queue = {p.key for p in pending if p.queue}
    decisions = schedule(snap, pending, queues)
    for line in ("q", None):
        mine = [p for p in pending if p.queue == line]
        judged = [d.key for d in decisions if d.key in {p.key for p in mine}]
        assert judged == [p.key for p in order(mine)]
    charged = 0
    for decision in decisions:
        assert (decision.placed is None) == (decision.reason is not None)
        if decision.placed is None:
            continue
        request = decision.placed.request
        assert len(decision.placed.nodes) == request.replicas
        snap = snap.assume(decision.placed)
        charged += request.total[GPU] if decision.key in in_queue else 0
    assert charged <= 12
    assert int(snap.free.min()) >= 0


def test_an_elastic_gang_shrinks_to_what_its_queue_allows_and_is_charged_for_that() -> None:
    elastic = gang(8, 1, key=("team", "a"), sizes=(8, 6, 4, 2))
    pending = [waiting("a", elastic, queue="q"), waiting("b", queue="q", created=1)]
    snap = snapshot([node("n1"), node("n2")])
    first, second = schedule(snap, pending, {"q": QueueView("q", {GPU: 5})})
    assert first.placed is not None
    assert first.placed.request.replicas == 4
    assert second.placed is not None
