"""Placement against brute force and an independent judge, on small random clusters."""

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar.v1alpha1.gang import TopologySpread
from drakkar_operator.model import NodeView, PodView
from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest, Toleration
from drakkar_operator.scheduling.snapshot import Snapshot
from support.scheduling import (
    GPU,
    LEVELS,
    every_placement,
    faults,
    gang,
    level_of,
    node,
    pod,
    snapshot,
    spread,
    taint,
)

World = tuple[list[NodeView], list[PodView]]


@st.composite
def worlds(draw: st.DrawFn, most: int = 5) -> World:
    """A few nodes, some without labels, cordoned, tainted or partly taken."""
    nodes, pods = [], []
    for at in range(draw(st.integers(1, most))):
        part = draw(
            st.sampled_from(["z/a/1", "z/a/2", "z/b/1", "z/b/3", "y/a/1", "z/a", "z//1", "//2"])
        )
        name = f"n{at}"
        state: dict[str, Any] = draw(
            st.sampled_from(
                [
                    {},
                    {},
                    {},
                    {},
                    {"ready": False},
                    {"unschedulable": True},
                    {"taints": (taint("x"),)},
                ]
            )
        )
        nodes.append(node(name, part, gpus=4, **state))
        used = draw(st.integers(0, 4))
        if used:
            pods.append(
                pod(
                    f"p{at}", name, used, host_ports=draw(st.sampled_from([(), (("", "TCP", 80),)]))
                )
            )
    if draw(st.booleans()):
        # A cluster that labels racks only.
        nodes = [
            NodeView(
                **{
                    **{
                        f: getattr(n, f)
                        for f in ("name", "allocatable", "ready", "unschedulable", "taints")
                    },
                    "labels": {
                        k: v for k, v in n.labels.items() if "zone" not in k and "block" not in k
                    },
                }
            )
            for n in nodes
        ]
    return nodes, pods


spreads = st.none() | st.builds(
    TopologySpread,
    level=st.sampled_from(["zone", "block", "rack", "host"]),
    max_per_domain=st.integers(1, 4),
)


@st.composite
def requests(draw: st.DrawFn, names: list[str], most: int = 4) -> GangRequest:
    """A request, possibly with ranks in place, groups, and all kinds of rules."""
    replicas = draw(st.integers(1, most))
    stay = draw(st.sampled_from([0, 0, 1, 2]))
    indexes = draw(st.permutations(range(replicas)))[:stay]
    fixed = {at: draw(st.sampled_from(names)) for at in sorted(indexes)}
    level = st.sampled_from([None, None, "zone", "block", "rack", "host"])
    topology = {
        "required": draw(level),
        "preferred": draw(level),
        "groups": draw(rank_groups(replicas)),
        "spread": draw(spreads),
    }
    rest: dict[str, Any] = {
        "tolerations": draw(st.sampled_from([(), (Toleration(operator="Exists"),)])),
        "host_ports": draw(st.sampled_from([(), (), (), (("", "TCP", 80),)])),
        "avoid": draw(st.sampled_from([frozenset(), frozenset(names[:1])])),
        "fixed": fixed,
    }
    return gang(replicas, draw(st.integers(1, 2)), topology, **rest)


@st.composite
def rank_groups(draw: st.DrawFn, replicas: int) -> list[dict[str, Any]]:
    """Nested groups, up to two levels of them, that divide the replicas."""
    sizes = [n for n in range(2, replicas + 1) if replicas % n == 0]
    chosen = sorted(draw(st.sets(st.sampled_from(sizes), max_size=2))) if sizes else []
    if len(chosen) == 2 and chosen[1] % chosen[0]:
        chosen = chosen[1:]
    levels = st.sampled_from(["block", "rack", "host"])
    return [{"size": size, "level": draw(levels)} for size in chosen]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Snapshot, GangRequest]:
    """A snapshot and a request."""
    nodes, pods = draw(worlds())
    return snapshot(nodes, pods), draw(requests([n.name for n in nodes]))


def used(request: GangRequest, where: Mapping[int, str]) -> list[str]:
    """Nodes of the whole gang."""
    return [*request.fixed.values(), *where.values()]


def port_free(snap: Snapshot, request: GangRequest, where: Mapping[int, str]) -> bool:
    """The judge of ports, apart since it needs the snapshot's own table."""
    busy = {node for places in snap.ports.values() for node, _ in places}
    return not busy & {node for at, node in where.items() if request.role_of(at).host_ports}


@settings(max_examples=400, deadline=None)
@given(cases())
def test_a_verdict_is_right_and_the_common_level_the_tightest(
    case: tuple[Snapshot, GangRequest],
) -> None:
    snap, request = case
    all_valid = [w for w in every_placement(snap, request) if port_free(snap, request, w)]
    answer = place(snap, request)
    if isinstance(answer, Unplaced):
        # A torn gang has faults of its own that no placement of the missing ranks heals.
        assert not (request.missing and all_valid), f"{answer.reason}; but {all_valid[:1]} is valid"
        assert answer.reason
        return
    assert not faults(snap, request, answer.nodes)
    assert port_free(snap, request, answer.nodes)
    assert not set(answer.nodes) & set(request.fixed)
    best = max(level_of(snap, used(request, where)) for where in all_valid)
    mine = level_of(snap, used(request, answer.nodes))
    assert mine == best
    if used(request, answer.nodes):
        assert answer.level == LEVELS[mine]


