"""Gangs that lost ranks: spares, the smallest part that moves."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.decision import Placed, Reservation
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.repair import from_spares, smallest_part
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import GPU, faults, gang, node, snapshot


def holds(snap: Snapshot, *names: str, key: tuple[str, str] = ("x", "x")) -> Snapshot:
    """The snapshot with these nodes taken."""
    return snap.assume(Reservation(key, at, name, {GPU: 8}) for at, name in enumerate(names))


def racks(count: int, size: int) -> Snapshot:
    """Racks of whole nodes in one block: n0, n1, ..."""
    return snapshot(node(f"n{at}", f"z/b/{at // size}") for at in range(count * size))


def lost(replicas: int, *missing: int, level: str | None = None, **rest: object) -> GangRequest:
    """A gang on n0, n1, ... that lost some ranks with their nodes."""
    fixed = {at: f"n{at}" for at in range(replicas) if at not in missing}
    avoid = frozenset(f"n{at}" for at in missing)
    topology = {"required": level, **rest}
    return gang(replicas, 8, topology, fixed=fixed, avoid=avoid)


def test_several_lost_ranks_are_replaced_in_one_decision_in_their_rack() -> None:
    snap = holds(racks(2, 6), "n0", "n1", "n2", "n3")
    request = lost(4, 1, 2, level="rack")
    assert smallest_part(snap, request) == request
    placed = place(snap, request)
    assert isinstance(placed, Placed)
    assert set(placed.nodes.values()) == {"n4", "n5"}


def test_the_whole_gang_goes_to_another_rack_where_its_own_has_no_room() -> None:
    snap = holds(racks(2, 4), "n0", "n1", "n2", "n3")
    request = lost(4, 3, level="rack")
    wider = smallest_part(snap, request)
    assert (wider.missing, dict(wider.fixed)) == ((0, 1, 2, 3), {})
    placed = place(snap, wider)
    assert isinstance(placed, Placed)
    assert placed.domain == "z/b/1"


def test_one_rank_group_moves_rather_than_the_gang() -> None:
    """Groups of two in one rack each: the rack of the lost rank is full, another has two nodes."""
    snap = holds(racks(3, 2), "n0", "n1", "n2", "n3")
    request = lost(4, 3, level="block", groups=[{"size": 2, "level": "rack"}])
    wider = smallest_part(snap, request)
    assert (wider.missing, dict(wider.fixed)) == ((2, 3), {0: "n0", 1: "n1"})
    placed = place(snap, wider)
    assert isinstance(placed, Placed)
    assert dict(placed.nodes) == {2: "n4", 3: "n5"}


def test_what_fits_nowhere_asks_for_no_more_than_it_lost() -> None:
    snap = holds(racks(1, 4), "n0", "n1", "n2", "n3")
    request = lost(4, 3, level="rack")
    assert smallest_part(snap, request) is request


def test_a_spare_is_for_its_own_gang_alone() -> None:
    snap = holds(racks(1, 4), "n0", "n1", "n2", "n3")  # n3 is the spare
    request = lost(3, 1, level="rack")
    other = gang(1, 8, key=("team", "other"))
    pending = (
        Pending(other.key, other, priority=100),
        Pending(request.key, request, charged=True, spares=("n3",)),
    )
    decisions = {d.key[1]: d for d in Case(snap, pending).decide()}
    mine = decisions["job"].placed
    assert mine is not None
    assert dict(mine.nodes) == {1: "n3"}
    assert decisions["other"].placed is None


def test_a_used_spare_is_replaced_while_nobody_waits() -> None:
    snap = holds(racks(1, 4), "n0", "n1", "n2")
    whole = lost(3, level="rack")
    request = replace(whole, roles=(*whole.roles, whole.roles[0].spare(1)), missing=(3,))
    more = Pending(request.key, request, charged=True, extra=True)
    (decision,) = Case(snap, (more,)).decide()
    assert decision.placed is not None
    assert decision.placed.all_nodes == ("n0", "n1", "n2", "n3")
    waits = gang(2, 8, key=("team", "waits"))
    decisions = Case(snap, (more, Pending(waits.key, waits))).decide()
    assert [d.placed for d in decisions] == [None, None], "it takes nothing from one that waits"
    full = Case(holds(snap, "n3", key=("y", "y")), (more,)).decide()
    assert full[0].reason is None, "a gang without its spares is no gang that waits"


@settings(max_examples=80, deadline=None)
@given(
    taken=st.sets(st.integers(3, 11)),
    spares=st.lists(st.integers(0, 11), max_size=3, unique=True),
    missing=st.sets(st.integers(0, 2), min_size=1),
    level=st.sampled_from([None, "rack", "block"]),
)
def test_repairs_break_no_rule(
    taken: set[int], spares: list[int], missing: set[int], level: str | None
) -> None:
    own = {0, 1, 2}
    kept = [f"n{at}" for at in spares if at not in own | taken]
    busy = {f"n{at}" for at in taken | own} | set(kept)
    snap = holds(racks(3, 4), *sorted(busy))
    request = lost(3, *missing, level=level)
    found = from_spares(snap, request, kept)
    if found is not None:
        placed, after = found
        open_ = snap.release(Reservation(("t", "s"), at, n, {GPU: 8}) for at, n in enumerate(kept))
        assert not faults(open_, request, placed.nodes)
        assert (after.free >= 0).all()
        left = [name for name in kept if name not in placed.nodes.values()]
        assert all(after.free_of(name)[GPU] == 0 for name in left), "the others stay kept"
    wider = smallest_part(snap, request)
    answer = place(snap, wider)
    if isinstance(answer, Placed):
        assert set(wider.missing) >= missing
        assert not faults(snap, wider, answer.nodes)
    else:
        everyone = replace(request, missing=(0, 1, 2), fixed={})
        assert not isinstance(place(snap, everyone), Placed)


@pytest.mark.parametrize("spares", [1, 2])
def test_spares_are_placed_with_the_gang(spares: int) -> None:
    """They count as further ranks: in its domain, and the gang waits for them."""
    snap = racks(1, 4)
    request = gang(3 + spares, 8, {"required": "rack"})
    assert isinstance(place(snap, request), Placed) == (spares == 1)


def test_a_gang_that_lacks_a_spare_is_charged_once() -> None:
    """It runs, and asks for more at the same time."""
    snap = holds(racks(1, 6), "n0", "n1", "n2")
    held = gang(3, 8, missing=(), fixed={at: f"n{at}" for at in range(3)})
    lacks = replace(
        lost(3, level="rack"), roles=(*held.roles, held.roles[0].spare(1)), missing=(3,)
    )
    other = gang(3, 8, key=("team", "other"))
    case = Case(
        snap,
        (
            Pending(held.key, lacks, queue="q", charged=True, extra=True),
            Pending(other.key, other, queue="q"),
        ),
        running=(Running(held.key, held, queue="q"),),
        queues={"q": QueueView("q", {GPU: 48})},
    )
    decisions = {decision.key[1]: decision for decision in case.decide()}
    assert decisions["other"].placed is not None, decisions["other"].reason
