"""Replicas that are kept apart: no domain of a level holds more than so many."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar.v1alpha1.gang import TopologyRequest, TopologySpread
from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.repair import smallest_part
from drakkar_operator.scheduling.request import GangRequest, Role
from drakkar_operator.scheduling.snapshot import Snapshot
from support.scheduling import (
    GPU,
    KEY,
    every_placement,
    faults,
    gang,
    node,
    placed,
    pod,
    snapshot,
)

NODES = [
    node(f"{rack}{at}", f"z/{'x' if rack < 'c' else 'y'}/{rack}", gpus=4)
    for rack in "abcd"
    for at in (1, 2)
]
"""Two blocks of two racks of two nodes of four devices."""


def racks(answer: Placed) -> list[int]:
    """Replicas per rack."""
    return sorted(Counter(name[0] for name in answer.all_nodes).values())


def apart(most: int, level: str = "rack", **topology: object) -> dict[str, object]:
    return {"spread": {"level": level, "maxPerDomain": most}, **topology}


def test_as_close_as_the_spread_allows() -> None:
    answer = placed(snapshot(NODES), gang(6, 1, apart(3)))
    assert racks(answer) == [3, 3]
    assert answer.level == "block"
    answer = placed(snapshot(NODES), gang(8, 1, apart(2)))
    assert racks(answer) == [2, 2, 2, 2]
    assert Counter(answer.all_nodes).most_common(1)[0][1] == 2, "the rest of a rack stays whole"


def test_one_to_a_host() -> None:
    answer = placed(snapshot(NODES), gang(4, 1, apart(1, "host")))
    assert len(set(answer.all_nodes)) == 4
    assert answer.level == "block"


def test_groups_stay_whole_and_groups_are_kept_apart() -> None:
    topology = apart(4, groups=[{"size": 4, "level": "rack"}])
    answer = placed(snapshot(NODES), gang(8, 1, topology))
    assert racks(answer) == [4, 4]
    assert len({name[0] for name in answer.all_nodes[:4]}) == 1


def test_a_spread_that_the_level_cannot_hold_is_told_with_its_numbers() -> None:
    answer = place(snapshot(NODES), gang(6, 1, apart(2, required="block")))
    assert isinstance(answer, Unplaced)
    assert answer.reason.startswith(
        "needs 6 replicas with 1 nvidia.com/gpu each, at most 2 in one rack in one block; "
        "the best block (z/x) has room for 4"
    )


def test_a_lost_replica_comes_back_within_the_spread() -> None:
    """The rack of the others is full by the rule, not by its devices."""
    snap = snapshot(NODES, [pod("p", "b1", 4), pod("q", "b2", 4)])
    request = gang(4, 1, apart(2), fixed={0: "a1", 1: "a1", 2: "c1"})
    answer = placed(snap, request)
    assert answer.nodes[3][0] in "cd"
    # Where it can't, a hint does not break the rule either.
    hinted = placed(snapshot(NODES), gang(3, 1, apart(2), hint={0: "a1", 1: "a1", 2: "a1"}))
    assert max(racks(hinted)) == 2


def test_an_elastic_gang_gets_the_size_that_the_spread_allows() -> None:
    answer = placed(snapshot(NODES), gang(8, 1, apart(1), sizes=(8, 6, 4, 2)))
    assert answer.request.replicas == 4


def test_a_group_that_is_tied_beyond_the_spread_moves_as_a_whole() -> None:
    topology = apart(1, groups=[{"size": 2, "level": "rack"}])
    request = gang(2, 1, topology, fixed={0: "a1"})
    assert isinstance(place(snapshot(NODES), request), Unplaced)
    assert smallest_part(snapshot(NODES), request) == request, "no part of it could: 2 exceed 1"


@st.composite
def two_roles(draw: st.DrawFn) -> tuple[Snapshot, GangRequest]:
    """Two roles, or one with spares, each with a spread of its own or none."""
    parts = st.sampled_from(["z/a/1", "z/a/2", "z/b/1", "y/a/1"])
    sizes = draw(st.lists(st.tuples(parts, st.integers(1, 4)), min_size=2, max_size=4))
    spread = st.none() | st.builds(
        TopologySpread,
        level=st.sampled_from(["zone", "block", "rack", "host"]),
        max_per_domain=st.integers(1, 2),
    )
    one = Role(draw(st.integers(1, 3)), {GPU: draw(st.integers(1, 2))}, "a", spread=draw(spread))
    two = one.spare(1)
    if draw(st.booleans()):
        amounts = {GPU: draw(st.integers(1, 3))}
        two = Role(draw(st.integers(1, 2)), amounts, "b", spread=draw(spread))
    required = TopologyRequest(required=draw(st.sampled_from([None, "block", "rack"])))
    missing = tuple(range(one.replicas + two.replicas))
    nodes = [node(f"n{at}", part, gpus=gpus) for at, (part, gpus) in enumerate(sizes)]
    return snapshot(nodes), GangRequest(KEY, (one, two), missing, topology=required)


@settings(max_examples=200, deadline=None)
@given(two_roles())
def test_the_verdict_on_two_roles_is_that_of_trying_all(case: tuple[Snapshot, GangRequest]) -> None:
    snap, request = case
    answer = place(snap, request)
    if isinstance(answer, Placed):
        assert not faults(snap, request, answer.nodes)
    else:
        assert next(every_placement(snap, request), None) is None


def test_each_role_is_spread_by_itself() -> None:
    request = gang(2, 1, apart(1))
    roles = (request.roles[0], request.roles[0])
    both = type(request)(request.key, roles, missing=(0, 1, 2, 3), topology=request.topology)
    answer = placed(snapshot(NODES), both)
    for of in (answer.all_nodes[:2], answer.all_nodes[2:]):
        assert len({name[0] for name in of}) == 2
