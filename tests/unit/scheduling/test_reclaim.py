"""Who must make room: lower priorities of the same queue, and those who borrow from a lender."""

import pytest

from drakkar_operator.model import PreemptionPolicy, QueueView
from drakkar_operator.scheduling.decision import Decision
from drakkar_operator.scheduling.queueing import schedule
from drakkar_operator.scheduling.workload import Pending, Running
from support.queue_lab import Job, Lab
from support.scheduling import GPU, gang, node, pod, snapshot

NOW = 10_000.0


def runs(name: str, on: str, queue: str | None, gpus: int = 8, **rest: object) -> Running:
    """A running gang of one replica, long in place."""
    request = gang(1, gpus, key=("team", name), fixed={0: on})
    return Running(("team", name), request, queue, **rest)  # type: ignore[arg-type]


def decide(
    pending: list[Pending], running: list[Running], *queues: QueueView, nodes: int = 2
) -> list[Decision]:
    """The decisions of one cycle on as many nodes of 8."""
    held = [
        pod(each.key[1], node_, each.request.total[GPU])
        for each in running
        for node_ in each.request.fixed.values()
    ]
    snap = snapshot([node(f"n{at}") for at in range(nodes)], held)
    return schedule(snap, pending, {q.name: q for q in queues}, running, now=NOW)


def wants(name: str, queue: str | None, gpus: int = 8, **rest: object) -> Pending:
    """A waiting gang of one replica."""
    return Pending(("team", name), gang(1, gpus, key=("team", name)), queue, **rest)  # type: ignore[arg-type]


def gone(decision: Decision) -> list[tuple[str, str]]:
    return [(each.key[1], each.cause) for each in decision.evictions]


def team(name: str, quota: int = 8, borrowing: int = 8, **policy: object) -> QueueView:
    return QueueView(
        name, {GPU: quota}, parent="all", borrowing={GPU: borrowing},
        preemption=PreemptionPolicy(**policy),  # type: ignore[arg-type]
    )  # fmt: skip


ALL = QueueView("all", {GPU: 16})


def test_a_lower_priority_of_the_same_queue_makes_room() -> None:
    running = [runs("low", "n0", None, priority=1), runs("high", "n1", None, priority=9)]
    (decision,) = decide([wants("j", None, priority=5)], running)
    assert gone(decision) == [("low", "Preempted")]
    assert decision.reason == "waits for job team/low to save their state and make room"
    assert decision.hold is not None
    assert decision.hold.awaits == (("team", "low"),)
    assert decision.evictions[0].message == (
        "makes room for job team/j of priority 5, which needs 8 nvidia.com/gpu; "
        "this job has priority 1"
    )


@pytest.mark.parametrize(
    ("policy", "ran", "preempts", "evicted"),
    [
        ({}, 61.0, True, True),
        ({}, 59.0, True, False),
        ({"min_runtime": 0.0}, 0.0, True, True),
        ({"within_queue": "Never"}, 500.0, True, False),
        ({}, 500.0, False, False),
    ],
)
def test_the_rules_of_the_queue(
    policy: dict[str, object], ran: float, preempts: bool, evicted: bool
) -> None:
    queue = QueueView("q", {}, preemption=PreemptionPolicy(**policy))  # type: ignore[arg-type]
    running = [runs("low", "n0", "q", placed=NOW - ran)]
    pending = [wants("j", "q", priority=1, preempts=preempts)]
    (decision,) = decide(pending, running, queue, nodes=1)
    assert bool(decision.evictions) == evicted


def test_a_lender_takes_back_its_quota() -> None:
    running = [runs("x", "n0", "a", placed=1), runs("y", "n1", "a", placed=2)]
    (decision,) = decide([wants("j", "b")], running, ALL, team("a"), team("b"))
    assert len(decision.evictions) == 1
    assert decision.evictions[0].cause == "Reclaimed"
    assert decision.evictions[0].message == (
        "queue 'b' takes back quota that queue 'a' borrowed, for job team/j, which needs "
        "8 nvidia.com/gpu"
    )


def test_nobody_is_displaced_for_a_queue_that_borrows_itself() -> None:
    running = [runs("x", "n0", "a"), runs("y", "n1", "b")]
    (decision,) = decide([wants("j", "b", 8)], running, ALL, team("a", 4), team("b"))
    assert decision.evictions == ()


def test_a_borrower_keeps_its_own_quota() -> None:
    """Of three gangs of 4 with a quota of 8, one goes, not two."""
    running = [runs(f"x{at}", f"n{at // 2}", "a", 4, placed=at) for at in range(4)]
    (decision,) = decide([wants("j", "b", 8)], running, ALL, team("a", 12), team("b", 4, 4))
    assert decision.evictions == ()
    (decision,) = decide([wants("j", "b", 4)], running, ALL, team("a", 12), team("b", 4, 4))
    assert len(decision.evictions) == 1


@pytest.mark.parametrize(
    ("reclaim", "priority", "evicted"),
    [
        ("Any", 0, True),
        ("Never", 9, False),
        ("LowerPriority", 0, False),
        ("LowerPriority", 5, True),
    ],
)
def test_reclaim_may_be_limited(reclaim: str, priority: int, evicted: bool) -> None:
    running = [runs("x", "n0", "a", priority=3), runs("y", "n1", "a", priority=3)]
    lender = team("b", reclaim=reclaim)
    (decision,) = decide([wants("j", "b", priority=priority)], running, ALL, team("a"), lender)
    assert bool(decision.evictions) == evicted


def test_room_that_somebody_is_leaving_is_waited_for_and_kept() -> None:
    running = [
        runs("gone", "n0", None, leaving=True),
        runs("low", "n1", None, priority=-1),
    ]
    first, second = decide([wants("j", None, created=1), wants("k", None, created=2)], running)
    assert first.evictions == ()
    assert first.hold is not None
    assert first.hold.awaits == (("team", "gone"),)
    assert second.evictions == ()


def test_reclaim_ends() -> None:
    """Evicted gangs wait their turn; nobody is evicted for a gang that is evicted later."""
    queues = {q.name: q for q in (ALL, team("a", min_runtime=0.0), team("b", min_runtime=0.0))}
    lab = Lab([node("n0"), node("n1")], queues)
    lab.run(
        [
            Job("a1", 0, 1, 8, 300, queue="a"),
            Job("a2", 1, 1, 8, 300, queue="a"),
            Job("b1", 10, 1, 8, 300, queue="b"),
            Job("b2", 11, 1, 8, 300, queue="b"),
        ]
    )
    assert len(lab.evictions) == 1
    assert lab.started["b1"] == 11
    assert set(lab.ended) == {"a1", "a2", "b1", "b2"}
    assert not lab.overcommitted
