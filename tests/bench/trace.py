"""Packing and waits on the Alibaba 2023 GPU trace, beside the published results.

``python tests/bench/trace.py [--traces DIR] [--seeds N] [--workloads ...] [--policies ...]``

The published experiment (Fragmentation Gradient Descent, USENIX ATC'23): tasks are drawn at random and
arrive one by one, none leaves, until what arrived asks for 130 % of all GPUs. The figure is the
allocated part of all GPUs, in %, once 100, 110, 120 and 130 % arrived: means over the seeds. ``ours``
is ``place`` with the job mix of the workload; the other policies choose among the same nodes.

``--timed`` replays the trace's own arrivals and durations instead, with the time between arrivals
shortened until they ask for ``--load`` of all GPUs: what waits is tried again in order of arrival as
tasks end. It prints waits and the makespan over the least possible one (GPU seconds over GPUs).

The trace (its folder has a README) is not shipped: it is looked for beside the project, in
``../shared/traces``.
"""

import argparse
import csv
import heapq
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from drakkar_operator.model import NodeView
from drakkar_operator.scheduling.decision import Placed, Reservation
from drakkar_operator.scheduling.mix import Mix
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.predicates import capacity, eligible
from drakkar_operator.scheduling.request import GangRequest, Requirement, Role, Term
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.topology import IntArray

GPU = "nvidia.com/gpu-milli"
MODEL = "gpu-model"
LEVELS = (("host", "kubernetes.io/hostname"),)
MARKS = (100, 110, 120, 130)
WORKLOADS = ("default", "multigpu20", "gpuspec33", "gpushare100")
PUBLISHED = {
    "default": {
        "random": (86.2, 86.7, 87.1, 87.3),
        "best fit": (92.9, 93.0, 93.1, 93.1),
        "FGD": (95.1, 95.2, 95.2, 95.3),
    },
    "multigpu20": {
        "random": (86.4, 87.4, 87.9, 88.3),
        "best fit": (93.4, 93.5, 93.5, 93.6),
        "FGD": (95.4, 95.4, 95.5, 95.5),
    },
    "gpuspec33": {
        "random": (83.6, 85.3, 86.0, 86.4),
        "best fit": (80.2, 87.8, 92.9, 93.0),
        "FGD": (87.9, 94.3, 94.3, 94.4),
    },
    "gpushare100": {
        "random": (78.9, 79.1, 79.3, 79.4),
        "best fit": (84.4, 84.6, 84.7, 84.8),
        "FGD": (86.6, 86.7, 86.8, 86.9),
    },
}
"""Of one seed, in %, from the trace's README."""


@dataclass(frozen=True, eq=False)
class Task:
    """One row of a workload."""

    role: Role
    arrives: float = 0.0
    seconds: float = 0.0

    @property
    def gpus(self) -> int:
        """Thousandths of devices."""
        return self.role.requests.get(GPU, 0)


Policy = Callable[[Snapshot, Role, random.Random], Placed | Reservation | None]


def ours(snapshot: Snapshot, role: Role, _: random.Random) -> Placed | None:
    """Drakkar's placement."""
    answer = place(snapshot, GangRequest(("trace", "task"), (role,), missing=(0,)))
    return answer if isinstance(answer, Placed) else None


def by_rank(rank: Callable[[Snapshot, Role, IntArray, random.Random], int]) -> Policy:
    """A policy that chooses one of the nodes with room."""

    def choose(snapshot: Snapshot, role: Role, chance: random.Random) -> Reservation | None:
        fits = np.flatnonzero(capacity(snapshot, role, eligible(snapshot, role).mask))
        if not len(fits):
            return None
        node = snapshot.nodes.tree.names[rank(snapshot, role, fits, chance)]
        return Reservation(("trace", "task"), 0, node, role.requests, shares=None)

    return choose


