"""Gangs of several roles, and elastic ones: against brute force and by known cases."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar.v1alpha1.gang import RankGroup, TopologyRequest
from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest, Role, Toleration
from drakkar_operator.scheduling.snapshot import Snapshot
from support.scheduling import (
    GPU,
    KEY,
    LEVELS,
    every_placement,
    faults,
    gang,
    level_of,
    node,
    placed,
    pod,
    snapshot,
    taint,
)


def of_roles(*roles: Role, fixed: dict[int, str] | None = None, **topology: Any) -> GangRequest:
    """A gang of these roles, all but the fixed ranks missing."""
    fixed = fixed or {}
    missing = tuple(at for at in range(sum(r.replicas for r in roles)) if at not in fixed)
    return GangRequest(KEY, roles, missing, fixed, topology=TopologyRequest(**topology))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Snapshot, GangRequest]:
    """Few CPUs and devices, so that the roles are in each other's way; groups, ports, taints."""
    nodes, pods = [], []
    for at in range(draw(st.integers(1, 4))):
        where = draw(st.sampled_from(["z/a/1", "z/a/2", "z/b/1", "y/a/1"]))
        taints = draw(st.sampled_from([(), (), (taint("gpu"),)]))
        cpu = draw(st.integers(1, 6)) * 1000
        nodes.append(
            node(f"n{at}", where, draw(st.integers(0, 3)), taints=taints, allocatable={"cpu": cpu})
        )
        if draw(st.integers(0, 3)) == 0:
            pods.append(pod(f"p{at}", f"n{at}", 0, requests={"cpu": 1000}))
    roles: list[Role] = []
    left = 4
    for at in range(draw(st.integers(2, 3))):
        if not left:
            break
        count = draw(st.integers(1, left))
        left -= count
        groups = (
            (RankGroup(size=count, level=draw(st.sampled_from(["rack", "host"]))),)
            if count > 1 and draw(st.booleans())
            else ()
        )
        roles.append(
            Role(
                count,
                {"cpu": draw(st.integers(1, 3)) * 1000, GPU: draw(st.sampled_from([0, 0, 1, 2]))},
                f"role-{at}",
                tolerations=draw(st.sampled_from([(), (Toleration(operator="Exists"),)])),
                host_ports=draw(st.sampled_from([(), (), (("", "TCP", 80),)])),
                groups=groups,
            )
        )
    total = sum(role.replicas for role in roles)
    stay = draw(st.permutations(range(total)))[: draw(st.sampled_from([0, 0, 1]))]
    fixed = {at: draw(st.sampled_from([n.name for n in nodes])) for at in sorted(stay)}
    level = draw(st.sampled_from([None, "zone", "block", "rack", "host"]))
    return snapshot(nodes, pods), of_roles(*roles, fixed=fixed, required=level)


@settings(max_examples=400, deadline=None)
@given(cases())
def test_roles_are_placed_together_whenever_that_is_possible(
    case: tuple[Snapshot, GangRequest],
) -> None:
    snap, request = case
    valid = list(every_placement(snap, request))
    answer = place(snap, request)
    if isinstance(answer, Unplaced):
        assert not (request.missing and valid), f"{answer.reason}; but {valid[:1]} is valid"
        assert answer.reason
        return
    assert not faults(snap, request, answer.nodes)
    whole = [*request.fixed.values(), *answer.nodes.values()]
    best = max(level_of(snap, [*request.fixed.values(), *w.values()]) for w in valid)
    assert LEVELS[best] == answer.level
    assert level_of(snap, whole) == best
    assert min(min(snap.assume(answer).free_of(name).values()) for name in set(whole)) >= min(
        0, *(min(snap.free_of(name).values()) for name in set(whole))
    )


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_hints_of_roles_break_no_rule(
    case: tuple[Snapshot, GangRequest], data: st.DataObject
) -> None:
    snap, request = case
    names = st.sampled_from(list(snap.nodes.tree.names))
    hinted = GangRequest(
        request.key,
        request.roles,
        request.missing,
        request.fixed,
        {at: data.draw(names) for at in request.missing},
        request.topology,
    )
    answer = place(snap, hinted)
    assert isinstance(answer, Placed) == isinstance(place(snap, request), Placed)
    if isinstance(answer, Placed):
        assert not faults(snap, hinted, answer.nodes)


WORKERS = Role(4, {GPU: 8, "cpu": 32_000}, "worker", groups=(RankGroup(size=2, level="rack"),))


