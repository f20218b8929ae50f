"""How long it takes to find whom to evict, and whom to move, by nodes and running gangs.

``python tests/bench/preemption.py [--rounds N]`` prints medians of CPU milliseconds and, in
brackets, how many gangs go. Nodes have 8
devices in racks of 16, blocks of 16 racks. Gangs of 1 to 8 replicas with 1 to 8 devices each hold all
of the room but a little. Each row asks for room that only evictions can make.
"""

import argparse
import random
from dataclasses import replace
from functools import partial

from placement import GPU, median_ms, node, show

from drakkar.constants import DEFAULT_LEVELS
from drakkar.v1alpha1.gang import RankGroup, TopologyRequest
from drakkar_operator.scheduling.decision import Reservation, Unplaced
from drakkar_operator.scheduling.defrag import defragment
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.preemption import Preemption, choose
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running

NOW = 1e6
WAITS = ("team", "waits")


def asks(replicas: int, gpus: int, required: str | None = None, group: str = "") -> GangRequest:
    """A gang of so many replicas, in groups of 4 that share a domain if ``group`` names a level."""
    groups = [RankGroup(size=4, level=group)] if group else []
    topology = TopologyRequest(required=required, groups=groups)
    return GangRequest.fresh(WAITS, replicas, {GPU: gpus}, topology=topology)


def full(
    nodes: int, gangs: int, chance: random.Random, scattered: float = 0.0
) -> tuple[Snapshot, list[Running]]:
    """A cluster of which the gangs hold a part, and what nobody may evict nearly all of the rest.

    Of the nodes that are left a part is free, one to a rack.
    """
    snapshot = Snapshot.build([node(at) for at in range(nodes)], (), (), DEFAULT_LEVELS)
    running: list[Running] = []
    for at in range(gangs):
        replicas, gpus = chance.choice((1, 1, 2, 2, 4, 8)), chance.choice((1, 2, 4, 8))
        key = ("team", f"gang-{at}")
        placed = place(snapshot, GangRequest.fresh(key, replicas, {GPU: gpus}))
        if isinstance(placed, Unplaced):
            break
        snapshot = snapshot.assume(placed)
        running.append(
            Running(
                key,
                replace(placed.request, missing=(), fixed=dict(placed.nodes)),
                priority=chance.choice((0, 0, 5, 10)),
                placed=NOW - 1e4 * chance.random(),
                saved=NOW - 600 * chance.random(),
                restarts=chance.randrange(3),
            )
        )
    beside: set[str] = set()
    for at, name in enumerate(snapshot.nodes.tree.names):
        free = snapshot.free_of(name)[GPU]
        if free == 8 and chance.random() < scattered and name not in beside:
            beside |= set(snapshot.nodes.tree.names[at - at % 16 : at - at % 16 + 16])
        elif free >= 4 or (free and chance.random() < 0.9):
            snapshot = snapshot.assume([Reservation(("x", name), 0, name, {GPU: free})])
    return snapshot, running


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    sizes = ((500, 200), (2_000, 700), (10_000, 3_000))
    show("nodes", [f"{nodes}" for nodes, _ in sizes])
    show("gangs that may go", [f"{gangs}" for _, gangs in sizes])
    clusters = [full(nodes, gangs, random.Random(7)) for nodes, gangs in sizes]
    rows = {
        "4 x 8 devices in one rack": asks(4, 8, "rack"),
        "8 x 4 devices in one rack": asks(8, 4, "rack"),
        "32 x 8, one block, groups of 4 in a rack": asks(32, 8, "block", "rack"),
        "64 x 8 anywhere": asks(64, 8),
        "more than all of it": asks(20_000, 8),
    }
    for label, request in rows.items():
        cells: list[float | str] = []
        for snapshot, running in clusters:
            answer = choose(snapshot, request, running, now=NOW)
            victims = len(answer.victims) if isinstance(answer, Preemption) else "none"
            took = median_ms(partial(choose, snapshot, request, running, now=NOW), rounds)
            cells.append(f"{took:.1f} ({victims})")
        show(label, cells)
    cells = []
    request = asks(4, 8, "rack")
    for nodes, gangs in sizes:
        snapshot, running = full(nodes, gangs, random.Random(7), scattered=0.5)
        way = defragment(snapshot, Pending(WAITS, request), running, NOW)
        waits = Pending(WAITS, request)
        took = median_ms(partial(defragment, snapshot, waits, running, NOW), rounds)
        cells.append(f"{took:.1f} ({len(way.moves) if way else 'none'})")
    show("moves for 4 x 8 in one rack", cells)


if __name__ == "__main__":
    main()
