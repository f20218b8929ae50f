"""Parts that the pods of jobs and of services have in common."""

from typing import Any, Final

from drakkar.constants import RUN_AS_USER
from drakkar_operator.render.resources import container_requests

SHARED_MEMORY: Final = {"medium": "Memory"}
RESTRICTED_POD: Final[dict[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": RUN_AS_USER,
    "runAsGroup": RUN_AS_USER,
    "fsGroup": RUN_AS_USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def downward(name: str, path: str) -> dict[str, Any]:
    """A variable that holds a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def thread_variable(container: dict[str, Any], processes: int) -> list[dict[str, Any]]:
    """As many threads per process as it has whole CPUs: it would else count the node's."""
    cpu = container_requests(container).get("cpu")
    if cpu is None:
        return []
    return [{"name": "OMP_NUM_THREADS", "value": str(max(1, cpu // (1000 * processes)))}]


def pin(spec: dict[str, Any], node: str) -> None:
    """Allow kube-scheduler this node alone, on top of what the template already requires."""
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms") or [{}]
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    required["nodeSelectorTerms"] = [
        {**term, "matchFields": [*(term.get("matchFields") or ()), field]} for term in terms
    ]


def add_named(items: list[dict[str, Any]], item: dict[str, Any]) -> None:
    """Add an item unless the template has one of that name: the user's wins."""
    if all(existing.get("name") != item["name"] for existing in items):
        items.append(item)


def add_mount(mounts: list[dict[str, Any]], mount: dict[str, Any]) -> None:
    """Add a mount unless the template has one at that path."""
    if all(existing.get("mountPath") != mount["mountPath"] for existing in mounts):
        mounts.append(mount)
