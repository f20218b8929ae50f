"""What each domain of a topology level holds, for people to see. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from drakkar_operator.model import NodeView, PodView

NAMED = 1024
"""A Topology's status names so many domains at most."""


@dataclass(slots=True)
class Domain:
    """The nodes that share a value of a level's label."""

    name: str
    nodes: int = 0
    free: dict[str, int] = field(default_factory=dict)
    """Devices (extended resources) on nodes that take pods, less what pods hold."""


def domains(label: str, nodes: Iterable[NodeView], pods: Iterable[PodView]) -> list[Domain]:
    """The domains of a level by name; nodes without its label are in none."""
    found: dict[str, Domain] = {}
    of_node: dict[str, Domain] = {}
    for node in nodes:
        name = node.labels.get(label)
        if name is None:
            continue
        domain = found.setdefault(name, Domain(name))
        domain.nodes += 1
        if node.ready and not node.unschedulable:
            of_node[node.name] = domain
            for resource, amount in node.allocatable.items():
                if _device(resource):
                    domain.free[resource] = domain.free.get(resource, 0) + amount
    for pod in pods:
        if pod.node in of_node and not pod.finished:
            free = of_node[pod.node].free
            for resource, amount in pod.requests.items():
                if resource in free:
                    free[resource] -= amount
    for domain in found.values():
        # A device that broke under a pod is in no room, and the pod holds it still.
        domain.free = {resource: max(0, left) for resource, left in domain.free.items()}
    return [found[name] for name in sorted(found)][:NAMED]


def _device(resource: str) -> bool:
    """Extended resources have a domain of their own, which is not Kubernetes'."""
    domain, slash, _ = resource.partition("/")
    return bool(slash) and not domain.endswith("kubernetes.io")
