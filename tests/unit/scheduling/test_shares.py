"""Parts of devices, partitioned devices, and the fragmentation that placement avoids."""

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar.constants import DEFAULT_LEVELS, DEVICES_ANNOTATION, SHARES_ANNOTATION
from drakkar_operator.cluster import project
from drakkar_operator.model import NodeView
from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.fragmentation import Fragmentation
from drakkar_operator.scheduling.mix import HALF_LIFE, JobMix, Mix
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import Role
from drakkar_operator.scheduling.shares import rooms
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.state import ClusterState, equal
from support.scheduling import GPU, gang, node, placed, pod, snapshot

MILLI = "nvidia.com/gpu-milli"
MIG = "nvidia.com/mig-3g.40gb"


def sharing(name: str, devices: int, where: str = "z/b/r") -> NodeView:
    """A node that shares out its devices."""
    amounts = {MILLI: 1000 * devices}
    return node(name, where, 0, allocatable=amounts, devices={MILLI: devices})


def asks(amount: int, replicas: int = 1, **rest: Any) -> Any:
    """A gang whose replicas each ask for so many thousandths."""
    return gang(replicas, requests={MILLI: amount}, **rest)


def test_a_part_must_be_free_on_one_device() -> None:
    snap = snapshot([sharing("a", 2)])
    two = placed(snap, asks(600, 2))
    assert two.shares == {0: ((MILLI, 0, 600),), 1: ((MILLI, 1, 600),)}
    after = snap.assume(two)
    assert after.free_of("a")[MILLI] == 800
    assert isinstance(place(after, asks(500)), Unplaced), "800 are free, but 400 on each device"
    assert placed(after, asks(400)).shares == {0: ((MILLI, 0, 400),)}
    assert equal(after.release(two), snap)


def test_parts_go_where_the_least_is_left_and_whole_devices_stay_whole() -> None:
    snap = snapshot([sharing("a", 3)], [pod("p", "a", 0, requests={MILLI: 500})])
    part = placed(snap, asks(500))
    assert part.shares == {0: ((MILLI, 0, 500),)}
    whole = placed(snap.assume(part), asks(2000))
    assert whole.shares == {0: ((MILLI, 1, 1000), (MILLI, 2, 1000))}
    assert isinstance(place(snap, asks(3000)), Unplaced)
    assert isinstance(place(snap, asks(1500)), Unplaced), "neither a part nor whole devices"


def test_pods_hold_the_devices_that_their_annotation_names() -> None:
    held = pod("p", "a", 0, requests={MILLI: 700}, shares=((MILLI, 1, 700),))
    snap = snapshot([sharing("a", 2)], [held])
    assert snap.devices[MILLI].tolist() == [[1000, 300]]
    state = ClusterState(DEFAULT_LEVELS)
    state.upsert_node(sharing("a", 2))
    state.upsert_pod(held)
    assert equal(state.snapshot(), snap)
    state.remove_pod("p")
    assert state.snapshot().devices[MILLI].tolist() == [[1000, 1000]]


def test_nodes_without_shared_devices_have_no_table() -> None:
    assert snapshot([node("a")]).devices == {}
    mixed = snapshot([sharing("a", 1), node("b", "z/b/r", 0, allocatable={MILLI: 4000})])
    assert placed(mixed, asks(1500)).nodes == {0: "b"}, "there it is a plain amount"