def test_a_coordinator_takes_no_cpu_that_a_worker_needs() -> None:
    """Each host has 40 CPUs and a worker takes 32: the coordinator's 16 are on the host without."""
    nodes = [node(f"n{at}", f"z/b/r{at // 2}", 8, allocatable={"cpu": 40_000}) for at in range(4)]
    nodes.append(node("spare", "z/b/r0", 0, allocatable={"cpu": 16_000}))
    coordinator = Role(1, {"cpu": 16_000}, "coordinator")
    answer = placed(snapshot(nodes), of_roles(coordinator, WORKERS, required="block"))
    assert answer.nodes[0] == "spare"
    assert sorted(answer.nodes[at] for at in range(1, 5)) == ["n0", "n1", "n2", "n3"]
    assert answer.reservations[0].requests == coordinator.requests

    refused = place(snapshot(nodes[:4]), of_roles(coordinator, WORKERS))
    assert isinstance(refused, Unplaced)
    assert refused.reason.startswith(
        "the roles coordinator and worker each have room by themselves, "
        "but not together in the cluster"
    )


def test_where_taking_turns_fails_the_small_role_makes_way() -> None:
    """Each role, were it first, would take a node that the other can't do without."""
    cpus = (2, 3, 2, 1)
    nodes = [
        node(f"n{at}", "z/b/r", 1, allocatable={"cpu": 1000 * cpu}) for at, cpu in enumerate(cpus)
    ]
    worker, helper = Role(3, {GPU: 1, "cpu": 1000}, "worker"), Role(2, {"cpu": 2000}, "helper")
    answer = placed(snapshot(nodes), of_roles(worker, helper))
    assert {answer.nodes[at] for at in range(3)} == {"n0", "n1", "n3"}
    assert {answer.nodes[at] for at in (3, 4)} == {"n1", "n2"}


def test_the_reason_names_the_role_that_is_short() -> None:
    answer = place(snapshot([node("a", gpus=8)]), of_roles(Role(1, {"cpu": 1000}, "head"), WORKERS))
    assert isinstance(answer, Unplaced)
    assert answer.reason.startswith("role worker: needs 4 replicas with 8 nvidia.com/gpu")


def test_a_lost_coordinator_comes_back_near_its_workers() -> None:
    nodes = [node(f"n{at}", f"z/b/r{at // 2}", 8) for at in range(8)]
    request = of_roles(
        Role(1, {"cpu": 1000}, "head"),
        WORKERS,
        fixed={1: "n2", 2: "n3", 3: "n4", 4: "n5"},
        required="block",
    )
    assert placed(snapshot(nodes), request).nodes[0] in ("n2", "n3", "n4", "n5")


class TestElastic:
    """As many replicas as there is room for."""

    def nodes(self) -> Snapshot:
        return snapshot([node(f"n{at}", f"z/b/r{at // 3}", 8) for at in range(7)])

    def test_it_takes_what_there_is(self) -> None:
        answer = placed(self.nodes(), gang(9, 8, sizes=(9, 8, 7, 6, 5)))
        assert answer.request.replicas == 7
        assert answer.request.total == {GPU: 56}
        assert len(answer.all_nodes) == 7

    def test_only_at_sizes_that_it_can_have(self) -> None:
        assert placed(self.nodes(), gang(8, 8, sizes=(8, 6, 4, 2))).request.replicas == 6

    def test_inside_what_it_requires(self) -> None:
        assert (
            placed(self.nodes(), gang(8, 8, {"required": "rack"}, sizes=(8, 4, 2))).request.replicas
            == 2
        )

    def test_whole_groups(self) -> None:
        groups = {"groups": [{"size": 2, "level": "rack"}]}
        assert placed(self.nodes(), gang(8, 8, groups, sizes=(8, 6, 4, 2))).request.replicas == 4

    def test_with_less_than_its_least_it_waits(self) -> None:
        answer = place(self.nodes(), gang(12, 8, sizes=(12, 10, 8)))
        assert isinstance(answer, Unplaced)
        assert answer.need == 8
        assert answer.reason.startswith("needs 8 replicas with 8 nvidia.com/gpu each")

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 8))
    def test_no_larger_size_fits(self, gpus: list[int], most: int) -> None:
        snap = snapshot([node(f"n{at}", f"z/b/r{at // 2}", count) for at, count in enumerate(gpus)])
        sizes = tuple(range(most, 0, -1))
        answer = place(snap, gang(most, 1, {"required": "rack"}, sizes=sizes))
        fitting = [
            size
            for size in sizes
            if isinstance(place(snap, gang(size, 1, {"required": "rack"})), Placed)
        ]
        if isinstance(answer, Placed):
            assert answer.request.replicas == fitting[0]
        else:
            assert not fitting
