"""Placement against greedy best fit on small random clusters: never worse, in one decision or many."""

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.model import NodeView, PodView
from drakkar_operator.scheduling.decision import Placed
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from support.scheduling import GPU, LEVELS, faults, gang, level_of, node, pod, snapshot, spread

PLACES = ["z/a/1", "z/a/2", "z/b/1", "z/b/2", "y/a/1"]


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[NodeView], list[PodView]]:
    """Up to six nodes of four devices, in part taken."""
    nodes, pods = [], []
    for at in range(draw(st.integers(2, 6))):
        nodes.append(node(f"n{at}", draw(st.sampled_from(PLACES)), gpus=4))
        if used := draw(st.integers(0, 4)):
            pods.append(pod(f"p{at}", f"n{at}", used))
    return nodes, pods


asks = st.builds(
    lambda replicas, gpus, level: gang(replicas, gpus, {"required": level}),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from([None, None, "zone", "block", "rack", "host"]),
)


def best_fit(snap: Snapshot, request: GangRequest) -> dict[int, str] | None:
    """Rank after rank, each on the node with the least free that takes it; all or nothing.

    A required level is met by trying its domains, the fullest first.
    """
    nodes = snap.nodes.tree.names
    level = request.topology.required
    depth = LEVELS.index(level) if level else 0
    tree = snap.nodes.tree
    domains = [
        [nodes[i] for i in range(len(nodes))[tree.nodes_of(depth, d)]]
        for d in range(tree.count(depth))
    ]
    want = request.roles[0].requests[GPU]
    domains.sort(key=lambda names: sum(snap.free_of(name)[GPU] for name in names))
    for names in domains:
        free = {name: snap.free_of(name)[GPU] for name in names}
        found: dict[int, str] = {}
        for at in range(request.replicas):
            fits = [name for name in names if free[name] >= want]
            if not fits:
                break
            found[at] = min(fits, key=lambda name: (free[name], name))
            free[found[at]] -= want
        else:
            return found
    return None


@settings(max_examples=300, deadline=None)
@given(clusters(), asks)
def test_one_decision_is_never_worse(
    cluster: tuple[list[NodeView], list[PodView]], request: GangRequest
) -> None:
    """It fits wherever best fit does, at a common level as tight, in as few domains just below it."""
    snap = snapshot(*cluster)
    greedy, answer = best_fit(snap, request), place(snap, request)
    if greedy is None:
        return
    assert not faults(snap, request, greedy), "the judge agrees that best fit is right"
    assert isinstance(answer, Placed), "all that best fit places is placed"
    mine, its = level_of(snap, answer.all_nodes), level_of(snap, greedy.values())
    assert mine >= its
    if mine == its < len(LEVELS) - 1:
        assert spread(snap, answer.all_nodes)[mine] <= spread(snap, greedy.values())[its]


def stream(snap: Snapshot, requests: Sequence[GangRequest], greedy: bool) -> int:
    """Devices that are given out until the first gang finds no room."""
    given_out = 0
    for request in requests:
        if greedy:
            nodes = best_fit(snap, request)
            answer = Placed(request, nodes, "cluster", "") if nodes is not None else None
        else:
            found = place(snap, request)
            answer = found if isinstance(found, Placed) else None
        if answer is None:
            break
        snap = snap.assume(answer)
        given_out += request.total[GPU]
    return given_out


@settings(max_examples=200, deadline=None)
@given(clusters(), st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 4))
def test_a_stream_of_equal_replicas_is_never_worse(
    cluster: tuple[list[NodeView], list[PodView]], sizes: list[int], gpus: int
) -> None:
    """Gangs of any sizes of the same replicas: as many devices are given out as by best fit."""
    snap = snapshot(*cluster)
    requests = [gang(size, gpus, key=("team", str(at))) for at, size in enumerate(sizes)]
    assert stream(snap, requests, greedy=False) >= stream(snap, requests, greedy=True)


def test_streams_of_mixed_gangs_are_not_worse_on_the_whole() -> None:
    """No online rule beats another on each single stream: over many it gives out no less."""
    chance = random.Random(5)
    mine = its = 0
    for _ in range(150):
        nodes = [node(f"n{at}", chance.choice(PLACES), gpus=8) for at in range(6)]
        requests = [
            gang(
                chance.choice((1, 1, 2, 4)),
                chance.choice((1, 2, 4, 8)),
                {"required": chance.choice((None, None, "rack", "block"))},
                key=("team", str(at)),
            )
            for at in range(20)
        ]
        snap = snapshot(nodes)
        mine += stream(snap, requests, greedy=False)
        its += stream(snap, requests, greedy=True)
    assert mine >= its, (mine, its)
