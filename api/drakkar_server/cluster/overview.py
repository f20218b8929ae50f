"""Numbers over the whole cluster: what is used and free, who waits, where time goes. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from drakkar_server.cluster.views import JobView, Level, NodeView, PodView, is_device

OVER = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Capacity:
    """Of one resource: devices, or cores of cpu."""

    resource: str
    total: float
    used: float
    broken: float
    """On nodes that take no pods, and devices with faults."""

    @property
    def free(self) -> float:
        """What new pods could get."""
        return max(0.0, self.total - self.used - self.broken)


@dataclass(frozen=True, slots=True)
class NodeUse:
    """A node and what is taken of it."""

    node: NodeView
    used: Mapping[str, int]
    """Resource -> devices, and millicores of cpu."""
    path: tuple[str, ...]
    """Its domains, widest first."""


def uses(
    nodes: Iterable[NodeView], pods: Mapping[str, Iterable[PodView]], levels: tuple[Level, ...]
) -> list[NodeUse]:
    """All nodes with what their pods take, in order of the topology."""
    found = []
    for node in nodes:
        used: Counter[str] = Counter()
        for pod in pods.get(node.name, ()):
            if pod.phase in OVER:
                continue
            used["cpu"] += pod.cpu
            for name, count in pod.devices:
                used[name] += count
        path = tuple(node.labels.get(level.label, "-") for level in levels)
        found.append(NodeUse(node, used, path))
    return sorted(found, key=lambda use: (use.path, use.node.name))


def capacity(found: Iterable[NodeUse]) -> list[Capacity]:
    """Sums over nodes of each kind of device, and of cores."""
    total: Counter[str] = Counter()
    used: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for use in found:
        for name, count in use.node.allocatable.items():
            if name != "cpu" and not is_device(name):
                continue
            total[name] += count
            used[name] += min(count, use.used.get(name, 0))
            if not use.node.ready or use.node.cordoned:
                broken[name] += max(0, count - use.used.get(name, 0))
    scale = {"cpu": 1000.0}
    return [
        Capacity(
            name,
            total[name] / scale.get(name, 1),
            used[name] / scale.get(name, 1),
            broken[name] / scale.get(name, 1),
        )
        for name in sorted(total, key=lambda name: (name == "cpu", name))
        if total[name]
    ]


def goodput(jobs: Iterable[JobView]) -> float | None:
    """Mean goodput of the running jobs, weighted by their ranks; None without any."""
    weights = [
        (job.goodput, job.ranks)
        for job in jobs
        if job.goodput is not None and job.phase == "Running"
    ]
    ranks = sum(weight for _, weight in weights)
    return sum(value * weight for value, weight in weights) / ranks if ranks else None