def test_annotations_are_read_and_mistakes_count_for_nothing() -> None:
    meta = {"name": "a", "namespace": "n", "uid": "u"}
    for text, devices in (
        ('{"nvidia.com/gpu-milli": 8}', {MILLI: 8}),
        ('{"nvidia.com/gpu-milli": "8", "x/y": 100000}', {}),
        ("[1]", {}),
        ("{", {}),
    ):
        raw = {"metadata": {**meta, "annotations": {DEVICES_ANNOTATION: text}}}
        assert project.node(raw).devices == devices
    shares = json.dumps({MILLI: {"1": 460, "x": 1, "0": 5000}, "bad": 3})
    raw = {"metadata": {**meta, "annotations": {SHARES_ANNOTATION: shares}}}
    assert project.pod(raw).shares == ((MILLI, 0, 1000), (MILLI, 1, 460))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.lists(st.sampled_from([100, 250, 500, 700, 1000, 2000]), max_size=12),
)
def test_devices_are_never_overcommitted(counts: list[int], amounts: list[int]) -> None:
    snap = snapshot([sharing(f"n{at}", count) for at, count in enumerate(counts)])
    for amount in amounts:
        fits = rooms(snap.devices[MILLI], amount).sum() > 0
        answer = place(snap, asks(amount))
        assert isinstance(answer, Placed) == bool(fits)
        if isinstance(answer, Placed):
            assert sum(share for _, _, share in answer.shares[0]) == amount
            snap = snap.assume(answer)
        table = snap.devices[MILLI]
        assert table.min() >= -1
        total = np.where(table >= 0, table, 0).sum(axis=1)
        assert total.tolist() == [snap.free_of(name)[MILLI] for name in snap.nodes.tree.names]


def test_partitions_are_plain_resources() -> None:
    """MIG profiles are resources of their own (the plugin's strategy 'mixed')."""
    parts = node("mig", "z/b/r", 0, allocatable={MIG: 2})
    snap = snapshot([parts, node("whole", "z/b/r")])
    answer = placed(snap, gang(2, requests={MIG: 1}))
    assert set(answer.nodes.values()) == {"mig"}
    assert isinstance(place(snap.assume(answer), gang(1, requests={MIG: 1})), Unplaced)


class TestFragmentation:
    """Room is left for the like of what is asked for."""

    def with_mix(self, nodes: list[NodeView], *roles: tuple[Role, float]) -> Snapshot:
        snap = snapshot(nodes)
        return Snapshot(snap.nodes, snap.free, snap.ports, snap.devices, Mix(roles))

    def test_what_no_role_of_the_mix_can_use_counts(self) -> None:
        snap = self.with_mix(
            [node("a", gpus=8), node("b", gpus=6), node("c", gpus=3), node("d", gpus=0)],
            (Role(1, {GPU: 4}), 3.0),
            (Role(1, {GPU: 1}), 1.0),
            (Role(1, {"cpu": 1}), 9.0),
        )
        found = Fragmentation(snap).unusable(np.arange(4))
        # Three of four that ask for devices ask for four of them.
        assert found.tolist() == [0.0, 0.75 * 2, 0.75 * 3, 0.0]

    def test_a_single_pod_goes_where_the_mix_loses_least(self) -> None:
        """Best fit would take the node with five free and leave four-device jobs none of them."""
        nodes = [node("a", gpus=5), node("b", gpus=4)]
        assert placed(snapshot(nodes), gang(1)).nodes == {0: "b"}
        four = self.with_mix(nodes, (Role(1, {GPU: 4}), 1.0))
        assert placed(four, gang(1)).nodes == {0: "a"}

    def test_remembered_growth_is_that_of_a_fresh_look(self) -> None:
        nodes = [sharing(f"n{at}", 1 + at % 3) for at in range(6)]
        snap = self.with_mix(nodes, (Role(1, {MILLI: 500}), 2.0), (Role(1, {MILLI: 2000}), 1.0))
        role = Role(1, {MILLI: 300})
        for amount in (300, 500, 1000, 300, 200):
            rows = np.arange(6)
            remembered = Fragmentation(snap).growth(role, rows)
            fresh = Fragmentation(snap)._growth(role, rows)
            assert remembered.tolist() == fresh.tolist()
            snap = snap.assume(placed(snap, asks(amount)))

    def test_the_mix_fades(self) -> None:
        mix = JobMix()
        mix.add([Role(4, {GPU: 1}, "worker")], 0.0)
        mix.add([Role(1, {GPU: 8})], HALF_LIFE)
        assert [(role.requests[GPU], weight) for role, weight in mix.now(HALF_LIFE).roles] == [
            (1, 2.0),
            (8, 1.0),
        ]
        for at in range(100):
            mix.add([Role(1, {GPU: 100 + at})], HALF_LIFE)
        assert len(mix.now(HALF_LIFE).roles) == 32
