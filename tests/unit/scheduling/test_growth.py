"""Elastic gangs that are smaller than they may be, and when they are stopped to grow."""

from dataclasses import replace

import pytest

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.decision import Reservation
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import GPU, gang, node, snapshot

KEY = ("default", "small")


def full(*names: str) -> Snapshot:
    """Four nodes, of which the gang and these are taken."""
    snap = snapshot(node(f"n{at}", "z/b/r") for at in range(4))
    taken = ["n0", "n1", *names]
    return snap.assume(Reservation(("x", "x"), at, name, {GPU: 8}) for at, name in enumerate(taken))


def case(snap: Snapshot, **changes: object) -> Case:
    """A gang of two on n0 and n1 that may have three or four."""
    there = replace(gang(2, 8, key=KEY), missing=(), fixed={0: "n0", 1: "n1"})
    wish = replace(gang(4, 8, key=KEY), sizes=(4, 3))
    return Case(
        snap,
        pending=(Pending(KEY, wish, extra=True, charged=True),),
        running=(Running(KEY, there),),
        **changes,
    )


def grown(found: Case) -> list[tuple[str, str]]:
    return [(e.cause, e.message) for each in found.decide() for e in each.evictions]


@pytest.mark.parametrize(("taken", "size"), [((), 4), (("n3",), 3)])
def test_it_grows_as_far_as_there_is_room(taken: tuple[str, ...], size: int) -> None:
    (told,) = grown(case(full(*taken)))
    assert told == (
        "Grown",
        f"there is room for {size} replicas in place of 2: it goes on with these",
    )


def test_without_room_it_stays_as_it_is() -> None:
    assert grown(case(full("n2", "n3"))) == []


def test_nobody_waits_for_a_gang_that_grows() -> None:
    found = case(full())
    waiting = Pending(("default", "large"), gang(8, 8, key=("default", "large")))
    assert grown(replace(found, pending=(*found.pending, waiting))) == []


def test_nothing_grows_while_room_is_on_its_way() -> None:
    found = case(full())
    leaving = Running(("default", "gone"), gang(1, 8, fixed={0: "n3"}), leaving=True)
    assert grown(replace(found, running=(*found.running, leaving))) == []


def test_it_grows_within_the_limits_of_its_queue() -> None:
    found = case(full())
    (pending,) = found.pending
    (running,) = found.running
    for limit, expected in ((16, 0), (24, 1)):
        queue = QueueView("q", {GPU: limit})
        limited = replace(
            found,
            pending=(replace(pending, queue="q"),),
            running=(replace(running, queue="q"),),
            queues={"q": queue},
        )
        assert len(grown(limited)) == expected
