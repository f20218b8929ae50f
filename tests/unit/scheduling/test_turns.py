"""Turns by dominant-resource fair share."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.queueing import schedule
from drakkar_operator.scheduling.turns import dominant, faded, fair_shares
from drakkar_operator.scheduling.usage import HALF_LIFE_SECONDS, History, usage
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import GPU, gang, node, snapshot


def jobs(queue: str | None, count: int, gpus: int = 1, at: float = 0.0) -> list[Pending]:
    """Equal waiting gangs of one replica."""
    return [
        Pending(("team", f"{queue}-{n:03}"), gang(1, gpus, key=("team", f"{queue}-{n:03}")), queue, created=at + n)
        for n in range(count)
    ]  # fmt: skip


def placed(
    pending: list[Pending], queues: list[QueueView], gpus: int = 8, **rest: object
) -> dict[str, int]:
    """How many gangs of each queue start on one node."""
    snap = snapshot([node("n", gpus=gpus)])
    by_key = {each.key: each for each in pending}
    found: dict[str, int] = {}
    for decision in schedule(snap, pending, {q.name: q for q in queues}, **rest):  # type: ignore[arg-type]
        if decision.placed is not None:
            name = by_key[decision.key].queue or ""
            found[name] = found.get(name, 0) + 1
    return found


def test_queues_share_by_weight() -> None:
    pending = [*jobs("a", 20), *jobs("b", 20, at=-100)]
    assert placed(pending, [QueueView("a", {}), QueueView("b", {})]) == {"a": 4, "b": 4}
    assert placed(pending, [QueueView("a", {}, weight=3), QueueView("b", {})]) == {"a": 6, "b": 2}


def test_shares_hold_at_each_level() -> None:
    queues = [
        QueueView("x", {}, weight=1),
        QueueView("x1", {}, parent="x"),
        QueueView("x2", {}, parent="x"),
        QueueView("y", {}, weight=1),
    ]
    pending = [*jobs("x1", 9), *jobs("x2", 9), *jobs("y", 9)]
    assert placed(pending, queues) == {"x1": 2, "x2": 2, "y": 4}


def test_jobs_of_an_inner_queue_and_those_without_one_take_turns_too() -> None:
    queues = [QueueView("x", {}), QueueView("x1", {}, parent="x")]
    assert placed([*jobs("x", 9), *jobs("x1", 9), *jobs(None, 9)], queues) == {
        "x": 2,
        "x1": 2,
        "": 4,
    }


def test_who_need_not_borrow_goes_first() -> None:
    queues = [
        QueueView("all", {GPU: 8}),
        QueueView("a", {GPU: 2}, 9, "all", borrowing={GPU: 8}),
        QueueView("b", {GPU: 6}, 1, "all", borrowing={GPU: 8}),
    ]
    assert placed([*jobs("a", 9), *jobs("b", 9)], queues) == {"a": 2, "b": 6}
    assert placed([*jobs("a", 9), *jobs("b", 3)], queues) == {"a": 5, "b": 3}


def test_the_dominant_resource_decides() -> None:
    """After the example of the paper: 9 CPUs and 18 GB; tasks of 1 CPU, 4 GB and of 3 CPUs, 1 GB."""
    snap = snapshot([node("n", gpus=0, allocatable={"cpu": 9, "memory": 18, "pods": 100_000})])

    def tasks(queue: str, cpu: int, memory: int) -> list[Pending]:
        return [
            Pending(
                ("team", f"{queue}{n}"),
                gang(1, key=("team", f"{queue}{n}"), requests={"cpu": cpu, "memory": memory}),
                queue,
            )
            for n in range(9)
        ]

    queues = {"a": QueueView("a", {}), "b": QueueView("b", {})}
    decisions = schedule(snap, [*tasks("a", 1, 4), *tasks("b", 3, 1)], queues)
    started = [decision.key[1][0] for decision in decisions if decision.placed is not None]
    assert (started.count("a"), started.count("b")) == (3, 2)


def test_who_used_much_lately_waits_longer() -> None:
    queues = [QueueView("a", {}), QueueView("b", {})]
    pending = [*jobs("a", 9), *jobs("b", 9)]
    assert placed(pending, queues, recent={"a": {GPU: 4.0}}) == {"a": 2, "b": 6}


def test_use_fades_by_half_lives() -> None:
    history = History()
    history.note("q", {GPU: 8}, 0.0)
    assert history.average("q", HALF_LIFE_SECONDS)[GPU] == pytest.approx(4.0)
    history.note("q", {}, HALF_LIFE_SECONDS)
    assert history.average("q", 3 * HALF_LIFE_SECONDS)[GPU] == pytest.approx(1.0)
    again = History()
    again.begin("q", {GPU: 4.0}, HALF_LIFE_SECONDS)
    assert again.average("q", 3 * HALF_LIFE_SECONDS)[GPU] == pytest.approx(1.0)
    again.forget(["q"])
    assert again.averages(0.0) == {}
    assert faded({}, {}, 1.0, 1.0) == {}


def test_what_a_queue_is_due() -> None:
    views = {
        "x": QueueView("x", {}, weight=3),
        "x1": QueueView("x1", {GPU: 4}, parent="x"),
        "y": QueueView("y", {}),
        "idle": QueueView("idle", {}, weight=100),
        "lost": QueueView("lost", {}, parent="nowhere"),
    }
    snap = snapshot([node("n", gpus=8)])
    running = [Running(("team", "r"), gang(1, 6, fixed={0: "n"}), "x1")]
    found = usage(views, snap, running, ["y", "y", None])
    assert {n: (u.admitted, u.pending, u.share, u.fair_share) for n, u in found.items()} == {
        "x": (1, 0, 0.75, 0.75),
        "x1": (1, 0, 0.75, 0.75),
        "y": (0, 2, 0.0, 0.25),
        "idle": (0, 0, 0.0, 0.0),
        "lost": (0, 0, 0.0, 0.0),
    }
    assert found["x1"].use.borrowed == {GPU: 2}
    assert found["lost"].problem == "queue 'lost' has the parent 'nowhere', which does not exist"


def test_parts_of_what_is_not_there() -> None:
    assert dominant({GPU: 3}, {}) == 0.0
    assert fair_shares([], {}, 1.0) == {}


weights = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(
    weights, weights, st.integers(1, 9), st.integers(0, 12), st.integers(0, 12), st.integers(1, 2)
)
def test_a_greater_weight_never_gets_a_queue_less(
    mine: int, others: int, more: int, a: int, b: int, gpus: int
) -> None:
    """Queues that ask for equal pieces of one node."""
    pending = [*jobs("a", a, gpus), *jobs("b", b, gpus)]
    before = placed(pending, [QueueView("a", {}, mine), QueueView("b", {}, others)])
    after = placed(pending, [QueueView("a", {}, mine + more), QueueView("b", {}, others)])
    assert after.get("a", 0) >= before.get("a", 0)
    assert sum(before.values()) == sum(after.values()) == min(8 // gpus, a + b)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 12))
def test_decisions_depend_on_nothing_but_the_case(chance: random.Random, count: int) -> None:
    """Neither on the order of the input nor on the names of queues, as long as these sort alike."""
    names = ["a", "b", "c"]
    pending = [
        Pending(
            ("team", f"j{n:02}"),
            gang(chance.randint(1, 3), chance.randint(1, 8), key=("team", f"j{n:02}")),
            chance.choice(names),
            chance.randint(0, 1),
            float(n),
        )
        for n in range(count)
    ]
    views = {
        name: QueueView(name, {GPU: chance.randint(4, 20)}, chance.randint(1, 3)) for name in names
    }
    snap = snapshot([node("n1"), node("n2"), node("n3")])
    first = schedule(snap, pending, views)
    shuffled = chance.sample(pending, len(pending))
    assert schedule(snap, shuffled, views) == first
    other = {"a": "team-1", "b": "team-2", "c": "team-3"}
    renamed = schedule(
        snap,
        [Pending(p.key, p.request, other[p.queue or ""], p.priority, p.created) for p in pending],
        {other[n]: QueueView(other[n], v.quota, v.weight) for n, v in views.items()},
    )
    assert [(d.key, d.placed) for d in renamed] == [(d.key, d.placed) for d in first]
