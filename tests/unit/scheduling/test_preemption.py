"""Who is evicted: against brute force on small clusters, and the cases that users of others report."""

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.preemption import Preemption, choose, cost
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Running
from support.scheduling import GPU, faults, gang, node, pod, snapshot

NOW = 100_000.0


def running(name: str, where: list[str], gpus: int = 8, **rest: object) -> Running:
    """A gang with a rank on each of these nodes."""
    key = ("team", name)
    ports = rest.pop("host_ports", ())
    request = gang(
        len(where), gpus, key=key, missing=(), fixed=dict(enumerate(where)), host_ports=ports
    )
    return Running(key, request, **{"placed": NOW - 3600, **rest})  # type: ignore[arg-type]


def holding(snap: Snapshot, gangs: list[Running]) -> Snapshot:
    """The snapshot with the gangs in place."""
    return snap.assume(rank for each in gangs for rank in each.reservations)


def without(snap: Snapshot, gangs: tuple[Running, ...] | list[Running]) -> Snapshot:
    """The snapshot once the gangs are gone."""
    return snap.release(rank for each in gangs for rank in each.reservations)


def names(answer: Preemption | Unplaced) -> list[str]:
    """The victims of an answer that has some."""
    assert isinstance(answer, Preemption), answer
    return [each.key[1] for each in answer.victims]


# Against brute force -----------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> tuple[Snapshot, GangRequest, list[Running]]:
    """A few racks with gangs on them, and a request."""
    places = ["z/a/1", "z/a/2", "z/b/1", "z//"]
    nodes = [
        node(
            f"n{at}",
            draw(st.sampled_from(places)),
            gpus=4,
            unschedulable=draw(st.integers(0, 9)) > 8,
        )
        for at in range(draw(st.integers(1, 6)))
    ]
    known = [each.name for each in nodes]
    snap = snapshot(
        nodes,
        [
            pod(f"p{at}", draw(st.sampled_from(known)), draw(st.integers(1, 2)))
            for at in range(draw(st.integers(0, 2)))
        ],
    )
    ports = st.sampled_from([(), (), (("", "TCP", 80),)])
    gangs: list[Running] = []
    for at in range(draw(st.integers(0, 6))):
        key = ("team", f"g{at}")
        wanted = gang(
            draw(st.integers(1, 3)), draw(st.integers(1, 4)), key=key, host_ports=draw(ports)
        )
        found = place(snap, wanted)
        if isinstance(found, Unplaced):
            continue
        each = Running(
            key,
            replace(wanted, missing=(), fixed=dict(found.nodes)),
            priority=draw(st.integers(0, 2)),
            placed=NOW - draw(st.sampled_from([30, 300, 3000])),
            saved=draw(st.sampled_from([None, NOW - 10, NOW - 200])),
            restarts=draw(st.integers(0, 2)),
            leaving=draw(st.integers(0, 9)) > 8,
        )
        gangs.append(each)
        # What leaves is gone already in the snapshot that the choice is made on.
        snap = snap if each.leaving else snap.assume(found)
    topology: dict[str, Any] = {"required": draw(st.sampled_from([None, "block", "rack", "host"]))}
    if grouped := draw(st.booleans()):
        topology["groups"] = [{"size": 2, "level": draw(st.sampled_from(["rack", "host"]))}]
    fixed = {}
    if draw(st.integers(0, 3)) == 3:
        fixed = {0: draw(st.sampled_from(known))}
    replicas = draw(st.integers(1, 4)) + len(fixed)
    request = gang(
        replicas + (replicas % 2 if grouped else 0),
        draw(st.integers(1, 4)),
        topology,
        key=("team", "waits"),
        fixed=fixed,
        host_ports=draw(ports),
    )
    return snap, request, gangs


