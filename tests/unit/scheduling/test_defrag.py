"""Moving running gangs so that a waiting one fits."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.defrag import (
    RESTART_SECONDS,
    UNKNOWN_SECONDS,
    Defragmentation,
    defragment,
    expected_wait,
    movable,
)
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import faults, gang, node, snapshot

NOW = 100_000.0


def running(
    name: str, where: list[str], gpus: int = 8, level: str | None = None, **rest: object
) -> Running:
    """A checkpointed gang that has been in place for an hour."""
    key = ("team", name)
    request = gang(
        len(where), gpus, {"required": level}, key=key, missing=(), fixed=dict(enumerate(where))
    )
    return Running(key, request, **{"placed": NOW - 3600, "saved": NOW - 30, **rest})  # type: ignore[arg-type]


def waits(request: GangRequest, priority: int = 0) -> Pending:
    return Pending(request.key, request, priority=priority)


def holding(snap: Snapshot, gangs: list[Running]) -> Snapshot:
    return snap.assume(rank for each in gangs for rank in each.reservations)


def fragmented(**rest: object) -> tuple[Snapshot, list[Running]]:
    """Three racks of two nodes, each with one node in use: no rack is whole, three nodes are free."""
    gangs = [running(f"g{rack}", [f"n{2 * rack}"], **rest) for rack in range(3)]
    snap = snapshot(node(f"n{at}", f"z/b/{at // 2}") for at in range(6))
    return holding(snap, gangs), gangs


RACK = gang(2, 8, {"required": "rack"}, key=("team", "waits"))


def test_a_gang_is_moved_out_of_the_rack_that_another_waits_for() -> None:
    snap, gangs = fragmented()
    gangs[1] = replace(gangs[1], saved=NOW - 1)
    gangs[0] = replace(gangs[0], saved=NOW - 200)
    gangs[2] = replace(gangs[2], saved=NOW - 300)
    way = defragment(snap, waits(RACK), gangs, NOW)
    assert way is not None
    (move,) = way.moves
    assert move.gang.key == ("team", "g1")
    assert way.placed.domain == "z/b/1"
    assert way.cost == 8 * (1 + RESTART_SECONDS)
    assert way.gain == 16 * UNKNOWN_SECONDS
    (eviction,) = way.evictions
    assert (eviction.cause, eviction.beneficiary, eviction.to) == ("Moved", RACK.key, move.to)
    assert "team/waits (2 replicas) fits in rack z/b/1" in eviction.message
    assert "costs 8 device minutes" in eviction.message


@pytest.mark.parametrize(
    "rest",
    [
        {"movable": False},
        {"saved": None},
        {"leaving": True},
        {"priority": 1},
        {"placed": NOW - 60},
        {"saved": NOW - 3600, "placed": NOW - 9000, "ends": NOW + 60},
    ],
    ids=["not movable", "no checkpoint", "leaves", "higher priority", "just came", "ends soon"],
)
def test_who_is_not_moved(rest: dict[str, object]) -> None:
    snap, gangs = fragmented(**rest)
    assert defragment(snap, waits(RACK), gangs, NOW) is None


def test_nothing_is_moved_where_it_fits_or_where_too_little_is_free_in_all() -> None:
    snap, gangs = fragmented()
    assert defragment(snap, waits(gang(3, 8, key=RACK.key)), gangs, NOW) is None
    assert (
        defragment(snap, waits(gang(4, 8, {"required": "block"}, key=RACK.key)), gangs, NOW) is None
    )
    assert (
        defragment(snap, waits(gang(2, 8, {"required": "moon"}, key=RACK.key)), gangs, NOW) is None
    )


def test_no_gang_gets_a_wider_place_than_it_had() -> None:
    """A gang inside one rack is not torn, though nothing requires it to stay whole."""
    snap = snapshot(node(f"n{at}", f"z/b/{at // 4}") for at in range(12))
    pair = running("pair", ["n0", "n1"])
    rest = [running(f"g{at}", [f"n{at}"], movable=False) for at in (5, 6, 7, 9, 10, 11)]
    held = holding(snap, [pair, *rest])
    whole = gang(4, 8, {"required": "rack"}, key=("team", "waits"))
    assert defragment(held, waits(whole), [pair, *rest], NOW) is None
    apart = [running("a", ["n0"]), running("b", ["n1"])]
    held = holding(snap, [*apart, *rest])
    way = defragment(held, waits(whole), [*apart, *rest], NOW)
    assert way is not None
    assert {m.gang.key[1]: dict(m.to.nodes) for m in way.moves} == {"a": {0: "n4"}, "b": {0: "n8"}}


def test_only_ranks_in_the_way_move() -> None:
    snap = snapshot(node(f"n{at}", f"z/b/{at // 3}") for at in range(6))
    wide = running("wide", ["n1", "n3"])
    fixed = running("fixed", ["n4"], movable=False)
    held = holding(snap, [wide, fixed])
    request = gang(3, 8, {"required": "rack"}, key=("team", "waits"))
    way = defragment(held, waits(request), [wide, fixed], NOW)
    assert way is not None
    (move,) = way.moves
    assert (dict(move.to.nodes), dict(move.to.request.fixed)) == ({0: "n5"}, {1: "n3"})


def test_the_wait_is_read_from_those_that_end() -> None:
    snap, gangs = fragmented()
    assert expected_wait(snap, RACK, gangs, NOW) == UNKNOWN_SECONDS
    ends = [replace(each, ends=NOW + 100 * (3 - at)) for at, each in enumerate(gangs)]
    assert expected_wait(snap, RACK, ends, NOW) == 100


def judge(snap: Snapshot, gangs: list[Running], request: GangRequest, way: Defragmentation) -> None:
    """All that must hold of a way, found out without the code that found it."""
    assert len({m.gang.key for m in way.moves}) == len(way.moves) > 0
    assert way.cost < way.gain
    assert isinstance(place(snap, request), Unplaced)
    # New places are free while the old ones are still held and the waiting gang's is kept.
    crowded = snap.assume(way.placed)
    for move in way.moves:
        assert movable(move.gang, 0, NOW)
        assert not faults(crowded, move.to.request, move.to.nodes)
        crowded = crowded.assume(move.to)
    after = snap
    for move in way.moves:
        gone = [rank for rank in move.gang.reservations if rank.replica in move.to.nodes]
        after = after.release(gone).assume(move.to)
    assert not faults(after, request, way.placed.nodes)
    assert (after.assume(way.placed).free >= 0).all()
    for one in way.moves:
        rest = snap
        for move in way.moves:
            if move is not one:
                gone = [rank for rank in move.gang.reservations if rank.replica in move.to.nodes]
                rest = rest.release(gone).assume(move.to)
        assert faults(rest, request, way.placed.nodes), "it moves for nothing"


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31))
def test_the_waiting_and_the_moved_fit_together(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"n{at}" for at in range(rng.choice([8, 12, 16]))]
    snap = snapshot(node(name, f"z/{at // 8}/{at // 4}") for at, name in enumerate(names))
    gangs: list[Running] = []
    for at in range(rng.randint(3, len(names))):
        level = rng.choice([None, None, "rack", "host"])
        size = 1 if level == "host" else rng.choice([1, 1, 2])
        wanted = gang(size, rng.choice([2, 4, 8]), {"required": level}, key=("team", f"g{at}"))
        # Not packed: as after many have come and gone.
        few = frozenset(rng.sample(names, len(names) * 3 // 4))
        found = place(snap, replace(wanted, avoid=few))
        if isinstance(found, Placed):
            snap = snap.assume(found)
            gangs.append(
                Running(
                    wanted.key,
                    replace(wanted, missing=(), fixed=dict(found.nodes)),
                    placed=NOW - rng.choice([100, 1000, 5000, 5000]),
                    saved=rng.choice([None, NOW - 20, NOW - 50, NOW - 500]),
                    movable=rng.random() < 0.9,
                    ends=rng.choice([None, None, NOW + 30, NOW + 9000]),
                )
            )
    request = gang(rng.randint(2, 4), 8, {"required": "rack"}, key=("team", "w"))
    way = defragment(snap, waits(request), gangs, NOW)
    assert defragment(snap, waits(request), gangs[::-1], NOW) == way
    if way is not None:
        judge(snap, gangs, request, way)
        assert way.gain == expected_wait(snap, request, gangs, NOW) * request.devices
