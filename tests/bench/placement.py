"""How long a placement decision takes, by nodes and gang size.

``python tests/bench/placement.py [--rounds N] [--plot FILE]`` prints medians of CPU milliseconds. Nodes have 8
devices in racks of 16, blocks of 16 racks, zones of 4 blocks; two thirds of the devices are taken,
in pieces of 1 to 8. A gang's pods ask for 8 devices each where that many nodes are free, else 1.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import plot

from drakkar.constants import DEFAULT_LEVELS
from drakkar.v1alpha1.gang import RankGroup, TopologyRequest
from drakkar_operator.model import NodeView, PodView
from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.mix import Mix
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.queueing import schedule
from drakkar_operator.scheduling.request import GangRequest, Role
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.state import ClusterState
from drakkar_operator.scheduling.workload import Pending

GPU = "nvidia.com/gpu"
ONE = {GPU: 1, "cpu": 4_000, "memory": 16 << 30}
EIGHT = {resource: 8 * amount for resource, amount in ONE.items()}


def node(at: int) -> NodeView:
    """The at-th node of the cluster."""
    rack, block, zone = at // 16, at // 256, at // 1024
    return NodeView(
        name=f"node-{at}",
        labels={
            "topology.kubernetes.io/zone": f"zone-{zone}",
            "topology.drakkar.dev/block": f"block-{block}",
            "topology.drakkar.dev/rack": f"rack-{rack}",
            "kubernetes.io/hostname": f"node-{at}",
        },
        allocatable={GPU: 8, "cpu": 128_000, "memory": 1 << 40, "pods": 110},
    )


def pods(nodes: int, chance: random.Random) -> list[PodView]:
    """Pods that take two thirds of the devices: half of the nodes wholly, others in part."""
    found = []
    for at in range(nodes):
        used = chance.choice((8, 8, 8, 0, chance.randint(1, 7)))
        for n in range(0, used, size := chance.choice((1, 2, 4, 8))):
            taken = min(size, used - n)
            found.append(
                PodView(
                    namespace="other",
                    name=f"pod-{at}-{n}",
                    uid=f"{at}-{n}",
                    node=f"node-{at}",
                    phase="Running",
                    requests={resource: taken * amount for resource, amount in ONE.items()},
                )
            )
    return found


def median_ms(call: Callable[[], object], rounds: int) -> float:
    """Median CPU time of a call in milliseconds; one thread, so on an idle core the time it takes."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times) * 1e3


def show(label: str, cells: list[float | str]) -> None:
    """One row of the table."""
    print(
        f"{label:<46}"
        + "".join(f"{c:>10.2f}" if isinstance(c, float) else f"{c:>10}" for c in cells)
    )