def quotas(gangs: list[Running]) -> st.SearchStrategy[Callable[[frozenset[Key]], bool]]:
    """No quota, or one that asks for some of the gangs or a number of them."""
    keys = [each.key for each in gangs]

    def one_of(keys: frozenset[Key]) -> Callable[[frozenset[Key]], bool]:
        return lambda gone: bool(keys & gone)

    def several(count: int) -> Callable[[frozenset[Key]], bool]:
        return lambda gone: len(gone) >= count

    return st.one_of(
        st.just(several(0)),
        st.just(several(0)),
        st.integers(1, 3).map(several),
        st.frozensets(st.sampled_from(keys or [("", "")]), min_size=1).map(one_of),
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_choice_is_the_cheapest_that_makes_the_request_fit(data: st.DataObject) -> None:
    snap, request, gangs = data.draw(cases())
    quota = data.draw(quotas(gangs))
    answer = choose(snap, request, gangs, quota, NOW)

    def fits(victims: list[Running] | tuple[Running, ...]) -> bool:
        placed = place(without(snap, victims), request)
        return isinstance(placed, Placed) and quota(frozenset(each.key for each in victims))

    allowed = [each for each in gangs if not each.leaving]
    ways = [
        cost(some, NOW)
        for size in range(len(allowed) + 1)
        for some in itertools.combinations(allowed, size)
        if fits(some)
    ]
    if isinstance(answer, Unplaced):
        assert not ways
        return
    assert all(each in allowed for each in answer.victims)
    assert cost(answer.victims, NOW) == min(ways)
    assert fits(answer.victims)
    assert not faults(without(snap, answer.victims), request, answer.placed.nodes)
    for one in answer.victims:
        assert not fits([each for each in answer.victims if each is not one]), (
            f"{one.key} for nothing"
        )
    if fits([]):
        assert answer.victims == ()
    shuffled = data.draw(st.permutations(gangs))
    assert choose(snap, request, shuffled, quota, NOW) == answer


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_many_gangs_are_chosen_from_without_waste(seed: int) -> None:
    """Beyond the bound of the exact search: it fits, and nobody goes for nothing."""
    rng = random.Random(seed)
    snap = snapshot(node(f"n{at}", f"z/b/{at // 4}") for at in range(16))
    gangs: list[Running] = []
    for at in range(60):
        wanted = gang(rng.randint(1, 4), rng.choice([1, 2, 4, 8]), key=("team", f"g{at}"))
        found = place(snap, wanted)
        if isinstance(found, Placed):
            snap = snap.assume(found)
            request = replace(wanted, missing=(), fixed=dict(found.nodes))
            gangs.append(
                Running(
                    wanted.key, request, priority=rng.randint(0, 2), placed=NOW - rng.random() * 9e3
                )
            )
    level = rng.choice([None, "rack", "host"])
    size = {"rack": 4, "host": 1}.get(level or "", 10)
    request = gang(rng.randint(1, size), 8, {"required": level}, key=("team", "waits"))
    answer = choose(snap, request, gangs, now=NOW)
    assert isinstance(answer, Preemption)
    for one in answer.victims:
        rest = [each for each in answer.victims if each is not one]
        assert isinstance(place(without(snap, rest), request), Unplaced)
    top = max((each.priority for each in answer.victims), default=None)
    if top is not None:
        lower = [each for each in gangs if each.priority < top]
        assert isinstance(place(without(snap, lower), request), Unplaced), (
            "a lower priority would do"
        )


# What users of others report ---------------------------------------------------------------------


def test_pods_on_one_node_go_rather_than_pods_spread_over_nodes() -> None:
    """kueue#5243: eight devices are freed, one on each of eight nodes, and nothing fits."""
    snap = snapshot(node(f"n{at}") for at in range(8))
    spread = [running(f"spread-{at}", [f"n{at}"], 1, placed=NOW - 1) for at in range(8)]
    large = [running(f"large-{at}", [f"n{at}"], 7) for at in range(8)]
    answer = choose(
        holding(snap, [*spread, *large]), gang(1, 8, key=("team", "waits")), spread + large, now=NOW
    )
    victims = names(answer)
    assert len(victims) == 2
    assert victims[0].removeprefix("large-") == victims[1].removeprefix("spread-")


def test_a_whole_rack_is_freed_inside_one_rack() -> None:
    """KAI#1591: a gang that requires a rack can't get it from cheap gangs in several."""
    snap = snapshot(node(f"n{at}", f"z/b/{at // 4}") for at in range(12))
    gangs = [
        running(f"g{at}", [f"n{at}"], saved=NOW - (300 if at >= 8 else 60 * at)) for at in range(12)
    ]
    answer = choose(
        holding(snap, gangs),
        gang(4, 8, {"required": "rack"}, key=("team", "waits")),
        gangs,
        now=NOW,
    )
    assert names(answer) == ["g0", "g1", "g2", "g3"]
    assert isinstance(answer, Preemption)
    assert answer.placed.level == "rack"


def test_enough_is_evicted_when_gangs_share_nodes() -> None:
    """kueue#10497, #13320: victims that overlap on nodes count once, and none too few go."""
    snap = snapshot(node(f"n{at}") for at in range(2))
    gangs = [running("both", ["n0", "n1"], 4), running("a", ["n0"], 4), running("b", ["n1"], 4)]
    answer = choose(holding(snap, gangs), gang(2, 8, key=("team", "waits")), gangs, now=NOW)
    assert names(answer) == ["a", "b", "both"]
    one = choose(holding(snap, gangs), gang(1, 8, key=("team", "waits")), gangs, now=NOW)
    assert len(names(one)) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"priority": 1, "saved": NOW - 3000}, {"priority": 2, "saved": NOW - 1}),
        ({"saved": NOW - 59, "restarts": 5}, {"saved": NOW - 120}),
        ({"restarts": 1}, {"restarts": 2}),
        ({"placed": NOW - 3590}, {"placed": NOW - 3599}),
    ],
    ids=["priority", "lost work", "restarts", "newest"],
)
def test_what_decides_between_two(one: dict[str, float], other: dict[str, float]) -> None:
    snap = snapshot([node("n0"), node("n1")])
    for first, second in itertools.permutations(["a", "b"]):
        gangs = [running(first, ["n0"], **one), running(second, ["n1"], **other)]
        answer = choose(holding(snap, gangs), gang(1, 8, key=("team", "w")), gangs, now=NOW)
        assert names(answer) == [first]


