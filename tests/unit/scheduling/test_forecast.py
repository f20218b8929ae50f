"""When room is expected: as soon as enough of the gangs that will end have ended, and no sooner."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.forecast import Forecast, differs, forecast
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Running
from support.scheduling import gang, node, snapshot

NOW = 1_800_000_000.0


def running(name: str, nodes: list[str], gpus: int, ends: float | None) -> Running:
    request = gang(len(nodes), gpus, key=("team", name), fixed=dict(enumerate(nodes)), missing=())
    return Running(("team", name), request, ends=ends)


def with_gangs(*gangs: Running, racks: int = 2) -> Snapshot:
    """Two nodes of 8 in each rack, less what the gangs hold."""
    nodes = [node(f"n{at}", f"z/b/r{at // 2}") for at in range(2 * racks)]
    return snapshot(nodes).assume(rank for each in gangs for rank in each.reservations)


def verdict(snap: Snapshot, request: GangRequest) -> Unplaced:
    answer = place(snap, request)
    assert isinstance(answer, Unplaced)
    return answer


def test_the_end_that_makes_the_room_is_named() -> None:
    x = running("x", ["n0", "n1"], 8, NOW + 1200)
    y = running("y", ["n2", "n3"], 8, None)
    snap, request = with_gangs(x, y), gang(2, 8, {"required": "rack"})
    found = forecast(snap, request, [x, y], NOW)
    assert found == Forecast(NOW + 1200, (("team", "x"),))
    assert found.sentence(verdict(snap, request)) == (
        "room for 2 more is expected by about 2027-01-15 08:20 UTC, when team/x ends"
    )


def test_ends_that_are_of_no_use_are_left_out() -> None:
    small = running("small", ["n0"], 1, NOW + 10)
    x = running("x", ["n2"], 8, NOW + 60)
    y = running("y", ["n3"], 8, NOW + 90)
    snap = with_gangs(small, x, y)
    assert forecast(snap, gang(2, 8, {"required": "rack"}), [small, x, y], NOW) == Forecast(
        NOW + 10, (("team", "small"),)
    )
    late = running("late", ["n1"], 8, None)
    snap = with_gangs(small, x, y, late)
    found = forecast(snap, gang(2, 8, {"required": "rack"}), [small, x, y, late], NOW)
    assert found == Forecast(NOW + 90, (("team", "y"), ("team", "x")))


def test_several_are_counted() -> None:
    found = Forecast(NOW, tuple(("team", name) for name in "abcd"))
    words = found.sentence(Unplaced("", need=9, best=5))
    assert words.startswith("room for 4 more")
    assert words.endswith("when team/a, team/b and 2 others end")


def test_no_known_end_helps() -> None:
    x = running("x", ["n0"], 8, NOW + 60)
    snap = with_gangs(x)
    assert forecast(snap, gang(9, 8), [x], NOW) is None
    assert forecast(snap, gang(9, 8), [], NOW) is None
    assert forecast(snap, gang(4, requests={"vendor.example/nic": 1}), [x], NOW) is None
    assert forecast(snap, gang(4, 8, {"required": "galaxy"}), [x], NOW) is None


def test_what_is_overdue_ends_at_any_moment() -> None:
    x = running("x", ["n0"], 8, NOW - 60)
    found = forecast(with_gangs(x), gang(4, 8), [x], NOW)
    assert found is not None
    assert found.at == NOW


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (None, None, False),
        (None, 5.0, True),
        (5.0, None, True),
        (NOW + 1000, NOW + 1150, False),
        (NOW + 1000, NOW + 1300, True),
        (NOW + 30, NOW + 80, False),
        (NOW - 500, NOW + 300, True),
    ],
)
def test_an_estimate_is_told_anew_when_it_moved_by_much(
    old: float | None, new: float | None, told: bool
) -> None:
    assert differs(old, new, NOW) is told


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_it_is_the_first_moment_at_which_the_gang_fits(data: st.DataObject) -> None:
    draw = data.draw
    names = [f"n{at}" for at in range(6)]
    snap = snapshot([node(name, f"z/b{at // 4}/r{at // 2}") for at, name in enumerate(names)])
    gangs: list[Running] = []
    for at in range(draw(st.integers(0, 6))):
        where = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        each = running(f"g{at}", where, draw(st.integers(1, 4)), draw(st.none() | st.floats(0, 9)))
        taken = snap.assume(each.reservations)
        if all(free >= 0 for name in names for free in taken.free_of(name).values()):
            snap = taken
            gangs.append(each)
    level = draw(st.sampled_from([None, "block", "rack", "host"]))
    request = gang(draw(st.integers(1, 5)), draw(st.integers(1, 8)), {"required": level})
    if isinstance(place(snap, request), Placed):
        return
    found = forecast(snap, request, gangs, 0.0)
    ending = sorted((g for g in gangs if g.ends is not None), key=lambda g: (g.ends, g.key))
    left, expected = snap, None
    for each in ending:
        left = left.release(each.reservations)
        if isinstance(place(left, request), Placed):
            expected = each.ends
            break
    assert (found.at if found else None) == expected
    if found is not None:
        # Those that are named are enough, and each of them is needed.
        named = [g for g in gangs if g.key in found.gangs]
        freed = snap.release(rank for g in named for rank in g.reservations)
        assert isinstance(place(freed, request), Placed)
        for each in named:
            assert isinstance(place(freed.assume(each.reservations), request), Unplaced)