def best(snapshot: Snapshot, role: Role, fits: IntArray, _: random.Random) -> int:
    """The node on which the least is left, all resources weighed by the largest node's."""
    left = snapshot.free[fits] - snapshot.nodes.row(role.requests)
    columns = [snapshot.nodes.columns[name] for name in ("cpu", "memory", GPU)]
    most = snapshot.nodes.allocatable[:, columns].max(axis=0)
    return int(fits[np.argmin((left[:, columns] / most).sum(axis=1))])


POLICIES: dict[str, Policy] = {
    "random": by_rank(lambda _, __, fits, chance: int(fits[chance.randrange(len(fits))])),
    "first fit": by_rank(lambda _, __, fits, ___: int(fits[0])),
    "best fit": by_rank(best),
    "ours": ours,
}


def cluster(folder: Path) -> Snapshot:
    """The trace's GPU nodes, empty."""
    nodes = []
    with (folder / "openb_node_list_gpu_node.csv").open() as file:
        for row in csv.DictReader(file):
            name, gpus = row["sn"], int(row["gpu"])
            amounts = {
                "cpu": int(row["cpu_milli"]),
                "memory": int(row["memory_mib"]) << 20,
                "pods": 1000,
                GPU: 1000 * gpus,
            }
            labels = {"kubernetes.io/hostname": name, MODEL: row["model"]}
            nodes.append(NodeView(name, labels, amounts, devices={GPU: gpus}))
    return Snapshot.build(nodes, (), (), LEVELS)


def workload(folder: Path, name: str) -> list[Task]:
    """The tasks of a workload, in order of arrival; equal tasks share a role."""
    roles: dict[tuple[object, ...], Role] = {}
    tasks = []
    with (folder / f"openb_pod_list_{name}.csv").open() as file:
        for row in csv.DictReader(file):
            gpus = int(row["num_gpu"])
            amount = gpus * 1000 if gpus != 1 else int(row["gpu_milli"])
            requests = {"cpu": int(row["cpu_milli"]), "memory": int(row["memory_mib"]) << 20}
            models = tuple(sorted({m for m in (row.get("gpu_spec") or "").split("|") if m}))
            role = Role(
                1,
                {**requests, **({GPU: amount} if gpus else {})},
                node_affinity=(Term((Requirement(MODEL, "In", models),)),) if models else (),
            )
            arrives = float(row.get("creation_time") or 0)
            ends = float(row.get("deletion_time") or 0)
            starts = float(row.get("scheduled_time") or arrives)
            role = roles.setdefault(role.shape, role)
            tasks.append(Task(role, arrives, max(1.0, ends - starts)))
    return sorted(tasks, key=lambda task: task.arrives)


def mix(tasks: Sequence[Task]) -> Mix:
    """How often each role occurs."""
    roles = {id(task.role): task.role for task in tasks}
    counts = Counter(id(task.role) for task in tasks)
    return Mix(tuple((roles[key], float(count)) for key, count in counts.most_common()))