def _anew(snapshot: Snapshot) -> Snapshot:
    """The same as if nothing had been worked out on its nodes yet."""
    return replace(snapshot, nodes=replace(snapshot.nodes, _masks={}))


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=21)
    options.add_argument("--plot", type=Path, help="write the growth with the nodes as SVG")
    given = options.parse_args()
    rounds = given.rounds
    curves: dict[str, list[tuple[float, float]]] = {}
    sizes = (100, 500, 1_000, 5_000, 10_000)
    snapshots: dict[int, Snapshot] = {}
    build: list[float | str] = []
    change: list[float | str] = []
    cordon: list[float | str] = []
    for count in sizes:
        nodes, bound = [node(at) for at in range(count)], pods(count, random.Random(7))
        build.append(
            median_ms(lambda n=nodes, b=bound: Snapshot.build(n, b, (), DEFAULT_LEVELS), 5)  # type: ignore[misc]
        )
        state = ClusterState(DEFAULT_LEVELS)
        for view in nodes:
            state.upsert_node(view)
        for pod in bound:
            state.upsert_pod(pod)
        snapshots[count] = state.snapshot()

        def pod_event(state: ClusterState = state, pod: PodView = bound[0]) -> None:
            state.remove_pod(pod.uid)
            state.upsert_pod(pod)
            state.snapshot()

        def node_event(state: ClusterState = state, view: NodeView = nodes[0]) -> None:
            state.upsert_node(
                NodeView(view.name, view.labels, view.allocatable, unschedulable=True)
            )
            state.snapshot()
            state.upsert_node(view)

        change.append(median_ms(pod_event, rounds))
        cordon.append(median_ms(node_event, rounds))
    show("CPU milliseconds (median)          nodes:", [str(count) for count in sizes])
    show("snapshot from scratch", build)
    show("snapshot after a pod event", change)
    show("snapshot after a node was cordoned", cordon)
    anywhere = TopologyRequest()
    for pods_in_gang in (1, 8, 64, 512):
        cases: tuple[tuple[str, dict[str, int], TopologyRequest], ...] = (
            ("1 GPU each", ONE, anywhere),
            ("1 GPU each, required block", ONE, TopologyRequest(required="block")),
            ("8 GPUs each", EIGHT, anywhere),
            (
                "8 GPUs each, groups of 4 per rack",
                EIGHT,
                TopologyRequest(groups=[RankGroup(size=4, level="rack")]),
            ),
            ("never fits: 9,999 GPUs each", {GPU: 9_999}, anywhere),
            ("needs one host", EIGHT, TopologyRequest(required="host")),
        )
        for label, asks, topology in cases:
            if any(group.size > pods_in_gang for group in topology.groups):
                continue
            cells: list[float | str] = []
            for count in sizes:
                request = GangRequest.fresh(("team", "job"), pods_in_gang, asks, topology=topology)
                answer = place(snapshots[count], request)
                took = median_ms(lambda s=snapshots[count], r=request: place(s, r), rounds)  # type: ignore[misc]
                cells.append(f"{took:.2f}{' ' if isinstance(answer, Placed) else '-'}")
                if label in ("1 GPU each", "never fits: 9,999 GPUs each"):
                    what = f"{pods_in_gang} pods, {label.split(',')[0].split(':')[0]}"
                    curves.setdefault(what, []).append((count, took))
            show(f"gang of {pods_in_gang:>3}, {label}", cells)
    mix = Mix(tuple((Role(1, {r: n * a for r, a in ONE.items()}), 1.0) for n in (1, 2, 4, 8)))
    for pods_in_gang in (1, 64):
        request = GangRequest.fresh(("team", "job"), pods_in_gang, ONE)
        first: list[float | str] = []
        later: list[float | str] = []
        for count in sizes:
            mixed = replace(snapshots[count], mix=mix)
            first.append(median_ms(lambda s=mixed, r=request: place(_anew(s), r), rounds))  # type: ignore[misc]
            later.append(median_ms(lambda s=mixed, r=request: place(s, r), rounds))  # type: ignore[misc]
        show(f"gang of {pods_in_gang:>3}, 1 GPU each, job mix, first", first)
        show(f"gang of {pods_in_gang:>3}, 1 GPU each, job mix", later)
    if given.plot:
        shown = {name: curve for name, curve in curves.items() if "never" not in name}
        last = "512 pods, never fits"
        plot.write(given.plot, {**shown, last: curves[last]}, "nodes", "CPU milliseconds")
    print("'-': no placement, the time is that of the verdict with its reason")
    print()
    for count in sizes[2:]:
        queue = [
            Pending(("team", f"job-{n}"), GangRequest.fresh(("team", f"job-{n}"), 4, ONE))
            for n in range(500)
        ]
        start = time.process_time()
        decisions = schedule(snapshots[count], queue, {})
        took = time.process_time() - start
        placed = sum(decision.placed is not None for decision in decisions)
        print(
            f"cycle over 500 gangs of 4 on {count} nodes: {took * 1e3:.0f} ms, "
            f"{placed} placed, {len(queue) / took:.0f} decisions/s"
        )
    full = place(snapshots[10_000], GangRequest.fresh(("team", "big"), 512, EIGHT))
    if isinstance(full, Unplaced):
        print(f"gang of 512 x 8 GPUs: {full.reason}")


if __name__ == "__main__":
    main()