@settings(max_examples=300, deadline=None)
@given(cases())
def test_without_ranks_in_place_the_first_finer_level_has_the_fewest_domains(
    case: tuple[Snapshot, GangRequest],
) -> None:
    snap, request = case
    request = gang(
        request.replicas,
        request.roles[0].requests[GPU],
        {"required": request.topology.required},
        tolerations=request.roles[0].tolerations,
    )
    answer = place(snap, request)
    if isinstance(answer, Unplaced) or answer.level == "host":
        return
    depth = LEVELS.index(answer.level)
    spreads = [
        spread(snap, where.values())
        for where in every_placement(snap, request)
        if level_of(snap, where.values()) == depth
    ]
    mine = spread(snap, answer.nodes.values())
    assert mine[depth] == min(each[depth] for each in spreads)


def test_finer_levels_are_near_the_best_possible() -> None:
    """Over many random clusters: fewest racks always, fewest hosts below them nearly always."""
    chance = random.Random(11)
    worse = total = 0
    for _ in range(250):
        nodes, pods = [], []
        for at in range(7):
            nodes.append(node(f"n{at}", f"z/{chance.randint(1, 2)}/{chance.randint(1, 3)}", gpus=4))
            if taken := chance.randint(0, 3):
                pods.append(pod(f"p{at}", f"n{at}", taken))
        snap, request = snapshot(nodes, pods), gang(chance.randint(4, 7))
        answer = place(snap, request)
        if isinstance(answer, Unplaced):
            continue
        names = [view.name for view in snap.nodes.views]
        choices = [
            choice
            for choice in itertools.combinations_with_replacement(names, request.replicas)
            if all(n <= snap.free_of(name)[GPU] for name, n in Counter(choice).items())
        ]
        best = min(
            spread(snap, choice)
            for choice in choices
            if level_of(snap, choice) == LEVELS.index(answer.level)
        )
        total += 1
        worse += spread(snap, answer.nodes.values()) != best
    assert total > 150
    assert worse <= total * 0.005, f"{worse} of {total} are not the best possible"


@settings(max_examples=200, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_nodes_matter(
    case: tuple[Snapshot, GangRequest], chance: random.Random
) -> None:
    snap, request = case
    views = list(snap.nodes.views)
    again = {name: amounts for name in snap.nodes.tree.names if (amounts := snap.free_of(name))}
    chance.shuffle(views)
    bound = [
        pod(
            f"p{v.name}",
            v.name,
            requests={
                r: v.allocatable.get(r, 0) - f for r, f in again[v.name].items() if r != "pods"
            },
        )
        for v in views
    ]
    bound = [p for p in bound if any(p.requests.values())]
    ports = {node for places in snap.ports.values() for node, _ in places}
    bound = [
        pod(
            p.uid,
            p.node,
            requests=p.requests,
            host_ports=(("", "TCP", 80),) if p.node in ports else (),
        )
        for p in bound
    ]
    same = place(snapshot(views, bound), request)
    other = place(snap, request)
    assert _summary(same) == _summary(other)

    renamed = {v.name: f"x{v.name[1:]}-renamed" for v in views}
    moved = [
        NodeView(
            renamed[v.name],
            {**v.labels, "kubernetes.io/hostname": renamed[v.name]},
            v.allocatable,
            v.ready,
            v.unschedulable,
            v.taints,
        )
        for v in views
    ]
    bound = [
        pod(p.uid, renamed[p.node or ""], requests=p.requests, host_ports=p.host_ports)
        for p in bound
    ]
    theirs = replace(
        request,
        fixed={at: renamed[n] for at, n in request.fixed.items()},
        avoid=frozenset(renamed[n] for n in request.avoid),
    )
    answer = place(snapshot(moved, bound), theirs)
    if isinstance(other, Placed):
        assert isinstance(answer, Placed)
        assert dict(answer.nodes) == {at: renamed[n] for at, n in other.nodes.items()}
    else:
        assert isinstance(answer, Unplaced)


def _summary(answer: Placed | Unplaced) -> object:
    if isinstance(answer, Placed):
        return dict(answer.nodes), answer.level, answer.domain
    return answer.reason


@settings(max_examples=200, deadline=None)
@given(cases())
def test_assume_and_release_are_inverse_and_never_overcommit(
    case: tuple[Snapshot, GangRequest],
) -> None:
    snap, request = case
    answer = place(snap, request)
    if isinstance(answer, Unplaced):
        return
    after = snap.assume(answer)
    for name in Counter(answer.nodes.values()):
        assert min(after.free_of(name).values()) >= 0
    back = after.release(answer)
    assert (back.free == snap.free).all()
    assert {k: v for k, v in back.ports.items() if v} == {k: v for k, v in snap.ports.items() if v}


@settings(max_examples=200, deadline=None)
@given(cases(), st.data())
def test_hints_never_break_a_rule_nor_lose_a_place(
    case: tuple[Snapshot, GangRequest], data: st.DataObject
) -> None:
    snap, request = case
    names = list(snap.nodes.tree.names)
    hint = {at: data.draw(st.sampled_from(names)) for at in request.missing}
    hinted = replace(request, hint=hint)
    with_hints, without = place(snap, hinted), place(snap, request)
    assert isinstance(with_hints, Placed) == isinstance(without, Placed)
    if isinstance(with_hints, Placed) and isinstance(without, Placed):
        assert not faults(snap, hinted, with_hints.nodes)
        if not request.fixed:
            assert LEVELS.index(with_hints.level) >= LEVELS.index(without.level)