def allocated(
    empty: Snapshot, tasks: Sequence[Task], policy: Policy, chance: random.Random
) -> list[float]:
    """Allocated GPUs in % at each of the marks."""
    total = int(empty.nodes.allocatable[:, empty.nodes.columns[GPU]].sum())
    marks = [total * mark // 100 for mark in MARKS]
    snapshot, arrived, taken, found = empty, 0, 0, list[float]()
    while len(found) < len(marks):
        task = tasks[chance.randrange(len(tasks))]
        arrived += task.gpus
        answer = policy(snapshot, task.role, chance)
        if answer is not None:
            taken += task.gpus
            snapshot = snapshot.assume(answer if isinstance(answer, Placed) else [answer])
        if arrived >= marks[len(found)]:
            found.append(100 * taken / total)
    return found


def timed(
    empty: Snapshot, tasks: Sequence[Task], policy: Policy, load: float
) -> tuple[list[float], float]:
    """(seconds that each task waited, makespan over the least possible one)."""
    total = int(empty.nodes.allocatable[:, empty.nodes.columns[GPU]].sum())
    work = sum(task.gpus * task.seconds for task in tasks) / total
    span = tasks[-1].arrives - tasks[0].arrives
    pace = work / span / load
    chance = random.Random(1)
    arrivals = [(task.arrives - tasks[0].arrives) * pace for task in tasks]
    running: list[tuple[float, int, Reservation]] = []
    waiting: list[int] = []
    waits, now, free, at, end = [0.0] * len(tasks), 0.0, empty, 0, 0.0
    while at < len(tasks) or running:
        now = min(
            arrivals[at] if at < len(tasks) else float("inf"),
            running[0][0] if running else float("inf"),
        )
        while running and running[0][0] <= now:
            free = free.release([heapq.heappop(running)[2]])
        while at < len(tasks) and arrivals[at] <= now:
            waiting.append(at)
            at += 1
        refused: set[int] = set()
        for each in list(waiting):
            task = tasks[each]
            if id(task.role) in refused:
                continue
            answer = policy(free, task.role, chance)
            if answer is None:
                refused.add(id(task.role))
                continue
            (rank,) = bound(free, answer)
            free = free.assume([rank])
            waiting.remove(each)
            waits[each] = now - arrivals[each]
            heapq.heappush(running, (now + task.seconds, each, rank))
            end = max(end, now + task.seconds)
    return waits, end / max(work, max(a + t.seconds for a, t in zip(arrivals, tasks, strict=True)))


def bound(snapshot: Snapshot, answer: Placed | Reservation) -> tuple[Reservation, ...]:
    """The room that a choice takes, with its devices: they must be given back as they were."""
    if isinstance(answer, Placed):
        return answer.reservations
    after = snapshot.assume([answer]).devices[GPU]
    node = snapshot.nodes.tree.index[answer.node]
    held = snapshot.devices[GPU][node] - after[node]
    shares = tuple((GPU, int(at), int(held[at])) for at in np.flatnonzero(held))
    return (replace(answer, shares=shares),)


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "traces"
    options.add_argument("--traces", type=Path, default=beside)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--workloads", nargs="+", default=WORKLOADS, choices=WORKLOADS)
    options.add_argument("--policies", nargs="+", default=[*POLICIES], choices=[*POLICIES])
    options.add_argument("--timed", action="store_true", help="replay arrivals and durations")
    options.add_argument("--load", type=float, default=1.0)
    given = options.parse_args()
    if not (given.traces / "openb_node_list_gpu_node.csv").exists():
        print(f"no trace in {given.traces}: pass --traces DIR")
        return
    empty = cluster(given.traces)
    for name in given.workloads:
        tasks = workload(given.traces, name)
        known = replace(empty, mix=mix(tasks))
        if given.timed:
            if not any(task.arrives for task in tasks):
                continue
            print(f"{name}: waits in hours (mean, median, 95 %), makespan over the least")
            for policy in given.policies:
                start = time.process_time()
                waits, span = timed(known, tasks, POLICIES[policy], given.load)
                hours = sorted(wait / 3600 for wait in waits)
                print(
                    f"  {policy:<10} {statistics.mean(hours):8.2f} "
                    f"{statistics.median(hours):8.2f} {hours[int(0.95 * len(hours))]:8.2f} "
                    f"{span:6.3f}   ({time.process_time() - start:.0f} s of CPU)",
                    flush=True,
                )
            continue
        print(f"{name}: allocated GPUs in % at {', '.join(map(str, MARKS))} % arrived")
        for policy, values in PUBLISHED[name].items():
            print(f"  {policy:<10} {' '.join(f'{v:6.1f}' for v in values)}   published")
        for policy in given.policies:
            start = time.process_time()
            runs = [
                allocated(known, tasks, POLICIES[policy], random.Random(seed))
                for seed in range(given.seeds)
            ]
            means = [statistics.mean(values) for values in zip(*runs, strict=True)]
            print(
                f"  {policy:<10} {' '.join(f'{v:6.1f}' for v in means)}   "
                f"{given.seeds} seeds, {time.process_time() - start:.0f} s of CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
