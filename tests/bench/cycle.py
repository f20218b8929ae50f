"""How long a scheduling cycle takes with many queues and many waiting jobs.

``python tests/bench/cycle.py [--nodes N] [--jobs N] [--queues N]`` prints CPU milliseconds. Nodes have
8 devices, of which half are taken by gangs of 4 to 64, some of which report when they end. Queues lie
below 10 parents; their jobs wait for 16 nodes with 8 devices each, which nobody has. The first cycle
judges them all; the second finds what the first left, with nothing changed, with a gang gone, and with
one job more.
"""

import argparse
import random
import time
from dataclasses import replace

from drakkar.constants import DEFAULT_LEVELS
from drakkar_operator.model import NodeView, QueueView
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.state import ClusterState
from drakkar_operator.scheduling.verdicts import Memory, remember
from drakkar_operator.scheduling.workload import Pending, Running

GPU = "nvidia.com/gpu"
NOW = 1_000_000.0


def node(at: int) -> NodeView:
    """A node with 8 devices, 16 to a rack, 16 racks to a block."""
    labels = dict(DEFAULT_LEVELS)
    where = {
        labels["zone"]: f"z{at // 1024}",
        labels["block"]: f"b{at // 256}",
        labels["rack"]: f"r{at // 16}",
    }
    allocatable = {"cpu": 128_000, "memory": 1 << 40, "pods": 110, GPU: 8}
    return NodeView(f"node-{at}", {"kubernetes.io/hostname": f"node-{at}", **where}, allocatable)


def fill(count: int, queues: int, chance: random.Random) -> list[Running]:
    """Gangs of one device per rank on every node, so that none is empty."""
    found, at = [], 0
    while at < count:
        ranks = min(chance.choice((4, 8, 16, 64)), count - at)
        key = ("team", f"runs-{at}")
        request = GangRequest.fresh(key, ranks, {"cpu": 4_000, GPU: 4})
        request = replace(
            request, missing=(), fixed={rank: f"node-{at + rank}" for rank in range(ranks)}
        )
        ends = NOW + chance.uniform(60, 86_400) if chance.random() < 0.5 else None
        queue = f"queue-{chance.randrange(queues)}"
        found.append(Running(key, request, queue, placed=NOW - chance.uniform(0, 1e5), ends=ends))
        at += ranks
    return found


def decide(
    state: ClusterState, pending: list[Pending], running: list[Running],
    queues: dict[str, QueueView], memory: Memory,
) -> tuple[float, int, Memory]:  # fmt: skip
    """(CPU milliseconds of a cycle with all that goes with it, jobs placed, what it leaves)."""
    start = time.process_time()
    snapshot = state.snapshot(rank for gang in running for rank in gang.reservations)
    holds, known = memory.recall(snapshot, pending, running, NOW)
    case = Case(snapshot, tuple(pending), tuple(running), queues, NOW, holds, known)
    decisions = case.decide()
    left = remember(snapshot, pending, running, holds, decisions)
    took = time.process_time() - start
    return took * 1e3, sum(decision.placed is not None for decision in decisions), left


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--nodes", type=int, default=10_000)
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--queues", type=int, default=100)
    asked = options.parse_args()
    chance = random.Random(7)
    state = ClusterState(DEFAULT_LEVELS)
    for at in range(asked.nodes):
        state.upsert_node(node(at))
    state.snapshot()
    running = fill(asked.nodes, asked.queues, chance)
    queues = {f"parent-{at}": QueueView(f"parent-{at}", {}) for at in range(10)}
    for at in range(asked.queues):
        quota = {GPU: asked.nodes * 8}
        queues[f"queue-{at}"] = QueueView(f"queue-{at}", quota, at % 5 + 1, f"parent-{at % 10}")
    pending = [
        Pending(
            ("team", f"job-{at}"),
            GangRequest.fresh(("team", f"job-{at}"), 16, {"cpu": 8_000, GPU: 8}),
            f"queue-{at % asked.queues}",
            created=NOW - 7200 + at / 10,
        )
        for at in range(asked.jobs)
    ]
    print(
        f"{asked.nodes} nodes, {len(running)} running gangs, {asked.jobs} jobs, {asked.queues} queues"
    )
    print("CPU milliseconds of a cycle (jobs placed)")
    took, placed, memory = decide(state, pending, running, queues, Memory())
    print(f"{'the first':<36}{took:>9.0f} ({placed})")
    took, placed, _ = decide(state, pending, running, queues, memory)
    print(f"{'nothing changed':<36}{took:>9.0f} ({placed})")
    took, placed, _ = decide(state, pending, running[1:], queues, memory)
    print(f"{'one gang has ended':<36}{took:>9.0f} ({placed})")
    small = Pending(("team", "small"), GangRequest.fresh(("team", "small"), 4, {GPU: 4}), "queue-7")
    took, placed, _ = decide(state, [*pending, small], running, queues, memory)
    print(f"{'one job more, for which there is room':<36}{took:>9.0f} ({placed})")


if __name__ == "__main__":
    main()