def test_a_gang_that_can_fit_nowhere_says_that_evictions_would_not_help() -> None:
    snap = snapshot([node("n0"), node("n1")])
    gangs = [running("a", ["n0", "n1"])]
    answer = choose(holding(snap, gangs), gang(3, 8, key=("team", "waits")), gangs, now=NOW)
    assert isinstance(answer, Unplaced)
    assert "evicting the one gang that may go would not do" in answer.reason


def test_quota_is_freed_where_room_is_not_lacking() -> None:
    snap = snapshot(node(f"n{at}") for at in range(4))
    gangs = [running("a", ["n0"], priority=1), running("b", ["n1"], priority=2)]
    request = gang(1, 8, key=("team", "waits"))
    held = holding(snap, gangs)
    assert names(choose(held, request, gangs, lambda gone: ("team", "b") in gone, NOW)) == ["b"]
    answer = choose(held, request, gangs, lambda _: False, NOW)
    assert isinstance(answer, Unplaced)
    assert "quota" in answer.reason


def test_what_cannot_be_judged_is_answered_as_placement_answers_it() -> None:
    snap = snapshot([node("n0")])
    gangs = [running("a", ["n0"])]
    unknown = gang(1, 8, {"required": "galaxy"}, key=("team", "waits"))
    missing = gang(1, key=("team", "waits"), requests={"example.com/fpga": 1})
    gone = gang(2, 8, key=("team", "waits"), fixed={0: "lost"})
    for request in (unknown, missing, gone):
        held = holding(snap, gangs)
        assert choose(held, request, gangs, now=NOW) == place(held, request)


def test_amounts_besides_devices_are_freed_too() -> None:
    snap = snapshot([node("n0", allocatable={"cpu": 8000})])
    request = gang(1, 1, requests={GPU: 1, "cpu": 6000}, key=("team", "waits"))
    hog = replace(
        running("hog", ["n0"], 0),
        request=gang(1, requests={"cpu": 4000}, key=("team", "hog"), missing=(), fixed={0: "n0"}),
    )
    idle = running("idle", ["n0"], 4, placed=NOW - 1)
    assert names(choose(holding(snap, [hog, idle]), request, [hog, idle], now=NOW)) == ["hog"]
