"""ClusterState against a snapshot from scratch, after any history of events."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drakkar.constants import DEFAULT_LEVELS
from drakkar_operator.model import NodeView, PodView
from drakkar_operator.scheduling.decision import Reservation
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.state import ClusterState, equal
from support.scheduling import GPU, KEY, node, pod, snapshot, taint

NAMES = ("n1", "n2", "n3")
NODES = st.builds(
    lambda name, where, gpus, state: node(name, where, gpus, **state),
    st.sampled_from(NAMES),
    st.sampled_from(["z/a/1", "z/a/2", ""]),
    st.integers(0, 4),
    st.sampled_from(
        [
            {}, {"ready": False}, {"unschedulable": True}, {"taints": (taint("t"),)},
            {"allocatable": {"vendor.example/nic": 2}}, {"labels": {"x": "y"}},
        ]
    ),
)  # fmt: skip
PODS = st.builds(
    lambda uid, on, gpus, phase, ports, more: pod(
        uid, on, gpus, phase, host_ports=ports, requests=more
    ),
    st.sampled_from(["p1", "p2", "p3", "p4"]),
    st.sampled_from([None, *NAMES, "elsewhere"]),
    st.integers(0, 6),
    st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
    st.sampled_from([(), (("", "TCP", 80),), (("1.1.1.1", "TCP", 80), ("", "UDP", 1))]),
    st.sampled_from([{}, {"cpu": 500}, {"vendor.example/nic": 1}]),
)


class Events(RuleBasedStateMachine):
    """Nodes and pods come, change and go in any order; snapshots are taken in between."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = DEFAULT_LEVELS
        self.state = ClusterState(self.levels)
        self.nodes: dict[str, NodeView] = {}
        self.pods: dict[str, PodView] = {}
        self.taken: list[tuple[Snapshot, Any]] = []

    @rule(view=NODES)
    def node_event(self, view: NodeView) -> None:
        self.nodes[view.name] = view
        self.state.upsert_node(view)

    @rule(name=st.sampled_from(NAMES))
    def node_gone(self, name: str) -> None:
        self.nodes.pop(name, None)
        self.state.remove_node(name)

    @rule(view=PODS)
    def pod_event(self, view: PodView) -> None:
        self.pods[view.uid] = view
        self.state.upsert_pod(view)

    @rule(uid=st.sampled_from(["p1", "p2", "p3", "p4"]))
    def pod_gone(self, uid: str) -> None:
        self.pods.pop(uid, None)
        self.state.remove_pod(uid)

    @rule(levels=st.sampled_from([DEFAULT_LEVELS, DEFAULT_LEVELS[2:]]))
    def topology_changed(self, levels: Any) -> None:
        self.levels = levels
        self.state.set_levels(levels)

    @rule(where=st.lists(st.sampled_from(NAMES), max_size=2))
    def look(self, where: list[str]) -> None:
        reserved = [
            Reservation(KEY, at, name, {GPU: 1}, (("", "TCP", 70 + at),))
            for at, name in enumerate(where)
        ]
        mine = self.state.snapshot(reserved)
        theirs = Snapshot.build(self.nodes.values(), self.pods.values(), reserved, self.levels)
        used = {key: places for key, places in mine.ports.items() if places}
        present = {
            key: kept
            for key, places in used.items()
            if (kept := frozenset(place for place in places if place[0] in self.nodes))
        }
        assert equal(Snapshot(mine.nodes, mine.free, present), theirs)
        self.taken.append((mine, mine.free.copy()))

    @invariant()
    def snapshots_never_change(self) -> None:
        for snap, free in self.taken:
            assert (snap.free == free).all()


TestEvents = Events.TestCase
TestEvents.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


def test_what_counts() -> None:
    pods = [
        pod("running", "n", 1),
        pod("deleting", "n", 1, deleting=True),
        pod("pending", "n", 1, "Pending"),
        pod("unbound", None, 8, "Pending"),
        pod("done", "n", 8, "Succeeded"),
        pod("failed", "n", 8, "Failed"),
        pod("elsewhere", "gone", 8),
    ]
    free = snapshot([node("n")], pods).free_of("n")
    assert (free[GPU], free["pods"]) == (5, 107)


def test_reservations_count() -> None:
    held = Reservation(KEY, 0, "n", {GPU: 3, "cpu": 1000})
    free = Snapshot.build([node("n")], [], [held], DEFAULT_LEVELS).free_of("n")
    assert (free[GPU], free["cpu"], free["pods"]) == (5, 63_000, 109)


def test_the_pods_resource_is_always_one_per_pod() -> None:
    """A pod that asks for several of "pods" still is one."""
    assert snapshot([node("n")], [pod("p", "n", requests={"pods": 7})]).free_of("n")["pods"] == 109
